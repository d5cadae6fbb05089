"""How long a player waits for the next event while windows move and other rows join."""

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from sage_jax.benchmark.ratios import CONTROL
from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.engine import Engine
from sage_jax.decoding.request import Request
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.scheduler import Scheduler
from sage_jax.markdown import markdown_table
from sage_jax.tokenizers.note_events import BOS

JOIN_EVERY = 60  # events of the player between two rows that join
JOINED = 40  # events that such a row draws
SHORTEST_PROMPT = 16  # events
MIN_P99 = 1000  # gaps
LIMITS = Limits(allow_eos=False)
INTERLEAVED = "interleaved"
SYSTEMS = {INTERLEAVED: True, INTERLEAVED + CONTROL: True, "at once": False}


@dataclasses.dataclass
class Gaps:
    """Seconds between two events of the player, and how often its window moved and a row joined.

    beside: while something was read for a new window or a new row, or just before. plain: the others.
    """

    plain: list[float] = dataclasses.field(default_factory=list)
    beside: list[float] = dataclasses.field(default_factory=list)
    moves: int = 0
    joins: int = 0

    def cells(self) -> list[str]:
        """The gaps in steps, of which one is the median plain gap."""
        step = float(np.median(self.plain))
        found = [f"{1000 * step:.2f}", str(self.moves), str(self.joins)]
        for gaps in (self.plain, self.beside):
            p99 = f"{np.percentile(gaps, 99) / step:.2f}" if len(gaps) >= MIN_P99 else "-"
            found += [f"{len(gaps):,}", f"{np.median(gaps) / step:.2f}", p99, f"{max(gaps) / step:.2f}"]
        return found


def measure(
    engine: Engine, window_length: int, sampling: SamplingConfig, events: int, turns: int, say: Callable[[str], None]
) -> str:
    """A table of the gaps of a player who draws `events` events in each of `turns` turns.

    Rows join with prompts of 16 to `window_length` events that the model wrote. The systems take turns with one engine. In "at
    once", rows wait for each other's prompts.
    """
    engine.warmup()
    beginning = np.full((1, engine.config.num_attributes), BOS, np.int16)
    (continuation,) = Scheduler(engine.sibling()).run([Request(beginning, LIMITS, sampling, window_length)])
    written = np.concatenate([beginning, continuation.events])
    gaps = {name: Gaps() for name in SYSTEMS}
    for turn in range(turns):
        for name, interleaved in SYSTEMS.items():
            scheduler = Scheduler(engine.sibling(), interleaved=interleaved, window_length=window_length)
            _play(scheduler, written, sampling, events, turn, gaps[name])
            say(f"turn {turn + 1} of {turns}, {name}")
    header = ["system", "step, ms", "moves", "joins"]
    for kind in ("plain", "beside"):
        header += [f"{kind}: gaps", "p50, steps", "p99", "longest"]
    return markdown_table(header, [[name, *found.cells()] for name, found in gaps.items()])


def _play(scheduler: Scheduler, written: np.ndarray, sampling: SamplingConfig, events: int, seed: int, gaps: Gaps) -> None:
    """Adds the gaps of one player. written: int16 [N, A], of which the prompts of rows that join are beginnings."""
    rng = np.random.default_rng(seed)
    player = scheduler.submit(Request(written[:SHORTEST_PROMPT], LIMITS, sampling, events, seed))
    window, last, drawn, read_before = player.window, 0.0, 0, True
    while drawn < events:
        joins = drawn % JOIN_EVERY == JOIN_EVERY - 1 and bool(player.outbox)
        if joins:
            prompt = written[: rng.integers(SHORTEST_PROMPT, len(written))]
            scheduler.submit(Request(prompt, LIMITS, sampling, JOINED, seed, drawn))
        player.outbox.clear()
        reads = joins or scheduler.is_staging
        scheduler.turn(max_steps=1)
        now = time.perf_counter()
        moves, window = player.window is not window, player.window
        reads |= scheduler.is_staging or moves
        gaps.joins, gaps.moves = gaps.joins + joins, gaps.moves + (drawn > 0 and moves)
        if player.outbox:
            if drawn:
                (gaps.beside if reads or read_before else gaps.plain).append(now - last)
            last, drawn, read_before = now, drawn + len(player.outbox), False
        read_before |= reads
