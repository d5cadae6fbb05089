"""What the devices of a mesh would send each other in a train step: programs that are compiled for fake devices and not run.

Fake devices are threads of one processor, so that their times say nothing. What a program sends, and what each device holds,
follows from the mesh; for other devices XLA may choose other collectives. To be run in a process that has
XLA_FLAGS=--xla_force_host_platform_device_count=N.
"""

import functools
from typing import Any

import jax

from sage_jax.benchmark.communication import communicated
from sage_jax.benchmark.roofline import training_operations
from sage_jax.benchmark.train import configure
from sage_jax.benchmark.worker import serve
from sage_jax.environment import describe
from sage_jax.training.programs import empty_batch, make_programs
from sage_jax.training.sharding import bytes_of_state


class Counts:
    """Counts one model's programs on this process's devices: along each axis, with weak and with strong scaling.

    job: as Trainer's, but for shards; and axes, rows (for each device, in weak scaling; `batch` is that of strong scaling) and
    devices, how many this process should have.
    """

    def __init__(self, job: dict[str, Any]):
        if jax.device_count() != job["devices"]:
            raise SystemExit(f"there are {jax.device_count()} devices and not {job['devices']}")
        self._job = job
        self.about = {
            "measures": "nothing: train steps are compiled for fake devices, and what they send is counted",
            "versions": describe(),
        }

    def run(self) -> dict[str, Any]:
        """counted: for weak and for strong `scaling` along each `axis` what is counted of its program."""
        devices, axes = self._job["devices"], self._job["axes"]
        rows = {"weak": self._job["rows"] * devices, "strong": self._job["batch"]}
        along = axes if devices > 1 else axes[:1]  # one device is the same along any axis
        count = functools.cache(self._count)  # on so many devices both may have as many rows
        places = [(scaling, axis, count(batch, axis)) for scaling, batch in rows.items() for axis in along]
        return {"counted": [{"scaling": scaling, "axis": axis, **found} for scaling, axis, found in places]}

    def _count(self, batch: int, axis: str) -> dict[str, Any]:
        """Of one device: `sent`, bytes by kind of collective; held_bytes of the state; its even share of the operations."""
        devices = self._job["devices"]
        run = configure({**self._job, "batch": batch}, **{"data": 1, axis: devices})
        programs = make_programs(run, run.tokenizer)
        state = programs.init.eval_shape(run.train.seed)  # its shapes and shardings are enough
        update = programs.update.lower(state, empty_batch(run)).compile()
        return {
            "batch": batch,
            "sent": communicated(update),
            "held_bytes": bytes_of_state(state),
            "operations": training_operations(run.model, batch, run.context) / devices,
            "remarks": programs.remarks[1:],  # after that of the mesh, what it could not cut
        }


if __name__ == "__main__":
    serve(Counts)
