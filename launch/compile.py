"""Compiles a program for a device that is not there, and prints its kernels, copies, bytes, memory and collectives.

  python -m launch.compile --config=configs/sage.py:base --target=h100 --program=decode
  python -m launch.compile --config=configs/sage.py:base --target=v5e:16x16 --program=train --config.mesh.fsdp=4
  python -m launch.compile --workdir=runs/base --target=v5e:2x2 --program=prefill --output=prefill.json

Programs: decode (one event step), loop (event steps until a row ends), prefill, begin (the first prefill of a prompt), and
train (one step on all devices).
Targets: h100 or h100:8, v4:4x4x4, v5e:2x2, v5p:2x2x1 or v6e:16x16 and other slices of TPU pods, cpu or cpu:8. docs/compiling.md
says how to install the compilers. Speed is not measured: that needs the device.
"""

import pathlib

import jax
from absl import flags
from ml_collections import config_flags

from launch._main import config_file, run
from sage_jax.compiling.report import lines
from sage_jax.compiling.request import compile_for
from sage_jax.files import replacing, write_json

CONFIG = config_file("configs/sage.py", "What to compile: a file, :argument, and --config.section.field=value.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run, whose config takes the place of --config's file.")
TARGET = flags.DEFINE_string("target", None, "Device or slice of a pod to compile for.", required=True)
PROGRAM = flags.DEFINE_string("program", "decode", "decode, loop, prefill, begin or train.")
ROWS = flags.DEFINE_integer("rows", 1, "Rows that are decoded together.")
CAPACITY = flags.DEFINE_integer("capacity", 1024, "Events that the cache of a row holds.")
OUTPUT = flags.DEFINE_string("output", None, "JSON file for the figures.")
HLO = flags.DEFINE_string("hlo", None, "File for the text of the compiled program.")


def main() -> None:
    # A stored program takes no time to compile, and libtpu reads none without its device.
    jax.config.update("jax_enable_compilation_cache", False)
    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    sections = CONFIG.value.to_dict()
    report = compile_for(TARGET.value, PROGRAM.value, sections, WORKDIR.value, overrides, ROWS.value, CAPACITY.value)
    print("\n".join(lines(report)))
    if OUTPUT.value:
        write_json(pathlib.Path(OUTPUT.value), report.to_dict(), indent=1)
    if HLO.value:
        with replacing(HLO.value) as path:
            path.write_text(report.hlo)


if __name__ == "__main__":
    run(main)
