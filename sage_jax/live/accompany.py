"""Accompany: the model plays its own instruments while the player plays, a lead ahead of what it knows."""

import math

from sage_jax.live.modes import NEVER, Mode

SILENT_BARS = 8  # of the player, after which the model stops
AHEAD_LEADS, AHEAD_QUARTERS = 0.5, 1.0  # beyond the lead, what is drawn as a backup: in leads, and at least in quarters
# The part of the lead for which a note may wait to be read with others, for each session. Reading takes as long as drawing
# several notes of all sessions, so that more players are followed less closely rather than late. No note waits beyond the lead.
PATIENCE_LEADS = 1 / 16
PATIENCE_READS = 3.0  # and as many times as long as reading all sessions takes: most of the time is left for drawing
BEHIND_LEADS = 0.5  # the same part at most, and if the model has not drawn up to the horizon


class Accompany(Mode):
    """What sounds at t + lead is written from what both had played up to t.

    The model's notes before the horizon, now + lead, stay. A note of the player makes it draw anew from there on; what it had
    drawn beyond is a backup until then. A new meter is read when all before its bar line is drawn.
    """

    def __init__(self, seat):
        super().__init__(seat)
        self._is_playing = False
        self._committed = 0  # the model's notes before this tick stay
        self._from = 0

    @property
    def _lead(self) -> float:
        """In seconds."""
        return self.seat.settings.lead * self.seat.clock.quarter_seconds

    @property
    def _ahead(self) -> float:
        """Seconds from now that are drawn."""
        quarter = self.seat.clock.quarter_seconds
        backup = max(AHEAD_LEADS * self._lead, AHEAD_QUARTERS * quarter)
        return self._lead + backup / self._reads

    @property
    def _reads(self) -> int:
        """How many times the model reads until it has read every session once."""
        scheduler = self.seat.scheduler
        return max(-(-scheduler.sessions // scheduler.engine.group), 1)

    @property
    def patience(self) -> float:
        if not self._is_playing:
            return 0.0
        seat = self.seat
        is_behind = seat.clock.seconds(seat.writer.frontier) < seat.now() + self._lead
        leads = BEHIND_LEADS if is_behind else min(PATIENCE_LEADS * max(seat.scheduler.sessions, 1), BEHIND_LEADS)
        reading = PATIENCE_READS * self._reads * seat.meters.typical("rollback", 0.0)
        return max(leads * self._lead, min(reading, self._lead))

    def _is_wanted(self, now: float) -> bool:
        """Whether the player has played lately."""
        seat = self.seat
        last = seat.player.last_activity
        if last is None:
            return False
        bar = seat.clock.bar_start(1) * seat.clock.quarter_seconds / seat.clock.ticks_per_quarter
        return seat.player.is_held or now < last + SILENT_BARS * bar

    def update(self, now: float) -> None:
        seat = self.seat
        wanted = self._is_wanted(now)
        if wanted and not self._is_playing:
            self._is_playing = True
            # The writer's frontier is that of an earlier phrase, or of another mode.
            self._from = self._committed = seat.writer.frontier = seat.clock.tick_from(now + self._lead)
            seat.context.hold(self._from)
            if seat.context.dirty is None:
                self.resume(now)
        elif not wanted and self._is_playing:
            self.stop()
        if self._is_playing:
            horizon = seat.clock.tick_from(now + self._lead)
            self._committed = max(self._committed, min(horizon, seat.writer.frontier))
            seat.context.reach(seat.writer.frontier)
            if seat.context.dirty is None and not seat.writer.is_drawing:
                self._go_on(now)
            seat.writer.catch_up()

    def _go_on(self, now: float) -> None:
        """Begins the next range when the last one is drawn to its end."""
        seat = self.seat
        self._from = seat.writer.frontier
        self.resume(now)

    def revise(self, now: float) -> None:
        if self._is_playing:
            context = self.seat.context
            horizon = max(self._committed, self.seat.clock.tick_from(now + self._lead), self.soonest(now))
            self._from = self.cut(max(horizon, context.dirty or 0))  # what is drawn before a new meter stays
            context.hold(self._from)

    def resume(self, now: float) -> None:
        if not self._is_playing:
            return
        seat, start = self.seat, self.in_time(self._from, now)
        seat.meters.add("missed", start > self._from)
        bars = 2 + int(self._ahead / (seat.clock.quarter_seconds * 4))
        stop = seat.clock.bar_start(seat.clock.bar_of(start) + bars)  # what is not taken is drawn with those of others
        seat.writer.begin(start, stop, seat.programs, read=seat.read_tick(now))

    def wants(self, now: float) -> bool:
        return self._is_playing and self.seat.clock.seconds(self.seat.writer.frontier) < now + self._ahead

    def deadline(self, now: float) -> float:
        if self._is_playing:
            return self.seat.clock.seconds(self.seat.writer.frontier)
        return now + 1.0

    def wake(self, now: float) -> float:
        if not self._is_playing:
            return NEVER
        return max(self.seat.clock.seconds(self.seat.writer.frontier) - self._ahead + 1e-3, now)

    def stop(self) -> None:
        super().stop()
        self._is_playing = False
        self.seat.context.reach(math.inf)
