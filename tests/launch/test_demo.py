"""What demo.sh promises of its prompt."""

import pathlib
import re
import subprocess

from sage_jax.corpus.splits import SHARES, content_hash
from sage_jax.music.midi import read_midi

ROOT = pathlib.Path(__file__).parents[2]


def test_prompt_of_the_demo_is_held_out():
    """The hash of its content lies in the share of the test split, which is the same on every machine."""
    path = re.search(r"^prompt=(\S+)", (ROOT / "launch" / "demo.sh").read_text(), re.MULTILINE)[1]
    piece = read_midi(ROOT / path)
    assert int(content_hash(piece), 16) / 16**16 > SHARES[1]
    assert len(piece.slice_bars(0, 4).notes) > 40


def test_an_argument_that_the_demo_does_not_know_ends_in_one_line():
    ended = subprocess.run(["bash", ROOT / "launch" / "demo.sh", "--fast"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and ended.stderr.startswith("error: demo.sh takes --train or nothing, not --fast")
