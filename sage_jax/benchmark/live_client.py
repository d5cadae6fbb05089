"""A player of live play who is a program: replays a piece to a server over its socket, and notes what comes back and when."""

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp
import numpy as np

from sage_jax.live.remote_clock import RemoteClock
from sage_jax.music.notes import Piece, bar_ticks

PING_INTERVAL = 1.0  # seconds
HEAD_START = 0.5  # seconds from the welcome to the first note, at least
PHRASE_BARS, REST_BARS = 2, 3  # of a player whom the model answers


class Key(NamedTuple):
    """A key that goes down or up. tick: from the player's downbeat. velocity: 0 for up."""

    tick: int
    velocity: int
    pitch: int
    program: int


@dataclasses.dataclass
class Played:
    """What a player has seen: seconds by which each note-on came after its due time (0 for one in time), the last statistics
    of the server, the offsets of its clock over time, and the problems that it reported."""

    lateness: list[float] = dataclasses.field(default_factory=list)
    statistics: dict[str, Any] = dataclasses.field(default_factory=dict)
    offsets: list[float] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)


def keys_of(piece: Piece, bar_length: int, ticks: int, mode: str, trade_bars: int) -> list[Key]:
    """What a player does with `piece`, over and over, in `ticks` ticks: all the time, or in phrases with rests for the model.

    In the mode answer the player rests for REST_BARS after PHRASE_BARS, in trade for `trade_bars` after as many.
    """
    phrase, rest = {"answer": (PHRASE_BARS, REST_BARS), "trade": (trade_bars, trade_bars)}.get(mode, (1, 0))
    length, keys, number = max(piece.end, 1), [], 0
    notes = piece.notes[np.argsort(piece.notes["onset"], kind="stable")]
    while number * length < ticks:
        for onset, program, pitch, duration, velocity, _ in notes.tolist():
            played = onset + number * length  # in the player's own time, which stands still in rests
            bar, place = divmod(played, bar_length)
            turn, inside = divmod(bar, phrase)
            tick = (turn * (phrase + rest) + inside) * bar_length + place
            end = min(tick + duration, (turn * (phrase + rest) + phrase) * bar_length) if rest else tick + duration
            if end < ticks:
                keys += [Key(tick, velocity, pitch, program), Key(max(end - 1, tick), 0, pitch, program)]
        number += 1
    return sorted(keys)  # a key goes up before it goes down


async def play(
    http: aiohttp.ClientSession, url: str, keys: Sequence[Key], settings: Mapping[str, Any], seconds: float
) -> Played:
    """Plays `keys` for `seconds` to the server at `url`, from a bar line on that is a multiple of the turns of both."""
    found, clock = Played(), RemoteClock()
    async with http.ws_connect(f"{url}socket", max_msg_size=0) as socket:
        await socket.send_str(json.dumps({"type": "hello", "settings": dict(settings)}))
        welcome = json.loads(await socket.receive_str())
        if welcome["type"] != "welcome":
            found.problems.append(welcome.get("text", "no welcome"))
            return found
        first = _downbeat(welcome, settings)
        tick_seconds = 60 / (settings["qpm"] * welcome["ticks_per_quarter"])
        reading = asyncio.create_task(_read(socket, found, clock))
        pinging = asyncio.create_task(_ping(socket, found, clock))
        try:
            for key in keys:
                due = first + key.tick * tick_seconds
                if due > first + seconds:
                    break
                await asyncio.sleep(max(due - time.monotonic(), 0))
                body: dict[str, Any] = {"type": "on" if key.velocity else "off", "pitch": key.pitch, "program": key.program}
                if key.velocity:
                    body["velocity"] = key.velocity
                await socket.send_str(json.dumps({**body, "at": time.monotonic() + clock.offset}))
            await asyncio.sleep(max(first + seconds - time.monotonic(), 0))
        except ConnectionError as error:
            found.problems.append(f"the connection ended: {error}")
        finally:
            for task in (reading, pinging):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await task
    return found


def _downbeat(welcome: Mapping[str, Any], settings: Mapping[str, Any]) -> float:
    """The time of this process's clock at which the player begins."""
    at, tick_seconds = welcome["position"], 60 / (settings["qpm"] * welcome["ticks_per_quarter"])
    numerator, denominator = at["meter"]
    bar = bar_ticks(numerator, denominator, welcome["ticks_per_quarter"])
    turns = bar * (2 * settings.get("trade_bars", 1) if settings["mode"] == "trade" else 1)
    now = at["tick"] + (time.monotonic() - _received(welcome) + HEAD_START) / tick_seconds
    tick = -(-int(now + 1) // turns) * turns
    return _received(welcome) + (tick - at["tick"]) * tick_seconds


def _received(welcome: Mapping[str, Any]) -> float:
    """When the position of the welcome was true. Both processes read the monotonic clock of one machine."""
    return welcome["position"]["at"]


async def _read(socket: aiohttp.ClientWebSocketResponse, found: Played, clock: RemoteClock) -> None:
    async for message in socket:
        now = time.monotonic()
        body = json.loads(message.data)
        match body["type"]:
            case "notes":
                found.lateness += [max(now - note["due"], 0.0) for note in body["notes"] if note["velocity"]]
            case "statistics":
                found.statistics = body
            case "pong":
                clock.add(body["sent"], body["now"], now)
            case "problem":
                found.problems.append(body["text"])


async def _ping(socket: aiohttp.ClientWebSocketResponse, found: Played, clock: RemoteClock) -> None:
    while True:
        await socket.send_str(json.dumps({"type": "ping", "sent": time.monotonic()}))
        await asyncio.sleep(PING_INTERVAL)
        if clock.is_known:
            found.offsets.append(clock.offset)
