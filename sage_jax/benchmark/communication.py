"""What the devices of a compiled program send each other, read off the program."""

import collections
import math
import re

import jax

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
WIDTHS = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}

_CALL = re.compile(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


def communicated(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes of what a device has of each collective's results, by its kind, each call in the program once.

    What a body of a loop sends is counted once, too, however often it runs. A ring sends at most twice these bytes.
    """
    found = collections.Counter()
    for line in compiled.as_text().splitlines():
        if call := _CALL.search(line):
            found[call[2]] += sum(_bytes(*array) for array in _ARRAY.findall(call[1]))
    return dict(found)


def _bytes(dtype: str, shape: str) -> int:
    return WIDTHS[dtype] * math.prod(int(size) for size in shape.split(",") if size)
