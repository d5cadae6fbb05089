"""One of two hosts, which restores the newest checkpoint that both can read and prints its step: for a process of its own.

  python -m tests.training.restored HOST:PORT NUMBER WORKDIR
"""

import sys

from sage_jax.training.checkpoint import Checkpoints
from sage_jax.training.config import RunConfig
from sage_jax.training.hosts import join
from sage_jax.training.programs import make_programs
from tests.training.tiny import tiny_config


def main() -> None:
    coordinator, number, workdir = sys.argv[1:]
    join(coordinator, 2, int(number))
    config = RunConfig.from_dict(tiny_config().to_dict())
    programs = make_programs(config, config.tokenizer)
    with Checkpoints(workdir, config) as checkpoints:
        state, _ = checkpoints.restore(programs.whole(programs.init(0)))
    print(int(state.step))


if __name__ == "__main__":
    main()
