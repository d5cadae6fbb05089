"""A request to compile: from the names of a target and a program, and a config or a run's folder, to a report."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from sage_jax.compiling.programs import PROGRAMS, lower, representation_of
from sage_jax.compiling.report import Report, compile_program
from sage_jax.compiling.targets import find_target
from sage_jax.config import RunConfig
from sage_jax.errors import UserError
from sage_jax.training.run_manifest import read_manifest


def compile_for(
    target: str,
    program: str,
    sections: Mapping[str, Any],
    workdir: str | os.PathLike | None = None,
    overrides: Mapping[str, Any] | None = None,
    rows: int = 1,
    capacity: int = 1024,
) -> Report:
    """The report of `program`, one of PROGRAMS, compiled for the target of this name.

    sections: those of configs/sage.py. workdir: a run's folder, whose own config with `overrides` ('section.field' -> value)
    takes their place. rows, capacity: sessions, and events of each, in the cache of a decoding program. Call it before jax has
    looked for its devices. Raises UserError for anything that does not exist or does not fit.
    """
    if program not in PROGRAMS:
        raise UserError(f"--program is {program!r}; choose one of {', '.join(PROGRAMS)}")
    for flag, value, low in (("rows", rows, 1), ("capacity", capacity, 8)):
        if value < low:
            raise UserError(f"--{flag} is {value}; give at least {low}")
    found = find_target(target)
    folder = pathlib.Path(workdir) if workdir else None
    run = RunConfig.from_dict(_sections_of(folder, overrides or {}) if folder else sections)
    lowered = lower(program, run, representation_of(run, folder), found, rows, capacity)
    return compile_program(lowered, program, run, found)


def _sections_of(folder: pathlib.Path, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The config sections of a run with some fields replaced."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"there is no run in {folder}; give the folder that launch.train has as --workdir, or --config")
    sections = {name: dict(value) if isinstance(value, Mapping) else value for name, value in manifest["config"].items()}
    for name, value in overrides.items():
        section, _, field = name.rpartition(".")
        if section:
            sections.setdefault(section, {})[field] = value
        else:
            sections[field] = value
    return sections
