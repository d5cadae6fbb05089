"""The exceptions that programs end with in good order."""


class UserError(Exception):
    """A mistake of the user's, told in one line: what is wrong, where, and the way out."""


class Preempted(Exception):
    """A signal has stopped a run, whose state is saved; the same call resumes it.

    exit_code: what a shell expects of a process that this signal ended, 143 for SIGTERM and 130 for Ctrl-C.
    """

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code
