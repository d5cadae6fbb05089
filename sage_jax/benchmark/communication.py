"""Communication between the devices of a compiled program, read from its HLO text."""

import collections
import math
import re

import jax

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
ITEM_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}

_CALL = re.compile(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


def communicated(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes of the results of each kind of collective on one device. Each call in the program counts once.

    A call in the body of a loop counts once, too, however often the loop runs. A ring sends at most twice these bytes.
    """
    sizes = collections.Counter()
    for line in (compiled.as_text() or "").splitlines():
        if call := _CALL.search(line):
            sizes[call[2]] += sum(_bytes(*array) for array in _ARRAY.findall(call[1]))
    return dict(sizes)


def _bytes(dtype: str, shape: str) -> int:
    return ITEM_BYTES[dtype] * math.prod(int(size) for size in shape.split(",") if size)
