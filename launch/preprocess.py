"""Turns a corpus of MIDI files into the token shards that training reads.

  python -m launch.preprocess --config=configs/sage.py:demo --workdir=runs/demo
  python -m launch.preprocess --config=configs/sage.py:base --workdir=runs/mine --config.data.corpus=folder:my_midi
  ... --config.preprocess.reader=symusic   many times as fast      ... --config.preprocess.runner=beam   on a cluster

Stop it at any moment: the same command goes on where it stopped. The report is printed and stays beside the shards.
"""

import os

from absl import flags

from launch._main import config_file, run
from sage_jax.music.events import NoteEvents
from sage_jax.music.preprocess import PreprocessConfig, preprocess
from sage_jax.music.report import format_report
from sage_jax.training.config import DataConfig, read_section

CONFIG = config_file("configs/sage.py", "What to read: a config file, :argument, and --config.section.field=value.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; the shards go to `data` in it.", required=True)


def main() -> int | None:
    config = CONFIG.value.to_dict()
    data = read_section(DataConfig, "data", config)
    folder = data.shards or os.path.join(WORKDIR.value, "data")
    try:
        tokenizer, limits = read_section(NoteEvents, "tokenizer", config), read_section(PreprocessConfig, "preprocess", config)
        report = preprocess(data.corpus, folder, tokenizer, limits)
    except KeyboardInterrupt:
        print(f"stopped; what is done is kept in {folder}. The same command goes on from there.")
        return 130
    print(format_report(report), end="")
    print(f"{'Reused' if report['reused'] else 'Wrote'} {folder}")


if __name__ == "__main__":
    run(main)
