"""Peak memory of this process or its device."""

import jax

from sage_jax.benchmark import worker


def peak_megabytes() -> float:
    """Peak memory so far: of the device if it counts its memory, else the resident memory of this process."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 1e6
    return worker.peak_megabytes()
