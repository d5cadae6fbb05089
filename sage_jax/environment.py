"""The hardware and software that a measurement or a run used."""

import functools
import hashlib
import os
import pathlib
import platform
import subprocess
from importlib import metadata

import jax

PACKAGE = pathlib.Path(__file__).parent


def describe(*packages: str) -> dict[str, str | int]:
    """Device, processor and versions of this process, including the versions of `packages`."""
    return {
        "device": jax.devices()[0].device_kind,
        "processor": _processor(),
        "cores": cores(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("jax", "jaxlib", "flax", *packages)},
    }


def commit() -> str:
    """The short commit hash of this checkout, with a trailing + if the package has changes; "unknown" outside a checkout."""
    git = functools.partial(subprocess.run, cwd=PACKAGE, capture_output=True, text=True, check=True)
    try:
        changed = git(["git", "status", "--porcelain", "."]).stdout
        return git(["git", "rev-parse", "--short", "HEAD"]).stdout.strip() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def code_checksum() -> str:
    """SHA-256 of the package's modules as they are on disk now."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode() + path.read_bytes())
    return digest.hexdigest()


def processor_features() -> str:
    """The processor's name and instruction sets, as text."""
    return f"{_processor()} {_cpuinfo('flags') or _cpuinfo('Features') or platform.machine()}"


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(field: str) -> str:
    """The first value of a field of /proc/cpuinfo; empty without one."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")
