"""Logging of a training run: checks, times, writes and shows the metrics of each step."""

import math
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sage_jax.config import RunConfig
from sage_jax.data.rows import PackingStats
from sage_jax.errors import UserError
from sage_jax.programs import stored
from sage_jax.training.hosts import is_primary
from sage_jax.training.metrics import METRICS_FILE, MetricsLog
from sage_jax.training.optimizer import make_schedule
from sage_jax.training.tensorboard import EventFile

MUCH_PADDING = 0.1  # share of padding above which the log recommends packing
SECONDS_BETWEEN_LINES = 10.0  # without a terminal


class Diverged(UserError):
    """The loss, the gradient or the parameters are not finite, or the loss spiked."""


class NullLogger:
    """Accepts every method call and ignores it."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


class ProgressReport:
    """Shows the progress of a run of `total` steps: a bar on a terminal, elsewhere a line every few seconds."""

    def __init__(self, total: int, step: int, console: Console | None = None):
        self._console = console or Console()
        columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("", total=total, completed=step)
        self._total = total
        self._last_line = -float("inf")

    def start(self) -> None:
        self._bar.start()

    def stop(self) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """Prints `line` above the bar."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def update(self, step: int, text: str) -> None:
        self._bar.update(self._task, completed=step, description=text)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self.say(f"step {step}/{self._total}  {text}")


class Throughput:
    """Totals of seconds, notes, tokens and steps in training; the time between `add` and `resume` is excluded."""

    def __init__(self):
        self._totals = self._read = np.zeros(4)
        self.resume()

    @property
    def seconds(self) -> float:
        return float(self._totals[0])

    def resume(self) -> None:
        self._since = time.perf_counter()

    def add(self, notes: float, tokens: float) -> None:
        """Counts a step that ends now."""
        elapsed = time.perf_counter() - self._since
        self._totals = self._totals + np.array([elapsed, notes, tokens, 1])
        self.resume()

    def read(self) -> dict[str, float]:
        """Rates since the last call."""
        seconds, notes, tokens, steps = self._totals - self._read
        self._read = self._totals
        rates = {"notes_per_second": notes / seconds, "tokens_per_second": tokens / seconds}
        return rates | {"notes_per_step": notes / steps}


class MetricLogger:
    """Logs the metrics of `run` from `step` on: to metrics.jsonl in `workdir`, the console and optionally TensorBoard.

    Only the primary host writes and prints.
    """

    def __init__(self, workdir: str | os.PathLike, run: RunConfig, step: int):
        self._workdir = pathlib.Path(workdir)
        self._run = run.train
        # With more than one step per event rows have spare capacity in any case, and packing would not help.
        self._may_pack = not run.data.pack and run.representation.name == "events" and run.model.architecture != "delay"
        schedule = jax.jit(make_schedule(run.optimizer, run.train.steps))
        self._schedule = stored(schedule, key=(run.optimizer, run.train.steps))
        self._throughput = Throughput()
        self._log = MetricsLog(self._workdir / METRICS_FILE, step) if is_primary() else NullLogger()
        self._events: EventFile | None = None
        self._report = ProgressReport(run.train.steps, step) if is_primary() else NullLogger()
        self._train_text = self._valid_text = ""
        self._num_skipped = 0  # consecutive

    def __enter__(self) -> "MetricLogger":
        self._report.start()
        return self

    def __exit__(self, *_) -> None:
        self._report.stop()
        self._log.close()
        if self._events:
            self._events.close()

    @property
    def seconds(self) -> float:
        """Seconds spent in training steps."""
        return self._throughput.seconds

    @property
    def out_of_time(self) -> bool:
        return 0 < self._run.max_minutes * 60 <= self.seconds

    def resume(self) -> None:
        """Excludes the time since the last step from the timing."""
        self._throughput.resume()

    def start(self, step: int, num_params: int, compile_seconds: float, remarks: Iterable[str] = ()) -> None:
        """Logs the start of this call, before its first step; `remarks` are only printed."""
        count, device = jax.device_count(), jax.devices()[0].device_kind
        device = f"{count} x {device}" if count > 1 else device
        for remark in remarks:
            self._report.say(remark)
        if self._run.tensorboard and is_primary():
            self._events = EventFile(self._workdir, step)
        self._log.write("start", step, params=num_params, compile_seconds=compile_seconds, device=device)
        self._report.say(f"{num_params:,} parameters on {device}; compiled in {compile_seconds:.1f} s")
        self.resume()

    def train(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Logs the metrics of the update that led to `step`, after waiting for them.

        Raises Diverged at a bad step, or at the last of `max_skipped` skipped steps.
        """
        metrics = jax.device_get(metrics)
        values = {name: float(metrics[name]) for name in ("loss", *metrics)}
        bad = values.pop("bad")
        self._throughput.add(values.pop("notes"), values.pop("tokens"))
        if bad and self._run.on_bad_step == "skip":
            self._skip(step, values)
            return
        self._num_skipped = 0
        if bad:
            self._stop(step, values, "")
        if step % self._run.log_every == 0 or step == self._run.steps:
            values |= {"learning_rate": float(np.asarray(self._schedule(np.int32(step - 1)))), **self._throughput.read()}
            self._write("train", step, values)
            rates = (f"{values[f'{unit}_per_second']:,.0f} {unit}/s" for unit in ("notes", "tokens"))
            self._train_text = "  ".join([f"loss {values['loss']:.3f}", *rates])
        self._show(step)

    def _skip(self, step: int, values: dict[str, float]) -> None:
        """Logs a skipped step as a line of its own kind; values that are not finite are written as strings."""
        self._num_skipped += 1
        logged = {name: values[name] if math.isfinite(values[name]) else str(values[name]) for name in ("loss", "grad_norm")}
        self._log.write("skipped", step, **logged)
        self._report.say(f"skipped step {step}: loss {values['loss']:.3f}, gradient norm {values['grad_norm']:.3f}")
        if self._num_skipped >= self._run.max_skipped:
            self._stop(step, values, f", after {self._num_skipped} skipped steps in a row")

    def _stop(self, step: int, values: dict[str, float], remark: str) -> None:
        worst = next((name for name, value in values.items() if not math.isfinite(value)), "loss")
        spike = "" if not math.isfinite(values[worst]) else f", above {self._run.loss_spike_factor:g} times the recent average,"
        raise Diverged(
            f"training stopped: {worst} is {values[worst]}{spike} at step {step}{remark}; earlier checkpoints in "
            f"{self._workdir} are kept: use a lower config.optimizer.learning_rate in another --workdir, "
            "or config.train.on_bad_step = skip"
        )

    def valid(self, step: int, losses: dict[str, float]) -> None:
        """Logs the losses on the validation split, in nats per note."""
        self._write("valid", step, losses)
        self._valid_text = f"  valid {losses['loss']:.3f}"
        self._show(step)

    def samples(self, step: int, images: Iterable[bytes]) -> None:
        """Logs piano rolls (PNGs) of continuations by the model of `step`, to TensorBoard alone."""
        if self._events:
            self._events.images("continuation", step, images)

    def packing(self, step: int, stats: PackingStats) -> None:
        """Logs how full the rows of this call were, and how many steps were cut off."""
        if not stats.capacity:
            return
        steps, cut, padding = stats.steps, stats.cut, 1 - (stats.steps - stats.cut) / stats.capacity
        self._log.write("crops", step, steps=steps, cut=cut, capacity=stats.capacity)
        if cut:
            share = f"{cut:,} of the {steps:,} steps in the crops ({cut / steps:.2%}) did not fit into rows and were cut off"
            self._report.say(f"{share}; a larger config.representation.steps_per_event makes rows longer")
        if padding > MUCH_PADDING and self._may_pack:
            self._report.say(f"{padding:.0%} of the training rows was padding; config.data.pack puts short pieces into a row")

    def end(self, step: int, best_step: int | None = None) -> None:
        """Reports the last step of this call. best_step: the one that the run's patience waited for in vain, if it did."""
        reached = f"step {step} of {self._run.steps}  {self._train_text}{self._valid_text}".rstrip()
        unfinished = "" if step >= self._run.steps else "; the same command continues from here"
        if best_step is not None:
            unfinished = f"; stopped because no evaluation since step {best_step} was better"
        self._report.say(f"{reached}; checkpoints and metrics are in {self._workdir}{unfinished}")

    def _write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        self._log.write(kind, step, **values)
        if self._events:
            self._events.scalars(kind, step, values)

    def _show(self, step: int) -> None:
        self._report.update(step, self._train_text + self._valid_text)
