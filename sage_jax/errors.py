"""Exceptions that end a program without a traceback."""


class UserError(Exception):
    """A user's mistake. The message is one line: what is wrong, where, and how to fix it."""


class Preempted(Exception):
    """A signal stopped a run after its state was saved; the same call resumes it.

    exit_code: 128 plus the signal's number, as shells report it: 143 for SIGTERM, 130 for Ctrl-C.
    """

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code
