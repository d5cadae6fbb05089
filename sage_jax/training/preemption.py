"""Graceful stops: SIGTERM and Ctrl-C end the training loop after the current step."""

import os
import shlex
import signal
import sys

import jax
from jax.experimental import multihost_utils


class StopSignal:
    """A context in which the first SIGTERM or Ctrl-C is recorded in `signal`; a second one ends the process at once.

    On several hosts jax handles SIGTERM: a signal to any host makes all stop after the same step. Ctrl-C is not handled
    there and ends the process at once.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self._previous = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGINT, signal.SIGTERM) if jax.process_count() == 1 else ():
            self._previous[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _record(self, number: int, _) -> None:
        self.signal = signal.Signals(number)
        os.write(2, b"\nstopping after this step; a second signal stops at once\n")  # print is not safe in a handler
        for each in self._previous:
            signal.signal(each, signal.SIG_DFL)

    def is_requested(self, step: int) -> bool:
        """Whether the loop must end after `step`, which is running; call this once per step."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as shells report it: 130 for Ctrl-C, 143 for SIGTERM."""
        assert self.signal is not None
        return 128 + self.signal


def this_command() -> str:
    """The command line of this process, quoted for a shell."""
    return shlex.join(sys.orig_argv)
