"""Tasks for test_workers.py, in a module that worker processes can import."""

import itertools
import os
import signal
import sys


def behave(task: str) -> object:
    """Does what `task` names. Unknown names are returned."""
    match task.split():
        case ["hang"]:
            for _ in itertools.count():
                pass
        case ["hang", "masked"]:  # blocks every signal that Python can block
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
            sum(itertools.repeat(1))  # an endless call in C, during which no Python code runs
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
