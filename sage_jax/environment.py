"""What a measurement was taken on, so that a number is never told without it."""

import functools
import os
import pathlib
import platform
import subprocess
from importlib import metadata

import jax


def describe(*packages: str) -> dict[str, str | int]:
    """The device, the processor and the versions of this process; those of `packages` too."""
    return {
        "device": jax.devices()[0].device_kind,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("jax", "jaxlib", "flax", *packages)},
    }


def commit() -> str:
    """The commit of this checkout, with a + where the package differs from it; "unknown" outside one."""
    git = functools.partial(
        subprocess.run, cwd=pathlib.Path(__file__).parent, capture_output=True, text=True, check=True
    )
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
