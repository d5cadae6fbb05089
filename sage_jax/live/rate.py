"""A token bucket: so many messages a second on average, and some more at once."""


class Bucket:
    """Fills with `rate` tokens a second up to `burst`; every message takes one."""

    def __init__(self, rate: float, burst: float, now: float):
        self.rate, self.burst = rate, burst
        self._tokens, self._at = burst, now

    def take(self, now: float) -> bool:
        """Takes a token at `now` seconds; False if there is none."""
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
