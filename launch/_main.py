"""What the launch scripts share: flags, configs, and one line instead of a traceback for a user's mistake."""

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

from sage_jax import compilation_cache
from sage_jax.errors import Preempted, UserError

HELP = frozenset(f"{dashes}{flag}" for dashes in ("-", "--") for flag in ("help", "helpshort", "helpfull", "helpxml", "?"))


def config_file(default: str, help_string: str) -> flags.FlagHolder[ConfigDict]:
    """Defines --config: a config file, whose fields --config.section.field=value overrides."""
    if not _chosen_config(sys.argv):  # then the flag reads the default file and its overrides as soon as it is defined
        _check_overrides(default, sys.argv)
    return config_flags.DEFINE_config_file("config", default, help_string, lock_config=True)


def run(main: Callable[[], None], positional: str | None = None) -> None:
    """Runs `main` under absl. A UserError or an unknown config field ends in one line and exit code 2.

    positional: the list flag that takes arguments without a name; None allows no such arguments.
    """
    _quiet_orbax()
    compilation_cache.enable()
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
        sizes = "batch_size, config.train.batch_size, config.data.context_events or config.continuation.num_samples"
        _fail(f"the device is out of memory; lower one of config.{sizes}")


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
    """The command line that started this process, for a published report.

    stands_for: by flag name, the word that replaces its value. Folders of music and of shards become DIR.
    left_out: flags without a value that the report leaves out.
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
    """Keeps orbax's error logs off stderr in this process; what fails is also raised, and a UserError reports it in one line.

    When a read or write of orbax fails, its other pending ones fail later, in asyncio's log and as exceptions that nothing
    catches.
    """
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname or record.levelno > logging.ERROR)
    logging.getLogger("asyncio").addFilter(lambda record: "exception was never retrieved" not in record.getMessage())
    hook = sys.unraisablehook

    def all_but_closed_loops(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    sys.unraisablehook = all_but_closed_loops


def _parse(positional: str | None, argv: Sequence[str]) -> list[str]:
    """Parses the flags, the config file and its overrides; returns the program's name."""
    try:
        if "config" in flags.FLAGS and (path := _chosen_config(argv)):
            _check_overrides(path, argv)
        try:
            rest = flags.FLAGS(list(argv))
        except SystemExit:  # absl exits with 1 for --help, too
            sys.exit(0 if HELP.intersection(argv) else 1)
        except flags.Error as error:
            missing = re.findall(r"Flag (--\w+) must have a value other than None", str(error))
            _fail(f"{' and '.join(missing)} must be given; see --help" if missing else str(error))
        if "config" in flags.FLAGS:
            _ = flags.FLAGS["config"].value.is_locked  # type: ignore[union-attr]  # any attribute raises the reason if the file can't be read
    except OSError as error:
        _fail(f"--config: {error}")
    if positional:
        flags.FLAGS[positional].value = [*(flags.FLAGS[positional].value or ()), *rest[1:]]
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
    """Ends the program in one line if a flag overrides a field that the config at `path` does not have.

    This executes the file once more. An error of its own code is not caught: the traceback leads to its line.
    """
    config = ConfigFileFlagParser("config").parse(path)
    for argument in argv:
        override = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        section: Any = config
        name = ""
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
