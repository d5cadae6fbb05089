"""What every launch script shares: a user's mistake ends in one line, not in a traceback."""

import functools
import pathlib
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence

from absl import app, flags, logging

from sage_jax.errors import UserError


def run(main: Callable[[], None], positional: str | None = None) -> None:
    """Runs `main` under absl. A UserError, or an unknown config key, is told in one line and the exit code is 2.

    positional: the list flag that takes arguments without a name; without it there may be none.
    """
    try:
        app.run(lambda _: main(), flags_parser=functools.partial(_parse, positional))
    except UserError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        sizes = "batch_size, config.train.batch_size, config.data.num_events or config.takes.num_samples"
        _fail(f"the device is out of memory; lower what the config has of config.{sizes}")


def named_folders(flag: str, values: Sequence[str]) -> dict[str, pathlib.Path]:
    """The folders of a list flag by name: NAME=FOLDER, or FOLDER, whose own name is then the name."""
    folders = {}
    for value in values:
        name, equals, folder = value.rpartition("=")
        name = name if equals else pathlib.Path(folder).resolve().name
        if not name or not folder or name in folders:
            raise UserError(f"{flag}: {value!r} has no name of its own; give each as NAME=FOLDER")
        folders[name] = pathlib.Path(folder)
    return folders


def as_typed(module: str, stands_for: Mapping[str, str], left_out: Sequence[str] = ()) -> str:
    """The command line that started this process, for a report that others read.

    stands_for: what is told instead of a flag's value, by the flag's name, and so of each folder of music or of shards. left_out:
    flags of no value that are not told.
    """
    words, pending = [], None
    for argument in sys.argv[1:]:
        flag, equals, _ = argument.partition("=")
        name = flag.lstrip("-")
        if pending:
            words.append(stands_for[pending])
            pending = None
        elif name in stands_for:
            words.append(f"{flag}={stands_for[name]}" if equals else flag)
            pending = None if equals else name
        elif name not in left_out:
            words.append(re.sub("(folder|shards):.*", r"\1:DIR", argument))
    return f"python -m {module} {shlex.join(words)}"


def _parse(positional: str | None, argv: Sequence[str]) -> list[str]:
    """Parses the flags, and with them the config file and what overrides it."""
    try:
        rest = app.parse_flags_with_usage(argv)
        if "config" in flags.FLAGS:
            flags.FLAGS["config"].value  # only now is the file read
    except (KeyError, AttributeError) as error:  # how ml_collections tells of a field that a config doesn't have
        key = str(error.args[0]).split("'")[-2] if "'" in str(error.args[0]) else str(error.args[0])
        given = [argument for argument in argv if argument.startswith("--config.") and key in argument]
        _fail(f"{given[0] if given else key} sets a field that the config doesn't have; the file of --config lists them all")
    except OSError as error:
        _fail(f"--config: {error}")
    if positional:
        flags.FLAGS[positional].value = [*flags.FLAGS[positional].value, *rest[1:]]
        rest = rest[:1]
    if len(rest) > 1:
        _fail(f"unexpected argument {rest[1]!r}; see --help")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # at INFO absl tells of every backend that jax looks for
    return rest


def _fail(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
