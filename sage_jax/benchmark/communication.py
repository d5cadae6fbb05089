"""Communication between the devices of a compiled program, read from its HLO text."""

import collections
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from sage_jax.benchmark.hlo import Instruction, Program

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
START = "-start"

_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_DEVICES = r"(?:, device_ids=\((?:\[([\d,]+)\](?:T\(([\d,]+)\))?|([\d,]+))\))?"
_MESH = re.compile(rf"replica_groups=mesh\[([^\]]*)\]{_DEVICES} \{{([^}}]*)\}}")
_AXIS = re.compile(r"'(\w+)'(?::\((\d+)\)(\d+)|=(\d+))?")
_LIST = re.compile(r"\{([\d,]+)\}")


class Collective(NamedTuple):
    """One call. axes: those of the mesh along which its devices differ, joined by +. bytes: of its result on one device."""

    kind: str
    axes: str
    bytes: int


def communicated(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes of the results of each kind of collective on one device. Each call in the program counts once.

    A call in the body of a loop counts once, too, however often the loop runs. A ring sends at most twice these bytes.
    """
    sizes = collections.Counter()
    for collective in collectives(Program.parse(compiled.as_text() or ""), {}):
        sizes[collective.kind] += collective.bytes
    return dict(sizes)


def collectives(program: Program, mesh: Mapping[str, int]) -> list[Collective]:
    """The calls of a program on a mesh with these axes and sizes, in its devices' order.

    A call counts as in `communicated`. A call that the compiler shows in several computations, as that of a fusion and the one
    that waits for it, counts once: its channel is the same. A sum of which each device keeps its part is a reduce-scatter. The
    compiler of TPUs writes it as a fusion of an all-reduce and slices, and gives many of them one channel.
    """
    found, channels = [], set()
    for name, instructions in program.computations.items():
        scattered = program.root(name) if name.startswith("all-reduce-scatter") else None
        for instruction in instructions:
            kind = instruction.opcode.removesuffix(START)
            if kind not in COLLECTIVES:
                continue
            channel = kind, instruction.attribute("channel_id")
            if scattered:
                kind, size = "reduce-scatter", sum(array.bytes for array in scattered.arrays)
            elif channel[1] and channel in channels:
                continue
            else:
                channels.add(channel)
                size = _result_bytes(instruction, kind)
            found.append(Collective(kind, "+".join(_axes(instruction, mesh)), size))
    return found


def totals(calls: list[Collective]) -> list[tuple[Collective, int]]:
    """(kind, axes and summed bytes; number of calls) of each kind along each of the mesh's axes, the most bytes first."""
    grouped: dict[tuple[str, str], list[int]] = {}
    for call in calls:
        grouped.setdefault((call.kind, call.axes), []).append(call.bytes)
    summed = [(Collective(*key, sum(sizes)), len(sizes)) for key, sizes in grouped.items()]
    return sorted(summed, key=lambda item: item[0].bytes, reverse=True)


def _result_bytes(instruction: Instruction, kind: str) -> int:
    """Bytes of the result. An asynchronous start returns its operands, too, and a permute numbers of its own besides."""
    sizes = [array.bytes for array in instruction.arrays]
    if instruction.opcode.endswith(START) and instruction.shape.startswith("("):
        if kind == "collective-permute":
            return sizes[1]
        if kind in ("all-gather", "reduce-scatter"):
            return sum(sizes[len(sizes) // 2 :])
    return sum(sizes)


def _axes(instruction: Instruction, mesh: Mapping[str, int]) -> list[str]:
    """The axes along which the devices of the first group differ."""
    if not mesh:
        return []
    group = _first_group(instruction, math.prod(mesh.values()))
    places = np.stack(np.unravel_index(group, tuple(mesh.values())))  # [axes, devices]
    return [axis for axis, place in zip(mesh, places, strict=True) if (place != place[0]).any()]


def _first_group(instruction: Instruction, devices: int) -> list[int]:
    """Numbers of the devices that exchange data with each other; of a permute those of its first pair.

    XLA writes them as lists, as a reshaped range of numbers, or as axes of a mesh of its own.
    """
    if mesh := _MESH.search(instruction.rest):
        return _group_of_mesh(*mesh.groups(), devices=devices)
    text = instruction.attribute("replica_groups") or instruction.attribute("source_target_pairs") or ""
    if iota := _IOTA.match(text):  # [groups, devices of each] of the numbers in order, after reshape and transposition
        shape, reshaped, order = map(_numbers, iota.groups())
        return np.arange(devices).reshape(reshaped).transpose(order).reshape(shape)[0].tolist()
    listed = _LIST.search(text)
    return [int(number) for number in listed[1].split(",")] if listed else list(range(devices))


def _group_of_mesh(sizes: str, reshaped: str, order: str, listed: str, along: str, devices: int) -> list[int]:
    """The first group along the axes `along` of XLA's mesh, each written 'axis', or 'axis':(before)size for a part of one."""
    numbers = np.array(_numbers(listed)) if listed else np.arange(devices)
    if reshaped:
        numbers = numbers.reshape(_numbers(reshaped)).transpose(_numbers(order))
    axes = {name: int(size) for name, _, _, size in _AXIS.findall(sizes)}
    index = [np.zeros(1, int)] * len(axes)  # of the group's devices along each axis
    for name, before, part, _ in _AXIS.findall(along):
        place = list(axes).index(name)
        stride = axes[name] // (int(before) * int(part)) if part else 1
        steps = np.arange(int(part) if part else axes[name]) * stride
        index = [each.repeat(len(steps)) for each in index]
        index[place] = index[place] + np.tile(steps, len(index[place]) // len(steps))
    return numbers.reshape(tuple(axes.values()))[tuple(index)].tolist()


def _numbers(text: str | None) -> list[int] | None:
    return [int(number) for number in text.split(",")] if text else None
