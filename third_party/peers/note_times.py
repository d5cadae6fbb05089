"""The result of a run, from the times at which its notes were complete."""

import device


class NoteClock:
    """Counts the tokens of a run and records the time of the first token and of the end of each note.

    `events` notes share `tokens` tokens equally, in whole tokens. The prefill ends with the first token. Other tokens get no
    time, because waiting for a GPU after each of them would slow it down.
    """

    def __init__(self, events, tokens):
        self.tokens, self.ends = tokens, [round((event + 1) * tokens / events) for event in range(events)]
        self.count, self.times, self.start = 0, {}, device.now()

    def token(self):
        """Counts one more token."""
        self.count += 1
        if self.count == 1 or self.count in self.ends:
            self.times[self.count] = device.now()

    def result(self):
        """The fields of a DecodingRun. Raises RuntimeError for another number of tokens."""
        if self.count != self.tokens:
            raise RuntimeError(f"drew {self.count} tokens instead of {self.tokens}")
        ends = [self.times[end] for end in self.ends]
        starts = [self.times[1], *ends[:-1]]
        return {
            "prefill_seconds": self.times[1] - self.start,
            "seconds": [end - start for start, end in zip(starts, ends, strict=True)],
            "events_drawn": len(ends),
            "notes_drawn": None,  # tokens are not decoded to notes
            **device.memory(),
        }


def time_tokens(tokens, events, count):
    """Exhausts the iterator `tokens`, which does the work of a run and has `count` elements; times its `events` notes."""
    clock = NoteClock(events, count)
    for _ in tokens:
        clock.token()
    return clock.result()
