"""One of two hosts: trains under pmap, then runs scenarios in which a host fails. For a process of its own.

  python -m tests.training.host_pair HOST:PORT PROCESS_ID FOLDER

FOLDER holds `data` (shards), and the runs `restored_0` and `restored_1`, one for each host. The run of pmap goes to `pmap`, and
what each scenario raised to a file of JSON. Ends with the exit code of launch.train, in a scenario where host 1 has no shards.
"""

import json
import pathlib
import sys

from launch._main import run
from sage_jax.config import RunConfig
from sage_jax.errors import UserError
from sage_jax.models.backbone import Backbone
from sage_jax.training.checkpoint import Checkpoints
from sage_jax.training.hosts import initialize_distributed
from sage_jax.training.loop import train
from sage_jax.training.train_functions import make_train_functions
from tests.initial_values import quick_init
from tests.training.processes import config_of
from tests.training.tiny import tiny_config


def restore(workdir: pathlib.Path) -> int:
    """The step of the newest checkpoint that both hosts can read."""
    config = RunConfig.from_dict(tiny_config().to_dict())
    functions = make_train_functions(config, config.tokenizer)
    with Checkpoints(workdir, config) as checkpoints:
        state, _ = checkpoints.restore(functions.unshard_state(functions.init(0)))
    return int(state.step)


def main(coordinator: str, process_id: int, folder: pathlib.Path) -> None:
    initialize_distributed(coordinator, 2, process_id)
    pmap = config_of(folder / "data", steps=4)
    pmap.partitioner = "pmap"
    train(pmap, folder / "pmap")
    Backbone.init = quick_init  # nothing is trained from here on
    shards = lambda failing_host: str(folder / ("nowhere" if process_id == failing_host else "data"))
    learning_rate = 0.5 if process_id == 1 else 0.1
    configs = {
        "other config": tiny_config(data=dict(shards=shards(None)), optimizer=dict(learning_rate=learning_rate)),
        "no shards on host 0": tiny_config(data=dict(shards=shards(0))),
        "merges": tiny_config(data=dict(shards=shards(None)), representation=dict(name="remi", merges=19000)),
    }
    results: dict[str, str | int] = {}
    for name, config in configs.items():
        try:
            train(config, folder / "run")
        except UserError as error:
            results[name] = str(error)
    results["restored step"] = restore(folder / f"restored_{process_id}")
    (folder / f"results_{process_id}.json").write_text(json.dumps(results))
    train(tiny_config(data=dict(shards=shards(1))), folder / "run")


if __name__ == "__main__":
    coordinator, process_id, folder = sys.argv[1:]
    sys.argv[1:] = []
    run(lambda: main(coordinator, int(process_id), pathlib.Path(folder)))
