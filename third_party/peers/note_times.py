"""What a run answers, from the times at which its notes were complete."""

import device


class NoteClock:
    """Counts the tokens of a run, and takes the time where the first one and where each note is complete.

    Each of `events` notes takes the same share of `tokens` tokens, as whole ones; the prefill ends when the first token is known.
    Other tokens get no time, as waiting for a GPU after each of them would slow it down.
    """

    def __init__(self, events, tokens):
        self.tokens, self.ends = tokens, [round((event + 1) * tokens / events) for event in range(events)]
        self.count, self.times, self.start = 0, {}, device.now()

    def token(self):
        """One more token is there."""
        self.count += 1
        if self.count == 1 or self.count in self.ends:
            self.times[self.count] = device.now()

    def answer(self):
        """The run's fields. Raises RuntimeError where fewer or more tokens were there than were wanted."""
        if self.count != self.tokens:
            raise RuntimeError(f"drew {self.count} tokens, where {self.tokens} were wanted")
        ends = [self.times[end] for end in self.ends]
        starts = [self.times[1], *ends[:-1]]
        return {
            "prefill_seconds": self.times[1] - self.start,
            "seconds": [end - start for start, end in zip(starts, ends, strict=True)],
            "events_drawn": len(ends),
            "notes_drawn": None,  # tokens are not turned into notes
            **device.memory(),
        }


def time_tokens(tokens, events, count):
    """Exhausts `tokens`, which does all of a run's work as it goes and has `count` of them, and times its notes."""
    clock = NoteClock(events, count)
    for _ in tokens:
        clock.token()
    return clock.answer()
