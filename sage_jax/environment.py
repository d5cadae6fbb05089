"""The hardware and software that a measurement or a run used."""

import functools
import os
import pathlib
import platform
import subprocess
from importlib import metadata

import jax


def describe(*packages: str) -> dict[str, str | int]:
    """Device, processor and versions of this process, including the versions of `packages`."""
    return {
        "device": jax.devices()[0].device_kind,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("jax", "jaxlib", "flax", *packages)},
    }


def commit() -> str:
    """The short commit hash of this checkout, with a trailing + if the package has changes; "unknown" outside a checkout."""
    git = functools.partial(subprocess.run, cwd=pathlib.Path(__file__).parent, capture_output=True, text=True, check=True)
    try:
        changed = git(["git", "status", "--porcelain", "."]).stdout
        return git(["git", "rev-parse", "--short", "HEAD"]).stdout.strip() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
