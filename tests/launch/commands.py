"""Runs several scripts, each in a process of its own, that share what they import: for a process of its own.

  python -m tests.launch.commands < COMMANDS

COMMANDS is JSON: for each command its module and flags. Prints as JSON the exit code, stdout and stderr of each.
"""

import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from typing import Any


def outcomes(commands: Mapping[Any, Sequence[str]]) -> dict[Any, subprocess.CompletedProcess]:
    """What became of each command, a module and its flags, by the names of the commands."""
    this = [sys.executable, "-m", "tests.launch.commands"]
    text = json.dumps(list(commands.values()))
    done = subprocess.run(this, input=text, cwd=pathlib.Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = zip(commands, commands.values(), json.loads(done.stdout), strict=True)
    return {name: subprocess.CompletedProcess(command, *each) for name, command, each in found}


def run(command: Sequence[str], out: int, err: int) -> None:
    """Becomes the program of a command, and ends with its exit code."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.argv = list(command)
    code: Any = 0
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def main() -> None:
    commands = json.load(sys.stdin)
    import sage_jax.sample
    import sage_jax.training.loop  # noqa: F401  # both are imported for the processes; no device is looked for

    found = []
    for command in commands:
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = os.fork()
            if not child:
                run(command, out.fileno(), err.fileno())
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read())
            found.append([code, *texts])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
