"""LiveSession: what a player, a page or a port has of a live session. Every method is for any thread."""

import collections
import dataclasses
import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_jax.errors import UserError
from sage_jax.live.clock import MusicalClock, Position
from sage_jax.live.queue import RECENT_MISSES, Message, NoteQueue
from sage_jax.live.settings import LiveSettings
from sage_jax.live.statistics import LiveStatistics, Meters, percentiles
from sage_jax.music.notes import DRUMS, Piece, note_array

if TYPE_CHECKING:
    from sage_jax.live.host import LiveHost
    from sage_jax.live.seat import Seat

MOST_SECONDS_AWAY = 60.0  # from now, of what a player does
TOO_MANY_LATE = 0.2  # the share of the last notes from which on the model is too slow


class LiveSession:
    """A player and the model, in time. `LiveHost.open` and `Model.live` make one.

    Give it note-ons and note-offs as they happen, and take the model's messages with `poll`. settings: as they are now. error:
    what ended the session, or None.
    """

    def __init__(
        self, host: "LiveHost", settings: LiveSettings, clock: MusicalClock, on_change: Callable[[], None] | None = None
    ):
        self.host, self.settings, self.clock = host, settings, clock
        self.error: Exception | None = None
        self.queue = NoteQueue(clock)
        self.meters = Meters()
        self.inbox: collections.deque[tuple[Any, ...]] = collections.deque()  # commands for the model thread
        self.seat: Seat | None = None
        self._on_change, self._changed = on_change, threading.Event()
        self.is_closed = False

    def __enter__(self) -> "LiveSession":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    @property
    def started(self) -> float:
        """When tick 0 is, in seconds of the host's clock."""
        return self.clock.started

    # The player

    def note_on(self, pitch: int, velocity: int, *, program: int | None = None, at: float | None = None) -> None:
        """The player strikes a key, now or at `at` seconds. velocity: 1 to 127, and 0 for a note-off."""
        _check("pitch", pitch, 127)
        _check("velocity", velocity, 127)
        if velocity == 0:
            self.note_off(pitch, program=program, at=at)
        else:
            self._send("on", pitch, velocity, self._program(program), self._at(at))

    def note_off(self, pitch: int, *, program: int | None = None, at: float | None = None) -> None:
        """The player lets a key go."""
        _check("pitch", pitch, 127)
        self._send("off", pitch, self._program(program), self._at(at))

    def take_over(self) -> None:
        """The model answers now, in the mode answer."""
        self._send("take_over", self._at(None))

    def change(self, **fields) -> None:
        """Other settings from now on. A tempo changes at the next tick and keeps the musical position, a meter at the next bar.

        Raises UserError naming the field.
        """
        unknown = set(fields) - {field.name for field in dataclasses.fields(LiveSettings)}
        if unknown:
            names = ", ".join(field.name for field in dataclasses.fields(LiveSettings))
            raise UserError(f"live.{min(unknown)} is not a setting; choose from {names}")
        settings = dataclasses.replace(self.settings, **fields)
        settings.check(self.host.grid)
        self.settings = settings
        self._send("change", settings, self._at(None))

    def restart(self, at: float | None = None) -> None:
        """Begins a new piece with its downbeat now or at `at` seconds; what was played is forgotten."""
        self._send("restart", self._at(at))

    def panic(self) -> None:
        """Ends everything that sounds, and takes back what is planned. The player may go on."""
        self.queue.end_all(self.host.now())
        self._send("panic", self._at(None))
        self.notify()

    def _send(self, *command) -> None:
        if self.is_closed:
            return
        self.inbox.append(command)
        self.host.wake()

    def _at(self, at: float | None) -> float:
        now = self.host.now()
        if at is None:
            return now
        if not abs(at - now) <= MOST_SECONDS_AWAY:
            raise UserError(f"at is {at!r}, not within {MOST_SECONDS_AWAY:g} s of {now:.3f}; give seconds of host.now()")
        return at

    def _program(self, program: int | None) -> int:
        if program is None:
            return self.settings.player_program
        _check("program", program, DRUMS)
        return program

    # The model

    def poll(self, until: float) -> list[Message]:
        """The messages due before `until` seconds that were not given out before, by due time; final.

        Raises UserError if the model thread has failed, once the note-offs of what sounds have been given out.
        """
        messages = self.queue.poll(until, self.host.now())
        if self.error is not None and not messages:
            raise UserError(f"the live session has ended: {self.error}") from self.error
        return messages

    def plan(self, until: float) -> list[Message]:
        """What `poll` would give out up to `until` seconds as things are: to be shown, not final."""
        return self.queue.planned(until)

    def position(self, at: float) -> Position:
        """Where the music is at `at` seconds, which may be some seconds ahead."""
        return self.clock.place(at)

    @property
    def turn(self) -> str | None:
        """Whose turn it is: "player", "model", or None where both play."""
        return self.seat.mode.turn(self.host.now()) if self.seat else "player"

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until `poll` may have something new; returns whether it may."""
        has_changed = self._changed.wait(timeout)
        self._changed.clear()
        return has_changed

    def next_due(self) -> float | None:
        """When the next message is due; None if nothing is planned and nothing sounds."""
        return self.queue.next_due()

    def notify(self) -> None:
        """Says that `poll` may have something new."""
        self._changed.set()
        if self._on_change is not None:
            self._on_change()

    def statistics(self) -> LiveStatistics:
        """What the session has done so far."""
        counts, queue = self.meters.counts, self.queue
        is_too_slow = self._is_too_slow()
        return LiveStatistics(
            notes=queue.sounded,
            late=queue.late,
            skipped=queue.skipped,
            player_notes=counts["player notes"],
            answers=counts["answers"],
            rollbacks=counts["rollbacks"],
            beyond_context=counts["beyond context"],
            **percentiles("lateness", list(queue.lateness), (50, 95, 99), 1e3),
            **self.meters.percentiles(),
            is_too_slow=is_too_slow,
            advice=self._advice() if is_too_slow else "",
        )

    def _is_too_slow(self) -> bool:
        notes, plans = list(self.queue.misses), self.meters.values("missed")[-RECENT_MISSES:]
        return any(
            len(recent) >= RECENT_MISSES // 2 and sum(recent) > TOO_MANY_LATE * len(recent) for recent in (notes, plans)
        )

    def _advice(self) -> str:
        settings = self.settings
        if settings.mode == "accompany":
            return f"the model is too slow for a lead of {settings.lead:g} quarters; give live.lead = {2 * settings.lead:g}"
        return (
            f"the model is too slow for the mode {settings.mode}; play with mode=accompany and "
            f"live.lead = {max(settings.lead, 4):g}, at a slower tempo, or in fewer sessions at once"
        )

    def piece(self) -> Piece:
        """What both have played, the player's notes first; programs of the model that the player has, too, are others here."""
        seat, ticks = self.seat, self.clock.position(self.host.now())
        player = seat.player.notes.rows.tolist() if seat else []
        rows = [
            (tick, program, pitch, _length(at, off, ticks, self.clock), velocity)
            for tick, program, pitch, velocity, at, off in player
        ]
        taken = {program for _, program, *_ in rows}
        model = self.queue.played()
        programs = model["program"].tolist()
        apart = _apart(set(programs), taken)
        model["onset"], model["program"] = np.maximum(model["onset"], 0), [apart[program] for program in programs]
        return self.clock.piece(np.concatenate([note_array(rows), model]))

    def close(self) -> None:
        """Ends the session; the last poll has the note-offs of all that sounds. Frees the row."""
        self.queue.close(self.host.now())
        self._send("close")
        self.is_closed = True
        self.notify()


def _length(at: float, off: float, now: float, clock: MusicalClock) -> int:
    end = now if math.isnan(off) else clock.position(off)
    return max(round(end - clock.position(at)), 1)


def _apart(programs: set[int], taken: set[int]) -> dict[int, int]:
    """A program for each of `programs` that is not in `taken`, where possible of the same family of eight. Drums stay."""
    found: dict[int, int] = {}
    for program in sorted(programs):
        near = sorted(range(DRUMS), key=lambda other: (other // 8 != program // 8, abs(other - program)))
        free = (other for other in near if other not in taken and other not in found.values())
        found[program] = program if program == DRUMS or program not in taken else next(free, program)
    return found


def _check(name: str, value: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value <= most:
        raise UserError(f"{name} is {value!r}; give a whole number from 0 to {most}")
