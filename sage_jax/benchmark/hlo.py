"""Instructions of a compiled program, read from its HLO text.

A program is computations. One is the entry; the others are the bodies of loops and fusions, the branches of conditionals, and
the like. A line of text is an instruction: NAME = SHAPE OPCODE(OPERANDS), ATTRIBUTES.
"""

import dataclasses
import math
import re

BITS = {"pred": 8, "token": 0, "opaque": 0}  # of an element, where the type's name does not say it

_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+)\b.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)")
_CALLED = re.compile(r"\b(\w+)=(?:\{(%[^}]*)\}|(%[\w.\-]+))")


@dataclasses.dataclass(frozen=True)
class Array:
    """bytes: of its elements, without the padding of a layout. space: the memory that holds it, 0 for the main one."""

    bytes: int
    space: int


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line. rest: the text from the opening parenthesis of its operands on. is_root: whether its computation returns it."""

    name: str
    shape: str
    opcode: str
    rest: str
    is_root: bool

    @property
    def arrays(self) -> list[Array]:
        """The arrays that it returns, several for a tuple."""
        return [_array(*found) for found in _ARRAY.findall(self.shape)]

    @property
    def operands(self) -> list[str]:
        """The names of its operands."""
        return re.findall(r"%([\w.\-]+)", self.rest[: _closing(self.rest)])

    @property
    def called(self) -> list[tuple[str, str]]:
        """(attribute, name) of the computations that it calls: a loop's body and condition, a fusion's calls, and so on."""
        found = []
        for attribute, several, one in _CALLED.findall(self.rest):
            found += [(attribute, name.strip().lstrip("%")) for name in (several or one).split(",")]
        return found

    def attribute(self, name: str) -> str | None:
        """The text of an attribute such as channel_id, up to the next attribute; None if it has none of this name."""
        found = re.search(rf"[ ,]{name}=(.*?)(?:, \w+=|$)", self.rest)
        return found[1] if found else None


@dataclasses.dataclass(frozen=True)
class Program:
    """The computations of a program by name, and the name of the one that it begins with."""

    entry: str
    computations: dict[str, list[Instruction]]

    @classmethod
    def parse(cls, text: str) -> "Program":
        """The program of an HLO text. Raises ValueError for a text without an entry."""
        entry, computations, instructions = None, {}, []
        for line in text.splitlines():
            if found := _INSTRUCTION.match(line):
                instructions.append(_instruction(found[1], found[2], line.lstrip().startswith("ROOT ")))
            elif (found := _COMPUTATION.match(line)) and not line.startswith("HloModule"):
                instructions = computations[found[2]] = []
                entry = found[2] if found[1] else entry
        if entry is None:
            raise ValueError("the text has no ENTRY computation, so it is not HLO")
        return cls(entry, computations)

    def root(self, computation: str) -> Instruction | None:
        """The instruction whose value a computation returns; None for an unknown one."""
        return next((each for each in self.computations.get(computation, []) if each.is_root), None)


def _instruction(name: str, text: str, is_root: bool) -> Instruction:
    # A tuple's layouts may have parentheses of their own.
    end = _closing(text) if text.startswith("(") else text.index(" ")
    opcode, parenthesis, rest = text[end + 1 :].partition("(")
    return Instruction(name, text[:end], opcode, parenthesis + rest, is_root)


def _closing(text: str) -> int:
    """The index after the parenthesis that closes the one with which `text` begins."""
    depth = 0
    for end, character in enumerate(text, 1):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if not depth:
            return end
    return len(text)


def _array(dtype: str, shape: str, layout: str) -> Array:
    digits = re.match(r"[a-z]+(\d+)", dtype)
    bits = BITS[dtype] if dtype in BITS else int(digits[1]) if digits else 8
    count = math.prod(int(size.lstrip("<=")) for size in shape.split(",") if size)
    space = re.search(r"S\((\d+)\)", layout)
    return Array(count * bits // 8, int(space[1]) if space else 0)
