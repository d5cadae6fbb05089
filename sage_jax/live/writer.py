"""Writer: draws the model's notes of a live session, a tick range at a time, and hands them to its queue."""

from collections.abc import Callable, Iterator, Sequence

from sage_jax.decoding.session import Session
from sage_jax.live.clock import MusicalClock
from sage_jax.live.context import Context
from sage_jax.live.queue import SKIPPED_AFTER, NoteQueue, PlannedNote
from sage_jax.live.statistics import Meters
from sage_jax.tasks.role_session import RoleSession
from sage_jax.tokenizers.incremental import DecodedEvent

MOST_READS = 4096


class Writer:
    """One draw of the model after another over ticks [start, stop), each a plan that is fresher than the one before.

    What it draws goes into the context, and into the queue once the writer speaks. frontier: all of the plan before this tick
    is drawn. read: the tick up to which the model had read the player.
    """

    def __init__(
        self,
        session: Session | RoleSession,
        context: Context,
        queue: NoteQueue,
        clock: MusicalClock,
        meters: Meters,
        now: Callable[[], float],
    ):
        self.session, self.context, self.queue, self.clock, self.meters = session, context, queue, clock, meters
        self.now = now
        self.start = self.stop = self.frontier = self.read = 0
        self.programs: Sequence[int] = ()
        self.reads: dict[tuple[int, ...], int] = {}  # `read` of each note that has not sounded
        self._draw: Iterator[DecodedEvent] | None = None
        self._draft: list[PlannedNote] | None = None
        self._version, self._number, self._published = 0, 0, 0
        self._begin_before: int | None = None

    @property
    def is_drawing(self) -> bool:
        """Whether the range is not finished."""
        return self._draw is not None

    @property
    def is_draft(self) -> bool:
        """Whether what is drawn is kept from the queue."""
        return self._draft is not None

    @property
    def draft(self) -> list[PlannedNote]:
        """The notes of a draft so far."""
        return self._draft or []

    def begin(
        self,
        start: int,
        stop: int,
        programs: Sequence[int],
        *,
        read: int,
        number: int = 0,
        is_draft: bool = False,
        begin_before: int | None = None,
    ) -> None:
        """Draws the ticks [start, stop) next. The context must be in step with the session. number: other draws for others.

        begin_before: as of Session.draw.
        """
        self.start, self.frontier, self.stop, self.programs, self.read = start, start, stop, programs, read
        self._version += 1
        self._published = start
        self._number, self._begin_before = number, begin_before
        if len(self.reads) > MOST_READS:  # of notes that never sounded
            self.reads.clear()
        self._draft = [] if is_draft else None
        self._open()

    def _open(self) -> None:
        self._draw = None
        if self.stop > max(self.session.tick, self.frontier):
            end = self._begin_before
            self._draw = self.session.draw(
                until_tick=self.stop,
                not_before=self.frontier,
                begin_before=None if end is None or end <= self.frontier else end,
                programs=self.programs,
                number=self._number,
            )

    def leave(self) -> None:
        """Ends the draw. What was drawn stays."""
        self._draw, self._draft = None, None

    def speak(self) -> None:
        """Hands the draft to the queue; what is drawn from now on goes there at once."""
        draft, self._draft = self._draft, None
        if draft is not None:
            self._published = max([self.frontier, *(note.tick + 1 for note in draft[-1:])])
            self.queue.put(self.start, self._published, draft, self._version)

    def step(self) -> DecodedEvent | None:
        """Draws one event; None if the range is finished or the event was taken back."""
        if self._draw is None:
            return None
        event = next(self._draw, None)
        if event is None:
            self._draw, self.frontier = None, self.stop
            self._publish(self.stop)
            return None
        if event.note is None:
            self.frontier = max(self.frontier, event.tick)
            self._publish(self.frontier)
            return event
        if self._draft is None and self.clock.seconds(event.tick) < self.now() - SKIPPED_AFTER:
            self._skip_ahead(event)
            return None
        note = PlannedNote(*event.note[:5])
        self.frontier = max(self.frontier, note.tick)
        self.context.drawn(note)
        self.reads[note[:3]] = self.read
        if self._draft is not None:
            self._draft.append(note)
        else:
            self._publish(note.tick + 1, note)
        return event

    def _publish(self, stop: int, *notes: PlannedNote) -> None:
        if self._draft is None:
            start = min([self._published, *(note.tick for note in notes)])
            self.queue.put(start, stop, notes, self._version)
            self._published = max(self._published, stop)

    def _skip_ahead(self, event: DecodedEvent) -> None:
        """Takes back an event that came too late, and goes on in time."""
        self.session.rollback(event.tick)
        self.context.touch(event.tick)
        self._go_on_in_time()

    def catch_up(self) -> None:
        """Goes on in time if the place up to which all is drawn has passed: a note that is drawn there would be late."""
        if self.is_drawing and not self.is_draft and self.clock.seconds(self.frontier) < self.now():
            self._go_on_in_time()

    def _go_on_in_time(self) -> None:
        self.meters.add("missed", True)
        self.frontier = self._published = self.clock.tick_from(self.now() + self.delay)  # before it an older plan stays
        self._open()

    @property
    def delay(self) -> float:
        """The seconds after which a note that is begun now can be in the queue."""
        return 3 * self.meters.typical("event", 0.02)
