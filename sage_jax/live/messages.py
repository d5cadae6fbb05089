"""The messages of a page: JSON objects with a type, checked field by field."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from sage_jax.errors import UserError

MAX_BYTES = 4096
MAX_INSTRUMENTS = 129
COMMANDS = ("take_over", "panic", "record", "stop")


@dataclasses.dataclass(frozen=True)
class Hello:
    """The first message. key: of the connection that this one replaces; "" for none. settings: fields of LiveSettings."""

    key: str
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Ping:
    """sent: time of the page's clock, which the answer repeats."""

    sent: float


@dataclasses.dataclass(frozen=True)
class Key:
    """A key that goes down or up. velocity: 0 for up. program: None for the player's own. at: server seconds; None for now."""

    pitch: int
    velocity: int
    program: int | None
    at: float | None


@dataclasses.dataclass(frozen=True)
class Change:
    """New values of fields of LiveSettings, of the right types; their ranges are LiveSettings' to check."""

    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Command:
    """name: one of COMMANDS."""

    name: str


ClientMessage = Hello | Ping | Key | Change | Command


def parse(text: str) -> ClientMessage:
    """The message in `text`. Raises UserError, naming the field, for anything else."""
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise UserError(f"a message has more than {MAX_BYTES} bytes; send shorter ones")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError("a message is not JSON; send an object with a type") from None
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        raise UserError("a message has no type; send an object with a type")
    kind = found["type"]
    if kind == "hello":
        return Hello(_text(found.get("key", ""), "hello.key"), _settings(found.get("settings", {})))
    if kind == "ping":
        return Ping(_number(found.get("sent"), "ping.sent"))
    if kind in ("on", "off"):
        velocity = _whole(found.get("velocity"), "on.velocity", 1, 127) if kind == "on" else 0
        program, at = found.get("program"), found.get("at")
        return Key(
            _whole(found.get("pitch"), f"{kind}.pitch", 0, 127),
            velocity,
            None if program is None else _whole(program, f"{kind}.program", 0, 128),
            None if at is None else _number(at, f"{kind}.at"),
        )
    if kind == "settings":
        return Change(_settings(found.get("settings")))
    if kind in COMMANDS:
        return Command(kind)
    raise UserError(f"a message has the type {kind[:20]!r}, which is unknown; see docs/live.md")


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15 or not math.isfinite(value):
        raise UserError(f"{name} is {_shown(value)}; give a number")
    return float(value)


def _optional(value: Any, name: str) -> float | None:
    return None if value is None else _number(value, name)


def _whole(value: Any, name: str, low: int = -(2**31), high: int = 2**31 - 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"{name} is {_shown(value)}; give a whole number from {low} to {high}")
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or len(value) > 64:
        raise UserError(f"{name} is {_shown(value)}; give a text of at most 64 characters")
    return value


def _meter(value: Any, name: str) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise UserError(f"{name} is {_shown(value)}; give a time signature like [3, 4]")
    return _whole(value[0], name, 1, 64), _whole(value[1], name, 1, 64)


def _instruments(value: Any, name: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_INSTRUMENTS:
        raise UserError(f"{name} is {_shown(value)}; give a list of programs, or null for the player's own")
    return tuple(_whole(program, name, 0, 128) for program in value)


FIELDS: dict[str, Callable[[Any, str], Any]] = {
    "mode": _text,
    "qpm": _number,
    "meter": _meter,
    "instruments": _instruments,
    "player_program": lambda value, name: _whole(value, name, 0, 128),
    "pause": _number,
    "answer_bars": _whole,
    "trade_bars": _whole,
    "lead": _number,
    "temperature": _optional,
    "top_p": _optional,
    "min_p": _optional,
    "seed": _whole,
}


def _settings(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"settings is {_shown(value)}; give an object")
    for name in value:
        if name not in FIELDS:
            raise UserError(f"settings.{name[:20]} is unknown; known are {', '.join(FIELDS)}")
    return {name: FIELDS[name](each, f"live.{name}") for name, each in value.items()}


def _shown(value: Any) -> str:
    """A value as a message shows it, in few characters."""
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:20]} ..."
