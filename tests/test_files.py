"""Claims between processes: one holder at a time, and none after its death."""

import subprocess
import sys

from sage_jax.files import claim

HOLD = """
import pathlib, sys
from sage_jax.files import claim
with claim(pathlib.Path(sys.argv[1]), wait=False) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_one_process_s_until_it_ends(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "True\n"
    with claim(tmp_path, wait=False) as mine:
        assert not mine
    holder.kill()
    with claim(tmp_path, wait=True) as mine:  # would wait for ever
        assert mine
    holder.communicate()
