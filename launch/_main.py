"""What every launch script shares: a user's mistake ends in one line, not in a traceback."""

import sys
from collections.abc import Callable, Sequence

from absl import app

from sage_jax.errors import UserError


def run(main: Callable[[], int | None]) -> None:
    """Runs `main` under absl; a UserError, or an unknown flag or config key, is printed as one line and exits with 2."""

    def guarded(argv: Sequence[str]) -> int | None:
        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}; see --help")
        return main()

    try:
        app.run(_reporting(guarded))
    except (AttributeError, KeyError, TypeError, ValueError, UserError) as error:
        _fail(error)  # raised while absl read the flags: an unknown config key or a value of the wrong type


def _reporting(main: Callable) -> Callable:
    def wrapped(argv: Sequence[str]) -> int | None:
        try:
            return main(argv)
        except UserError as error:
            _fail(error)

    return wrapped


def _fail(error: BaseException) -> None:
    text = " ".join(str(error).split())
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)
