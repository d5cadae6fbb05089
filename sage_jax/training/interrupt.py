"""Stopping on request: SIGTERM and Ctrl-C ask a loop to end in good order."""

import os
import shlex
import signal
import sys

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """While entered, the first SIGTERM or Ctrl-C is noted in `signal`; a second one ends the process at once.

    Of many hosts any may be told by SIGTERM, and all stop after the same step: jax listens to it, and makes them agree. Ctrl-C
    ends such a process at once.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self._previous = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM) if jax.process_count() == 1 else ():
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _) -> None:
        self.signal = signal.Signals(number)
        os.write(2, b"\nstopping after this step; a second signal stops at once\n")  # safe in a handler
        for each in self._previous:
            signal.signal(each, signal.SIG_DFL)

    def is_asked(self, step: int) -> bool:
        """Whether the loop is to end now that `step` is under way; to be called once for each."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal


def this_command() -> str:
    """The command line that started this process, as it can be typed again."""
    return shlex.join(sys.orig_argv)
