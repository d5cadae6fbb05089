"""What the modes have in common: a seat, the model's side of a session, and when the model writes what."""

from typing import TYPE_CHECKING

from sage_jax.live.queue import EARLIEST

if TYPE_CHECKING:
    from sage_jax.live.seat import Seat

NEVER = float("inf")


class Mode:
    """When the model of a seat plays, and in which ticks.

    The seat calls `update` before each piece of work, `revise` when the context has changed, and then draws while `wants`.
    """

    def __init__(self, seat: "Seat"):
        self.seat = seat

    @property
    def patience(self) -> float:
        """Seconds that a changed length, or a note while the model plays, may wait to be read with others."""
        return 0.0

    def update(self, now: float) -> None:
        """Begins or ends the model's turn."""
        raise NotImplementedError

    def revise(self, now: float) -> None:
        """Takes the notes out of the context that are to be drawn anew."""
        raise NotImplementedError

    def resume(self, now: float) -> None:
        """Goes on drawing after the session has read what changed."""
        raise NotImplementedError

    def wants(self, now: float) -> bool:
        """Whether the model should draw now."""
        raise NotImplementedError

    def deadline(self, now: float) -> float:
        """When the next event is needed, in seconds."""
        raise NotImplementedError

    def wake(self, now: float) -> float:
        """When `update` has something to do, if nothing happens; NEVER if only then."""
        raise NotImplementedError

    def turn(self, now: float) -> str | None:
        """Whose turn it is: "player", "model", or None where both play. For any thread."""

    def drawn(self, now: float) -> None:
        """The writer has drawn an event, or has come to the end of its range."""

    def struck(self, at: float, now: float) -> None:
        """The player has struck a note that is at `at` seconds."""

    def take_over(self, at: float) -> None:
        """The player has wanted the model to play since `at` seconds."""

    # For the modes

    def cut(self, horizon: int) -> int:
        """Takes the model's notes from `horizon` on out of the context, or from where its drawing has come to.

        They stay in the queue until a fresher plan replaces them. Returns the tick from which to draw anew.
        """
        writer = self.seat.writer
        start = min(horizon, writer.frontier)
        writer.leave()
        self.seat.context.drop_planned(start)
        return start

    def soonest(self, now: float) -> int:
        """The first tick for which the model can draw in time if it first reads what has changed."""
        seat = self.seat
        return seat.clock.tick_from(now + seat.meters.typical("rollback", 0.0) + seat.writer.delay)

    def in_time(self, tick: int, now: float) -> int:
        """`tick`, or a later one if what is drawn now would be late there."""
        return max(tick, self.seat.clock.tick_from(now + self.seat.writer.delay))

    def stop(self) -> None:
        """Takes back everything that is planned."""
        seat = self.seat
        seat.writer.leave()
        seat.withdraw(EARLIEST)
