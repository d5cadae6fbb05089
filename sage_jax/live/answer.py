"""Answer: the model plays when the player pauses, until the player plays again."""

import enum

from sage_jax.live.modes import NEVER, Mode

DRAFT_SECONDS = 0.4  # before the end of a pause at which the model begins to draw what it may play
DRAFT_EVENTS, MOST_OF_PAUSE = 20, 0.8  # it begins earlier where this many events take longer, within this part of the pause
MOST_TICKS_LATER, LATEST_SECONDS = 2, 0.09  # after the pause for the first note, in ticks and in seconds
MOST_ATTEMPTS = 6  # draws without a note, after which the model plays nothing
AHEAD_SECONDS = 4.0  # that are drawn before they sound
DRAFT_NOTES = 24  # the most that are drawn before the pause is over


class State(enum.Enum):
    """LISTENING: to the player. DRAFTING: the pause is nearly over. ANSWERING: until the answer or the player ends it."""

    LISTENING = "listening"
    DRAFTING = "drafting"
    ANSWERING = "answering"


class Answer(Mode):
    """The model drafts its first notes before the pause is over, and throws them away if the player goes on.

    The first note should sound when the pause is over, and a model may prefer to wait for a beat. So its onset is drawn from
    the tick of the takeover and the next two, if they are soon enough: the model's distribution given that it begins there.
    """

    def __init__(self, seat):
        super().__init__(seat)
        self._state = State.LISTENING
        self._answered: float | None = None  # the player's last note that has been answered
        self._called: float | None = None  # when the player wanted an answer
        self._pause_end = 0.0
        self._tick = self._stop = self._attempt = self._number = 0
        self._has_first = False

    def _pause_ends(self) -> float:
        """When the present pause is over; NEVER while a key is held and after an answer."""
        player, seat = self.seat.player, self.seat
        if player.is_held or player.last_activity is None or player.last_on == self._answered:
            return NEVER
        return player.last_activity + seat.settings.pause * seat.clock.quarter_seconds

    def update(self, now: float) -> None:
        if self._state is State.LISTENING:
            end = self._pause_ends()
            if self._called is not None:
                self._begin(now, now + self.seat.writer.delay, self._called)
            elif now >= self._drafts_at(end):
                self._begin(now, max(end, now + self.seat.writer.delay), end)
        elif self._state is State.DRAFTING and now >= self._pause_end and self._has_first:
            self._speak(now)
        elif self._state is State.ANSWERING and not self.seat.writer.is_drawing and self.seat.queue.is_silent:
            self._state = State.LISTENING

    def _drafts_at(self, pause_end: float) -> float:
        """When to begin to draft for a pause that ends then: earlier where events take long, but not with the pause."""
        seconds = max(DRAFT_SECONDS, DRAFT_EVENTS * self.seat.meters.typical("event", 0.0))
        pause = self.seat.settings.pause * self.seat.clock.quarter_seconds
        return pause_end - min(seconds, MOST_OF_PAUSE * pause)

    def _begin(self, now: float, first: float, pause_end: float) -> None:
        """Begins to draft an answer whose first note is at `first` seconds or soon after."""
        seat = self.seat
        seat.collect(now, all_of_them=True)
        self._state, self._called, self._pause_end = State.DRAFTING, None, pause_end
        self._tick = seat.clock.tick_from(first)
        self._stop = seat.clock.bar_start(seat.clock.bar_of(self._tick) + seat.settings.answer_bars)
        self._attempt, self._has_first = 0, False
        if seat.context.dirty is None:
            self._try()

    def _try(self) -> None:
        """Draws an answer that begins at the tick of the takeover, or soon after."""
        seat = self.seat
        self._number += 1
        self._attempt += 1
        latest = max(seat.clock.tick(self._pause_end + LATEST_SECONDS), self._tick)
        seat.writer.begin(
            self._tick,
            max(self._stop, seat.decoding.tick + 1),
            seat.programs,
            read=self._tick,
            number=self._number,
            is_draft=True,
            begin_before=min(self._tick + MOST_TICKS_LATER, latest) + 1,
        )

    def revise(self, now: float) -> None:
        if self._state is State.DRAFTING:
            self.seat.writer.leave()
            self.seat.withdraw(self._tick)
        elif self._state is State.ANSWERING:
            seat = self.seat
            self._tick = self.cut(max(self.soonest(now), seat.clock.tick_from(now + seat.clock.quarter_seconds)))

    def resume(self, now: float) -> None:
        if self._state is State.DRAFTING:
            self._has_first = False
            self._try()
        elif self._state is State.ANSWERING:
            seat, start = self.seat, self.in_time(self._tick, now)
            seat.writer.begin(start, self._stop, seat.programs, read=seat.read_tick(now), number=self._number)

    def wants(self, now: float) -> bool:
        seat = self.seat
        if self._state is State.DRAFTING:
            return len(seat.writer.draft) < DRAFT_NOTES
        return self._state is State.ANSWERING and seat.clock.seconds(seat.writer.frontier) < now + AHEAD_SECONDS

    def drawn(self, now: float) -> None:
        """Looks at what the writer has drawn of a draft."""
        seat = self.seat
        if self._state is not State.DRAFTING or self._has_first:
            return
        if seat.writer.draft:
            self._has_first = True
            if now >= self._pause_end:
                self._speak(now)
        elif not seat.writer.is_drawing:
            if self._attempt >= MOST_ATTEMPTS:
                self._end()
                return
            self._tick = self.in_time(self._tick, seat.now())
            self._try()

    def _speak(self, now: float) -> None:
        seat = self.seat
        first = seat.writer.draft[0]
        sounds = max(seat.clock.seconds(first.tick), now)
        seat.meters.add("takeover", sounds - self._pause_end)
        if seat.player.last_on is not None:
            seat.meters.add("after_player", sounds - seat.player.last_on)
        seat.meters.counts["answers"] += 1
        self._answered = seat.player.last_on
        self._state = State.ANSWERING
        seat.writer.speak()

    def _end(self) -> None:
        self._state, self._answered = State.LISTENING, self.seat.player.last_on
        self.seat.writer.leave()

    def struck(self, at: float, now: float) -> None:
        if self._state is not State.LISTENING:
            self._state = State.LISTENING
            super().stop()

    def take_over(self, at: float) -> None:
        if self._state is State.LISTENING:
            self._called = at
        elif self._state is State.DRAFTING and at < self._pause_end:  # not for the end of the pause any more
            self.struck(at, at)
            self._called = at

    def turn(self, now: float) -> str | None:
        return "model" if self._state is State.ANSWERING else "player"

    def stop(self) -> None:
        super().stop()
        self._end()

    def deadline(self, now: float) -> float:
        if self._state is State.DRAFTING:
            return self._pause_end
        if self._state is State.ANSWERING:
            return self.seat.clock.seconds(self.seat.writer.frontier)
        return now + 1.0

    def wake(self, now: float) -> float:
        if self._state is State.DRAFTING:
            return self._pause_end if self._has_first else NEVER
        if self._state is State.ANSWERING:
            seat = self.seat
            if seat.writer.is_drawing:
                return seat.clock.seconds(seat.writer.frontier) - AHEAD_SECONDS + 1e-3
            return max(seat.queue.next_due() or now, now + 0.1)
        return max(self._drafts_at(self._pause_ends()), now)
