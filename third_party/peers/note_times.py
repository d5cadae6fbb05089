"""What a run answers, from the times at which its tokens were known."""

import time
from collections.abc import Iterable
from typing import Any


def time_tokens(tokens: Iterable[Any], events: int) -> dict[str, Any]:
    """Exhausts `tokens`, which does all of a run's work as it goes, and times its notes."""
    start = time.perf_counter()
    return group(start, [time.perf_counter() for _ in tokens], events)


def group(start: float, times: list[float], events: int) -> dict[str, Any]:
    """Each note takes the same share of the tokens, as whole ones; the prefill ends when the first token is known."""
    ends = [times[round((event + 1) * len(times) / events) - 1] for event in range(events)]
    starts = [times[0], *ends[:-1]]
    return {
        "prefill_seconds": times[0] - start,
        "seconds": [end - start for start, end in zip(starts, ends, strict=True)],
    }
