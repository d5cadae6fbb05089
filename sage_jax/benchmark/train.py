"""Training speed and memory of the ways to share key-value heads.

  python -m sage_jax.benchmark.train --model=demo
  python -m sage_jax.benchmark.train --model=base --batch_size=1 --steps=2 --modes=mha,as_kvhs-own-1

Every measurement has a process of its own, so that its peak memory is its own; the modes take turns, so that a slow
minute of the machine is everybody's. Compilation is timed apart. Batches are full: they hold notes and no padding.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np

from configs.sage import get_config
from sage_jax.benchmark.memory import peak_megabytes
from sage_jax.benchmark.systems import SHARINGS, fields_of
from sage_jax.environment import describe
from sage_jax.music.events import BOS, FIRST, FIRST_PROGRAM, INSTRUMENT
from sage_jax.training.config import RunConfig
from sage_jax.training.programs import empty_batch, make_programs

MODES = ("mha", "gqa-5", "mqa", "as_kvhs-all-1", "as_kvhs-own-1", "as_kvhs-mixed-1")


def measure(run: RunConfig, steps: int) -> dict[str, Any]:
    """Times `steps` train steps, one by one, after a first one that is not counted."""
    programs = make_programs(run, run.tokenizer)
    state, batch = programs.init(run.train.seed), programs.place(full_batch(run))
    started = time.perf_counter()
    update = programs.update.lower(state, batch).compile()
    compile_seconds = time.perf_counter() - started
    compile_peak = peak_megabytes()
    seconds = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        state, metrics = jax.block_until_ready(update(state, batch))
        seconds.append(time.perf_counter() - started)
    memory = update.memory_analysis()
    return {
        "params": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "batch_size": run.train.batch_size,
        "num_events": run.data.num_events,
        "dtype": run.model.dtype,
        "tokens": int(metrics["tokens"]),
        "notes": int(metrics["notes"]),
        "compile_seconds": compile_seconds,
        "step_seconds": seconds[1:],
        "compile_peak_mb": compile_peak,
        "peak_mb": peak_megabytes(),
        # What XLA plans for one step: arguments (the state), results that do not reuse them, and everything between.
        "planned_mb": (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 1e6,
        **describe(),
    }


def full_batch(run: RunConfig) -> dict[str, np.ndarray]:
    """A batch of random notes."""
    shape = empty_batch(run)["events"].shape
    sizes = run.model.vocab_sizes
    lows = [FIRST_PROGRAM if attribute == INSTRUMENT else FIRST for attribute in range(len(sizes))]
    events = np.random.default_rng(0).integers(lows, sizes, shape, np.int32)
    events[:, 0] = BOS
    return {"events": events}


def table(lines: list[dict[str, Any]]) -> str:
    """The measurements as a Markdown table: medians over all steps of all rounds, slowest and fastest in brackets."""
    rows = [
        "| mode | parameters | step, ms | tokens/s | notes/s | speed | peak memory, MB | XLA's plan, MB | compiling, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    base = None
    for mode in dict.fromkeys(line["mode"] for line in lines):
        runs = [line for line in lines if line["mode"] == mode]
        seconds = [each for line in runs for each in line["step_seconds"]]
        middle = statistics.median(seconds)
        base = base or middle
        first = runs[0]
        peak, compilation = (max(line[field] for line in runs) for field in ("peak_mb", "compile_seconds"))
        rows.append(
            f"| {mode} | {first['params']:,} | {1e3 * middle:,.0f} ({1e3 * min(seconds):,.0f} to {1e3 * max(seconds):,.0f}) "
            f"| {first['tokens'] / middle:,.0f} | {first['notes'] / middle:,.0f} | {base / middle:.2f}x "
            f"| {peak:,.0f} | {first['planned_mb']:,.0f} | {compilation:.1f} |"
        )
    return "\n".join(rows)


def configure(model: str, mode: str, batch_size: int, dtype: str) -> RunConfig:
    """The run of configs/sage.py:`model` with another way to share heads."""
    config = get_config(model)
    config.model.update(fields_of(mode) | ({"dtype": dtype} if dtype else {}))
    config.train.batch_size = batch_size or config.train.batch_size
    return RunConfig.from_dict(config.to_dict())


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m sage_jax.benchmark.train", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="demo", choices=["debug", "demo", "base"], help="which model of configs/sage.py")
    parser.add_argument("--modes", default=",".join(MODES), help="which ways to share, %(default)s by default")
    parser.add_argument("--steps", type=int, default=5, help="timed steps in each process")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each mode")
    parser.add_argument("--batch_size", type=int, default=0, help="crops in a batch, by default the config's")
    parser.add_argument("--dtype", default="", choices=["float32", "bfloat16"], help="by default the config's")
    parser.add_argument("--out", type=pathlib.Path, help="file to which each measurement is added as a line of JSON")
    parser.add_argument("--measure", choices=list(SHARINGS), help="measure one mode in this process and print it as JSON")
    args = parser.parse_args(argv)
    if args.measure:
        run = configure(args.model, args.measure, args.batch_size, args.dtype)
        print(json.dumps({"model": args.model, "mode": args.measure, **measure(run, args.steps)}))
        return 0
    modes = args.modes.split(",")
    if not set(modes) <= set(SHARINGS):
        parser.error(f"--modes is {args.modes}; choose from {','.join(SHARINGS)}")
    lines = []
    for mode in modes * args.rounds:
        command = [sys.executable, "-m", "sage_jax.benchmark.train", *argv, f"--measure={mode}"]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if child.returncode:  # out of memory, say: the other modes are still worth knowing
            print(f"{mode} failed with exit code {child.returncode}", file=sys.stderr)
            continue
        line = json.loads(child.stdout.splitlines()[-1])
        lines.append(line)
        print(f"{mode}: {statistics.median(line['step_seconds']):.3f} s a step", file=sys.stderr)
        if args.out:
            with args.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
    if lines:
        facts = ("model", "batch_size", "num_events", "dtype", "device", "processor", "cores", "python", "jax", "jaxlib")
        print(", ".join(f"{fact.replace('_', ' ')} {lines[0][fact]}" for fact in facts) + "\n\n" + table(lines))
    return 0 if lines else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
