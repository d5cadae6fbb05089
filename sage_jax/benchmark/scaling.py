"""Communication of a train step on a mesh, from programs that are compiled for fake devices and never run.

Fake devices are threads of one processor, so their times would mean nothing. What a program communicates, and what each device
holds, follows from the mesh. For real devices XLA may choose other collectives. The process needs
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
from sage_jax.training.sharding import bytes_of_state
from sage_jax.training.train_functions import empty_batch, make_train_functions


class CommunicationCounter:
    """Counts what one model's train step communicates along each mesh axis, for weak and strong scaling.

    job: as Trainer's without `shards`, and axes, devices (of this process), batch (rows in all, for strong scaling) and rows
      (per device, for weak scaling).
    """

    def __init__(self, job: dict[str, Any]):
        if jax.device_count() != job["devices"]:
            raise SystemExit(f"there are {jax.device_count()} devices instead of {job['devices']}")
        self._job = job
        self.metadata = {
            "measures": "compiles train steps for fake devices without running them, and counts what they communicate",
            "versions": describe(),
        }

    def run(self) -> dict[str, Any]:
        """programs: for each `scaling` ("weak", "strong") and mesh `axis`, the counts of its program."""
        devices, axes = self._job["devices"], self._job["axes"]
        rows = {"weak": self._job["rows"] * devices, "strong": self._job["batch"]}
        axes = axes if devices > 1 else axes[:1]  # on one device all axes are the same program
        count = functools.cache(self._count)  # weak and strong scaling may have the same batch
        cases = [(scaling, axis, count(batch, axis)) for scaling, batch in rows.items() for axis in axes]
        return {"programs": [{"scaling": scaling, "axis": axis, **counts} for scaling, axis, counts in cases]}

    def _count(self, batch: int, axis: str) -> dict[str, Any]:
        """Per device: `sent`, bytes by kind of collective; state_bytes; operations, its even share."""
        devices = self._job["devices"]
        run = configure({**self._job, "batch": batch}, **{"data": 1, axis: devices})
        functions = make_train_functions(run, run.tokenizer)
        state = functions.abstract_state  # shapes and shardings suffice
        train_step = functions.train_step.lower(state, empty_batch(run)).compile()
        return {
            "batch": batch,
            "sent": communicated(train_step),
            "state_bytes": bytes_of_state(state),
            "operations": training_operations(run.model, batch, run.context) / devices,
            "remarks": functions.remarks[1:],  # without the first, which describes the mesh
        }


if __name__ == "__main__":
    serve(CommunicationCounter)
