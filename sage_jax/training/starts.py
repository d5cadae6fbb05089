"""What a run's folder says of the run: run.json, with its whole config and how each start of it came about."""

import datetime
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from sage_jax.environment import commit, describe
from sage_jax.errors import UserError
from sage_jax.files import write_json
from sage_jax.training.config import changes
from sage_jax.training.interrupt import this_command

RUN_FILE = "run.json"
PACKAGES = ("optax", "orbax-checkpoint", "grain", "ml_collections", "numpy", "pretty_midi")  # beside those of every measurement


def note_start(workdir: str | os.PathLike, config: Mapping[str, Any], step: int) -> None:
    """Adds to run.json that the run of `config` (its sections, JSON-ready) starts from `step` now.

    'config' there is that of the newest start. 'starts' has all of them: 'step', 'time' (UTC), 'command', 'commit', 'versions',
    'devices', and in 'changed' the fields with another value than before: 'section.field' -> [before, now]. Raises UserError
    where the file is damaged or can't be written.
    """
    path = pathlib.Path(workdir) / RUN_FILE
    known = read_run(workdir) or {"config": config, "starts": []}
    devices = {"count": jax.device_count(), "kind": jax.devices()[0].device_kind, "processes": jax.process_count()}
    start = {
        "step": step,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": this_command(),
        "commit": commit(),
        "versions": describe(*PACKAGES),
        "devices": devices,
        "changed": changes(known["config"], config),
    }
    write_json(path, {"config": config, "starts": [*known["starts"], start]}, indent=1)


def read_run(workdir: str | os.PathLike) -> dict[str, Any] | None:
    """What run.json in `workdir` holds; None where there is none. Raises UserError for a damaged one."""
    path = pathlib.Path(workdir) / RUN_FILE
    try:
        found = json.loads(path.read_text())
        if isinstance(found["config"], Mapping) and isinstance(found["starts"], list):
            return found
        reason = "it holds no config and no starts"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise UserError(f"{path} can't be read ({reason}); move it away, and the next start writes another")
