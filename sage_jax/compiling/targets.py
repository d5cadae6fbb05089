"""The devices to compile for: H100s, slices of TPU pods, and this machine's CPU.

A compiler needs a description of its device and no device. That of TPUs is in libtpu, and that of an H100 in h100.txtpb.
"""

import dataclasses
import importlib.util
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import topologies

from sage_jax.errors import UserError

H100_CONFIG = pathlib.Path(__file__).with_name("h100.txtpb")
MOST_GPUS = 8  # of one host
GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Generation:
    """A generation of TPUs. dimensions: of its topology. memory: bytes of a device. accelerator: a name that libtpu knows."""

    dimensions: int
    memory: int
    accelerator: str


GENERATIONS = {
    "v4": Generation(3, 16 * GIB, "v4-8"),  # a device is one of the two cores of a chip of 32 GiB
    "v5e": Generation(2, 16 * GIB, "v5litepod-4"),
    "v5p": Generation(3, 95 * GIB, "v5p-8"),
    "v6e": Generation(2, 32 * GIB, "v6e-4"),
}
KNOWN = "h100, h100:N (up to 8), v4:XxYxZ, v5e:XxY, v5p:XxYxZ, v6e:XxY, cpu, cpu:N"


@dataclasses.dataclass(frozen=True)
class Target:
    """What to compile for. devices: jax's own, or those of a topology. memory: bytes of each device; None if unknown."""

    name: str
    devices: tuple[Any, ...]
    memory: int | None

    @property
    def hosts(self) -> int:
        """Number of hosts that the devices belong to."""
        return len({device.process_index for device in self.devices})


def find_target(name: str) -> Target:
    """The target of this name. For one that is not there, call it before jax has looked for its devices.

    Raises UserError for an unknown name, a missing compiler, and a topology that the compiler does not know.
    """
    family, _, size = name.partition(":")
    if family in GENERATIONS and re.fullmatch(r"\d+(x\d+)*", size):
        return _tpu(name, GENERATIONS[family], tuple(int(side) for side in size.split("x")))
    if family in ("h100", "cpu") and re.fullmatch(r"[1-9]\d*|", size) and (":" in name) == bool(size):
        return _h100(name, int(size or 1)) if family == "h100" else _cpu(name, int(size or 1))
    raise UserError(f"--target is {name!r}; known are {KNOWN}")


def _tpu(name: str, generation: Generation, sides: tuple[int, ...]) -> Target:
    if len(sides) != generation.dimensions:
        raise UserError(f"--target is {name!r}, but its topology has {generation.dimensions} sides; known are {KNOWN}")
    _require(name, "jax[tpu]", "libtpu")
    # libtpu would otherwise look for the metadata server of a cloud machine, and keep other processes from compiling.
    settings = dict(TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
    settings |= dict(TPU_ACCELERATOR_TYPE=generation.accelerator, TPU_WORKER_HOSTNAMES="localhost")
    options: dict[str, Any] = {"chips_per_host_bounds": (1, 1, 1)} if math.prod(sides) == 1 else {}
    return Target(name, _devices(name, settings, platform="tpu", topology_name=name, **options), generation.memory)


def _h100(name: str, count: int) -> Target:
    if count > MOST_GPUS:
        raise UserError(f"--target is {name!r}, but one host has at most {MOST_GPUS}; known are {KNOWN}")
    _require(name, "jax[cuda13]", "jax_cuda13_plugin", "jax_cuda12_plugin")
    text = H100_CONFIG.read_text()
    memory = re.search(r"device_memory_size: (\d+)", text)
    assert memory, H100_CONFIG
    # Autotuning runs kernels, so it needs the device.
    settings = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0".strip()}
    sizes = f"1x1x{count}"  # slices, hosts, devices of each host
    found = _devices(name, settings, platform="cuda", topology_name="h100", target_config=text, topology=sizes)
    return Target(name, found, int(memory[1]))


def _cpu(name: str, count: int) -> Target:
    if count > 1:
        flag = f"--xla_force_host_platform_device_count={count}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(f"--target is {name!r}, but jax already runs with {len(devices)} CPU devices; start another process")
    return Target(name, tuple(devices[:count]), None)


def _require(name: str, extra: str, *modules: str) -> None:
    """Raises UserError unless one of `modules` is installed."""
    if not any(importlib.util.find_spec(module) for module in modules):
        raise UserError(f'--target={name} needs {" or ".join(modules)}, which is not installed: pip install "{extra}"')


def _devices(name: str, settings: Mapping[str, str], **topology: Any) -> tuple[Any, ...]:
    """The devices of a topology. settings: environment variables that its compiler reads."""
    os.environ.update(settings)
    jax.config.update("jax_platforms", "cpu")  # arrays of this process; looking for the target's devices would fail
    try:
        return tuple(topologies.get_topology_desc(**topology).devices)
    except Exception as error:  # jax's own class, or one of the plugin
        raise UserError(f"--target={name}: {str(error).splitlines()[0]}") from error
