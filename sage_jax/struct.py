"""flax.struct with static types: `dataclass` and `field` for pytrees of arrays."""

import dataclasses
from typing import Any, Self, TypeVar, dataclass_transform

import flax.struct
import numpy as np

Class = TypeVar("Class", bound=type)


class Struct:
    """Base class of pytree dataclasses. It declares `replace`, which flax.struct.dataclass adds, for type checkers."""

    def replace(self, **changes: Any) -> Self:
        """A copy with these fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]  # subclasses are dataclasses


def field(*, pytree_node: bool = True, default: Any = dataclasses.MISSING) -> Any:
    """A field. With pytree_node=False it is static: compiled functions are specialised to its value."""
    return flax.struct.field(pytree_node=pytree_node, default=default)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def dataclass(cls: Class) -> Class:
    """Same as flax.struct.dataclass."""
    return flax.struct.dataclass(cls)


def one_row(value: Any, dtype: Any) -> Any:
    """`value` as a numpy array [1], for the fields [B] of a struct that is built on the host."""
    return np.array([value], dtype)
