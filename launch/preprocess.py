"""Encodes a corpus of MIDI files as the token shards that training reads.

  python -m launch.preprocess --config=configs/sage.py:demo --workdir=runs/demo
  python -m launch.preprocess --config=configs/sage.py:base --workdir=runs/mine --config.data.corpus=folder:my_midi
  ... --config.preprocess.reader=pretty_midi   a third party's parser      ... --config.preprocess.runner=beam   a cluster

It can be stopped at any moment: the same command resumes. The report is printed and kept next to the shards.
"""

import os
import sys

from absl import flags

from launch._main import config_file, run
from sage_jax.config import DataConfig, read_section
from sage_jax.corpus.preprocess import PreprocessConfig, preprocess
from sage_jax.corpus.report import format_report
from sage_jax.tokenizers.note_events import NoteEvents

CONFIG = config_file("configs/sage.py", "What to read: a config file, :argument, and --config.section.field=value.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; the shards go to `data` in it.", required=True)


def main() -> None:
    config = CONFIG.value.to_dict()
    data = read_section(DataConfig, "data", config)
    folder = data.shards or os.path.join(WORKDIR.value, "data")
    tokenizer, limits = read_section(NoteEvents, "tokenizer", config), read_section(PreprocessConfig, "preprocess", config)
    try:
        report = preprocess(data.corpus, folder, tokenizer, limits)
    except KeyboardInterrupt:
        print(f"stopped; finished shards are kept in {folder}. The same command resumes.")
        sys.exit(130)
    print(format_report(report), end="")
    print(f"{'Reused' if report['reused'] else 'Wrote'} {folder}")


if __name__ == "__main__":
    run(main)
