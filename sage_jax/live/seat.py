"""Seat: the model's side of one live session. Only the model thread uses it."""

from collections.abc import Callable, Sequence
from typing import Any

from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.scheduler import Scheduler
from sage_jax.decoding.session import Session
from sage_jax.live.accompany import Accompany
from sage_jax.live.answer import Answer
from sage_jax.live.clock import MusicalClock
from sage_jax.live.context import Context
from sage_jax.live.modes import NEVER, Mode
from sage_jax.live.player_notes import WATERMARK, PlayerNotes
from sage_jax.live.queue import NoteQueue
from sage_jax.live.settings import LiveSettings
from sage_jax.live.statistics import Meters
from sage_jax.live.trade import Trade
from sage_jax.live.writer import Writer
from sage_jax.tasks.role_session import RoleSession, late_lead
from sage_jax.tokenizers.role_events import RoleEvents

MODES: dict[str, Callable[["Seat"], Mode]] = {"answer": Answer, "trade": Trade, "accompany": Accompany}


class Seat:
    """Reads what the player plays and writes what the model plays, in pieces of work that take a bounded time each.

    One piece gives the model what has changed, with at most one rollback, or draws one event.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        settings: LiveSettings,
        clock: MusicalClock,
        queue: NoteQueue,
        meters: Meters,
        sampling: SamplingConfig,
        now: Callable[[], float],
    ):
        self.now, self.scheduler, self.settings, self.clock, self.queue, self.meters = (
            now, scheduler, settings, clock, queue, meters
        )  # fmt: skip
        self._opening: dict[str, Any] = dict(
            qpm=settings.qpm, meter=settings.meter, seed=settings.seed, sampling=settings.sampling(sampling)
        )
        self.player = PlayerNotes(clock, scheduler.engine.tokenizer.grid)
        self.decoding = self._session()
        self.context = Context(scheduler.engine.limit)
        self.writer = Writer(self.decoding, self.context, queue, clock, meters, now)
        self.mode: Mode = MODES[settings.mode](self)
        self._changed_at: float | None = None  # since when the context has been waiting to be read
        self._has_gone_back = False

    def _session(self) -> Session | RoleSession:
        """The decoding session that the mode needs: two roles, where the model knows them, if both play at once."""
        if self._has_roles(self.settings):
            lead = late_lead(self.settings.lead)
            read_tick = lambda: self.read_tick(self.now())
            return RoleSession(self.scheduler, lead, read_tick, programs=self.programs, **self._opening)
        # The tempo and the meter are the player's, and the host reads for all sessions.
        return Session(self.scheduler, allow_changes=False, reads_at_once=False, **self._opening)

    def _has_roles(self, settings: LiveSettings) -> bool:
        return settings.mode == "accompany" and isinstance(self.scheduler.engine.tokenizer, RoleEvents)

    # What the player does

    def take(self, name: str, arguments: Sequence[Any], now: float) -> None:
        """What the player wants: the name of a command and its arguments, the last of which is the time, `at` seconds."""
        *values, at = arguments
        if name == "on":
            self.player.on(*values, at=at)
            self.meters.counts["player notes"] += 1
            self.mode.struck(at, now)
        elif name == "off":
            self.player.off(*values, at=at)
        elif name == "take_over":
            self.mode.take_over(at)
        elif name == "panic":
            self.player.release_all(at)
            self.mode.stop()
        else:
            assert name == "change"
            self.change(values[0], now)

    def change(self, settings: LiveSettings, now: float) -> None:
        """Goes on with other settings."""
        before, self.settings = self.settings, settings
        if settings.qpm != before.qpm:
            self.context.change(self.clock.change_tempo(now, settings.qpm), settings.qpm)
        if settings.meter != before.meter:
            self.context.change(self.clock.change_meter(now, settings.meter), settings.meter)
        if settings.mode != before.mode:
            self.mode.stop()
            self.mode = MODES[settings.mode](self)
        elif settings.instruments != before.instruments:
            self.mode.stop()
        has_roles = self._has_roles(settings)
        if has_roles != self._has_roles(before) or (has_roles and late_lead(settings.lead) != late_lead(before.lead)):
            self._reopen()

    def _reopen(self) -> None:
        """Goes on with another decoding session, which reads all that the model remembers."""
        self.writer.leave()
        self.decoding.close()
        self.decoding = self.writer.session = self._session()
        self.context.touch(0)

    # Work

    def update(self, now: float) -> None:
        """Takes in what has happened since."""
        self._reconcile()
        self.mode.update(now)
        due = self.player.due()
        if due is not None and due <= now:
            self.collect(now)
        if self.context.dirty is None:
            self._changed_at = None
        elif self._changed_at is None:
            self._changed_at = now

    def step(self, now: float) -> bool:
        """Draws an event if the mode wants one, also while what has changed waits to be read; returns whether it did."""
        if not (self.writer.is_drawing and self.mode.wants(now)):
            return False
        self.writer.step()
        if self.context.dirty is None:
            self.mode.drawn(self.now())
        return True

    def _reconcile(self) -> None:
        """Learns which of the model's notes have sounded."""
        given, dropped = self.queue.outcome()
        for note in given:
            read = self.writer.reads.pop(note[:3], None)
            if read is not None:
                self.meters.add("staleness", note.tick - read)
        self.context.given(given)
        self.context.remove(dropped)

    def reads_at(self, patience: float = 1.0) -> float:
        """When what has changed should be read, NEVER if nothing has. patience: of the mode's, the part that it waits."""
        return NEVER if self._changed_at is None else self._changed_at + patience * self.mode.patience

    def give(self, now: float) -> None:
        """Gives the model what has changed; the scheduler reads it."""
        self.mode.revise(now)
        self.writer.leave()
        beyond = self.context.beyond
        self._has_gone_back = self.context.sync(self.decoding)
        self.meters.counts["rollbacks"] += self._has_gone_back
        self.meters.counts["beyond context"] += self.context.beyond - beyond
        self._changed_at = None

    def go_on(self, now: float, seconds: float) -> None:
        """Draws again after the scheduler has read what was given, which took `seconds`."""
        self.meters.add("rollback" if self._has_gone_back else "prefill", seconds)
        self.mode.resume(now)

    def deadline(self, now: float) -> float:
        """When the next piece of work should be done."""
        return self.mode.deadline(now)

    def wake(self, now: float) -> float:
        """When there is work even if nothing happens; NEVER if only then."""
        wake = self.mode.wake(now)
        due = self.player.due()
        if due is not None:
            wake = min(wake, due)
        return min(wake, self.reads_at())

    # For the modes

    def collect(self, now: float, all_of_them: bool = False) -> None:
        """Brings the player's notes into the context: those that are due, or all of them."""
        reads_length = not isinstance(self.decoding, RoleSession)  # a late lead gives notes without it
        for note in self.player.write(now, all_of_them):
            self.context.set(note, is_own=False, reads_length=reads_length)

    def withdraw(self, start: int) -> None:
        """Takes back what the model has planned from the tick `start` on, from the queue and from the context."""
        self.queue.withdraw(start)
        self._reconcile()
        self.context.drop_planned(start)

    @property
    def programs(self) -> tuple[int, ...]:
        """Those that the model may play now."""
        return self.settings.programs(self.player.programs)

    def read_tick(self, now: float) -> int:
        """The tick up to which the model has read the player when it reads now."""
        return self.clock.tick(now - WATERMARK)

    def close(self) -> None:
        """Frees the row."""
        self.decoding.close()
