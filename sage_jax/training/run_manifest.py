"""run.json in a run's folder: its full config, and a record of each start."""

import datetime
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from sage_jax.config import diff
from sage_jax.environment import commit, describe
from sage_jax.errors import UserError
from sage_jax.files import write_json
from sage_jax.training.preemption import this_command

RUN_FILE = "run.json"
# In addition to the packages of environment.describe.
PACKAGES = ("optax", "orbax-checkpoint", "grain", "ml_collections", "numpy", "pretty_midi")


def record_start(workdir: str | os.PathLike, config: Mapping[str, Any], step: int) -> None:
    """Records in run.json that the run of `config` (its sections, JSON-ready) starts from `step` now.

    Keys: 'config' of the newest start, and 'starts', a list of 'step', 'time' (UTC), 'command', 'commit', 'versions', 'devices'
    and 'changed' ('section.field' -> [before, now]). Raises UserError if the file is damaged or can't be written.
    """
    path = pathlib.Path(workdir) / RUN_FILE
    known = read_manifest(workdir) or {"config": config, "starts": []}
    devices = {"count": jax.device_count(), "kind": jax.devices()[0].device_kind, "processes": jax.process_count()}
    start = {
        "step": step,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": this_command(),
        "commit": commit(),
        "versions": describe(*PACKAGES),
        "devices": devices,
        "changed": diff(known["config"], config),
    }
    write_json(path, {"config": config, "starts": [*known["starts"], start]}, indent=1)


def read_manifest(workdir: str | os.PathLike) -> dict[str, Any] | None:
    """The contents of run.json in `workdir`, or None without the file. Raises UserError for a damaged one."""
    path = pathlib.Path(workdir) / RUN_FILE
    try:
        manifest = json.loads(path.read_text())
        if isinstance(manifest["config"], Mapping) and isinstance(manifest["starts"], list):
            return manifest
        reason = "it has no 'config' and 'starts'"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise UserError(f"{path} can't be read ({reason}); move it away, and the next start writes a new one")
