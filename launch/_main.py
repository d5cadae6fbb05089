"""What every launch script shares: a user's mistake ends in one line, not in a traceback."""

import difflib
import functools
import logging
import pathlib
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from sage_jax.errors import Preempted, UserError


def config_file(default: str, help_string: str) -> flags.FlagHolder[ConfigDict]:
    """Defines --config: a config file, whose fields --config.section.field=value overrides."""
    if not _chosen_config(sys.argv):  # the flag then reads the default file, and what overrides it, as soon as it is defined
        _check_overrides(default, sys.argv)
    return config_flags.DEFINE_config_file("config", default, help_string, lock_config=True)


def run(main: Callable[[], None], positional: str | None = None) -> None:
    """Runs `main` under absl. A UserError, or an unknown config key, ends in one line and with exit code 2.

    positional: the list flag that takes arguments without a name; without it there may be none.
    """
    _quiet_orbax()
    try:
        app.run(lambda _: main(), flags_parser=functools.partial(_parse, positional))
    except UserError as error:
        _fail(str(error))
    except Preempted as preempted:
        sys.exit(preempted.exit_code)
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


def _quiet_orbax() -> None:
    """Keeps orbax's complaints from stderr, for this process: what fails is also raised, and a UserError says it in one line.

    Where one of its reads or writes fails, those that were under way fail later: as log records of asyncio, and as exceptions
    that nothing can catch.
    """
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname or record.levelno > logging.ERROR)
    logging.getLogger("asyncio").addFilter(lambda record: "exception was never retrieved" not in record.getMessage())
    hook = sys.unraisablehook

    def all_but_closed_loops(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    sys.unraisablehook = all_but_closed_loops


def _parse(positional: str | None, argv: Sequence[str]) -> list[str]:
    """Parses the flags, and with them the config file and what overrides it."""
    try:
        if "config" in flags.FLAGS and (path := _chosen_config(argv)):
            _check_overrides(path, argv)
        rest = app.parse_flags_with_usage(argv)
        if "config" in flags.FLAGS:
            flags.FLAGS["config"].value.is_locked  # of a file that can't be read, any attribute raises the reason
    except OSError as error:
        _fail(f"--config: {error}")
    if positional:
        flags.FLAGS[positional].value = [*flags.FLAGS[positional].value, *rest[1:]]
        rest = rest[:1]
    if len(rest) > 1:
        _fail(f"unexpected argument {rest[1]!r}; see --help")
    if not flags.FLAGS["verbosity"].present:
        absl_logging.set_verbosity(absl_logging.WARNING)  # at INFO absl logs every backend that jax looks for
    return rest


def _chosen_config(argv: Sequence[str]) -> str | None:
    """The value of --config on the command line; None where it has none."""
    for argument, following in zip(argv, [*argv[1:], None], strict=True):
        if given := re.fullmatch(r"--?config(?:=(.*))?", argument):
            return following if given[1] is None else given[1]
    return None


def _check_overrides(path: str, argv: Sequence[str]) -> None:
    """Ends with a line that names the flag where one overrides a field that the config at `path` doesn't have.

    The file is executed once more for this. What its own code raises is not caught: only a traceback leads to that line.
    """
    config = ConfigFileFlagParser("config").parse(path)
    for argument in argv:
        override = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        section, name = config, ""
        for following in override[1].split(".") if override else ():
            if not isinstance(section, ConfigDict):
                _fail(f"{argument}: {name} is a field and no section, and has no fields of its own; set --config.{name} itself")
            name = f"{name}.{following}".lstrip(".")
            if following not in section:
                near = difflib.get_close_matches(following, section.keys(), 1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(section.keys())}"
                _fail(f"{argument} sets a field that the config doesn't have; {hint}")
            section = section[following]


def _fail(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
