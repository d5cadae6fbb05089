"""What the workers of test_workers.py are given to do: worker processes import it by name."""

import itertools
import os
import signal
import sys


def behave(task: str) -> object:
    """Does what `task` says; only 'echo ...' and 'modules' have an answer."""
    match task.split():
        case ["hang"]:
            for _ in itertools.count():
                pass
        case ["hang", "deaf"]:  # to every signal that can be ignored in Python
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
            sum(itertools.repeat(1))  # one endless call in C: no Python code runs any more
        case ["crash"]:
            os.kill(os.getpid(), signal.SIGSEGV)
        case ["exit"]:
            os._exit(3)
        case ["raise"]:
            raise ValueError("two\nlines")
        case ["eat"]:
            return bytes(64 << 30)
        case ["modules"]:
            return sorted({name.partition(".")[0] for name in sys.modules})
        case ["pid"]:
            return os.getpid()
    return task
