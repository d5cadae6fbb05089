"""What a measurement was taken on, so that a number is never told without it."""

import os
import pathlib
import platform
from importlib import metadata

import jax

from sage_jax.benchmark import worker


def describe() -> dict[str, str | int]:
    """The device, the processor and the versions of this process."""
    return {
        "device": jax.devices()[0].device_kind,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("jax", "jaxlib", "flax")},
    }


def peak_megabytes() -> float:
    """The most memory so far: the device's own where it counts it, else this process's resident memory."""
    counted = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in counted:
        return counted["peak_bytes_in_use"] / 1e6
    return worker.peak_megabytes()


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
