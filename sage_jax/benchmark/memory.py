"""The memory that this process, or its device, has needed."""

import jax

from sage_jax.benchmark import worker


def peak_megabytes() -> float:
    """The most memory so far: the device's own where it counts it, else this process's resident memory."""
    counted = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in counted:
        return counted["peak_bytes_in_use"] / 1e6
    return worker.peak_megabytes()
