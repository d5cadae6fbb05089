"""Trade: the player and the model play bars in turn."""

from sage_jax.live.modes import NEVER, Mode

PREPARE_SECONDS = 0.25  # before the model's turn at which it begins to draw, at least
PREPARE_EVENTS = 12  # events that it can draw in this time
AHEAD_SECONDS = 4.0  # that are drawn before they sound


class Trade(Mode):
    """The player has the first `trade_bars` bars, the model the next, and so on.

    The model draws its turn shortly before it begins, from all that the player did until then. A note of the player that comes
    late makes it draw anew what has not sounded.
    """

    def __init__(self, seat):
        super().__init__(seat)
        self._start, self._stop = -1, -1  # ticks of the turn that the model has begun
        self._from = 0

    @property
    def patience(self) -> float:
        return self.seat.clock.quarter_seconds / 4 if self.seat.writer.is_drawing else 0.0

    def _next_turn(self, now: float) -> tuple[int, int]:
        """The ticks of the model's turn that comes next, or is now."""
        clock, bars = self.seat.clock, self.seat.settings.trade_bars
        cycle = clock.bar_of(max(clock.tick(now), 0)) // (2 * bars)
        return clock.bar_start(cycle * 2 * bars + bars), clock.bar_start((cycle + 1) * 2 * bars)

    def _prepares_at(self, start: int) -> float:
        seconds = max(PREPARE_SECONDS, PREPARE_EVENTS * self.seat.meters.typical("event", 0.0))
        return self.seat.clock.seconds(start) - seconds

    def _is_past(self, start: int, stop: int, now: float) -> bool:
        """Whether a turn of the model has begun, or no note of it would be in time."""
        return start == self._start or self.in_time(start, now) >= stop

    def update(self, now: float) -> None:
        seat = self.seat
        start, stop = self._next_turn(now)
        if seat.player.last_on is None or now < self._prepares_at(start) or self._is_past(start, stop, now):
            return
        self._start, self._stop = start, stop
        seat.collect(now, all_of_them=True)
        seat.meters.counts["answers"] += 1
        self._from = start
        seat.writer.leave()
        if seat.context.dirty is None:
            self.resume(now)

    def _is_turn(self, now: float) -> bool:
        return self._stop >= 0 and now < self.seat.clock.seconds(self._stop)

    def revise(self, now: float) -> None:
        seat = self.seat
        if not self._is_turn(now):
            return
        came_late = seat.context.dirty is not None and seat.context.dirty < self._start
        horizon = self.soonest(now)
        if not came_late:
            horizon = max(horizon, seat.clock.tick_from(now + seat.clock.quarter_seconds))
        self._from = self.cut(max(self._start, horizon))

    def resume(self, now: float) -> None:
        seat, start = self.seat, self.in_time(max(self._from, self._start), now)
        if self._is_turn(now) and start < self._stop:
            seat.writer.begin(start, self._stop, seat.programs, read=seat.read_tick(now), number=self._start)

    def wants(self, now: float) -> bool:
        return self.seat.clock.seconds(self.seat.writer.frontier) < now + AHEAD_SECONDS

    def turn(self, now: float) -> str | None:
        return "model" if now >= self.seat.clock.seconds(self._next_turn(now)[0]) else "player"

    def deadline(self, now: float) -> float:
        seat = self.seat
        return seat.clock.seconds(seat.writer.frontier) if seat.writer.is_drawing else now + 1.0

    def wake(self, now: float) -> float:
        seat = self.seat
        if seat.player.last_on is None:
            return NEVER
        if seat.writer.is_drawing:
            return max(seat.clock.seconds(seat.writer.frontier) - AHEAD_SECONDS + 1e-3, now)
        start, stop = self._next_turn(now)
        if self._is_past(start, stop, now):
            return seat.clock.seconds(stop) + 1e-3
        return max(self._prepares_at(start), now)
