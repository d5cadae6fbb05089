"""What a run tells of itself: each step checked, timed, logged and shown."""

import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping

import jax

from sage_jax.data.rows import Tally
from sage_jax.errors import UserError
from sage_jax.training.config import RunConfig
from sage_jax.training.hosts import is_first
from sage_jax.training.metrics import MetricsLog
from sage_jax.training.optimizer import make_schedule
from sage_jax.training.progress import ProgressReport, Throughput
from sage_jax.training.tensorboard import EventFile

METRICS_FILE = "metrics.jsonl"
MUCH_PADDING = 0.1  # of what is read, from which on packing is worth a word


class Diverged(UserError):
    """The loss, the gradient or the params are no longer finite, or the loss has leapt."""


class Silence:
    """Has every method, and none does anything."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


class Recorder:
    """Writes the metrics of `run` from `step` on to `workdir`/metrics.jsonl, for TensorBoard if wanted, and shows them."""

    def __init__(self, workdir: str | os.PathLike, run: RunConfig, step: int):
        self._workdir = pathlib.Path(workdir)
        self._run = run.train
        # Where a crop has more steps than events there is room to spare in any case, and short pieces are not its cause.
        self._may_pack = not run.data.pack and run.representation.name == "events" and run.model.form != "delay"
        self._schedule = make_schedule(run.optimizer, run.train.steps)
        self._throughput = Throughput()
        # Of many hosts the first one writes and tells.
        self._log = MetricsLog(self._workdir / METRICS_FILE, step) if is_first() else Silence()
        self._events: EventFile | None = None
        self._report = ProgressReport(run.train.steps, step) if is_first() else Silence()
        self._train_text = self._valid_text = ""
        self._skipped = 0  # in a row

    def __enter__(self) -> "Recorder":
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
        """Leaves out of the timing what was done since the last step."""
        self._throughput.resume()

    def start(self, step: int, params: int, compile_seconds: float, remarks: Iterable[str] = ()) -> None:
        """Before the first step of this call; `remarks` are for the user alone."""
        count, device = jax.device_count(), jax.devices()[0].device_kind
        device = f"{count} x {device}" if count > 1 else device
        for remark in remarks:
            self._report.say(remark)
        if self._run.tensorboard and is_first():
            self._events = EventFile(self._workdir, step)
        self._log.write("start", step, params=params, compile_seconds=compile_seconds, device=device)
        self._report.say(f"{params:,} parameters on {device}; compiled in {compile_seconds:.1f} s")
        self.resume()

    def train(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """The metrics of the update that led to `step`; waits for them. Raises Diverged where it was bad, or too many were."""
        metrics = jax.device_get(metrics)
        values = {name: float(metrics[name]) for name in ("loss", *metrics)}
        bad = values.pop("bad")
        self._throughput.add(values.pop("notes"), values.pop("tokens"))
        if bad and self._run.bad_steps == "skip":
            self._skip(step, values)
            return
        self._skipped = 0
        if bad:
            self._stop(step, values, "")
        if step % self._run.log_every == 0 or step == self._run.steps:
            values |= {"learning_rate": float(self._schedule(step - 1)), **self._throughput.read()}
            self._write("train", step, values)
            rates = (f"{values[f'{unit}_per_second']:,.0f} {unit}/s" for unit in ("notes", "tokens"))
            self._train_text = "  ".join([f"loss {values['loss']:.3f}", *rates])
        self._show(step)

    def _skip(self, step: int, values: dict[str, float]) -> None:
        """Tells of a step that was not taken, which has no line of its own kind: its values may not be numbers."""
        self._skipped += 1
        told = {name: values[name] if math.isfinite(values[name]) else str(values[name]) for name in ("loss", "grad_norm")}
        self._log.write("skipped", step, **told)
        self._report.say(f"step {step} is skipped: loss {values['loss']:.3f}, gradient {values['grad_norm']:.3f}")
        if self._skipped >= self._run.max_skipped:
            self._stop(step, values, f", the last of {self._skipped} that were skipped")

    def _stop(self, step: int, values: dict[str, float], remark: str) -> None:
        worst = next((name for name, value in values.items() if not math.isfinite(value)), "loss")
        leap = "" if not math.isfinite(values[worst]) else f", above {self._run.spike:g} times the recent ones,"
        raise Diverged(
            f"training stopped: {worst} is {values[worst]}{leap} at step {step}{remark}; earlier checkpoints in {self._workdir} "
            "are kept: use a lower config.optimizer.learning_rate in another --workdir, or config.train.bad_steps = skip"
        )

    def valid(self, step: int, losses: dict[str, float]) -> None:
        """Nats per note on the validation split."""
        self._write("valid", step, losses)
        self._valid_text = f"  valid {losses['loss']:.3f}"
        self._show(step)

    def preview(self, step: int, pictures: Iterable[bytes]) -> None:
        """Piano rolls (PNGs) of what the model of `step` writes, for TensorBoard alone."""
        if self._events:
            self._events.pictures("continuation", step, pictures)

    def crops(self, step: int, tally: Tally) -> None:
        """How full this call's rows were, and what had no room in them."""
        if not tally.room:
            return
        steps, cut, padding = tally.steps, tally.cut, 1 - (tally.steps - tally.cut) / tally.room
        self._log.write("crops", step, steps=steps, cut=cut, room=tally.room)
        if cut:
            share = f"{cut:,} of the {steps:,} steps that crops had ({cut / steps:.2%}) had no room and were cut off"
            self._report.say(f"{share}; config.representation.steps_per_event gives more")
        if padding > MUCH_PADDING and self._may_pack:
            self._report.say(f"{padding:.0%} of what was read was padding; config.data.pack puts short pieces into one row")

    def end(self, step: int) -> None:
        """After the last step of this call."""
        reached = f"step {step} of {self._run.steps}  {self._train_text}{self._valid_text}".rstrip()
        way_on = "" if step >= self._run.steps else "; the same command goes on from here"
        self._report.say(f"{reached}; checkpoints and metrics are in {self._workdir}{way_on}")

    def _write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        self._log.write(kind, step, **values)
        if self._events:
            self._events.scalars(kind, step, values)

    def _show(self, step: int) -> None:
        self._report.update(step, self._train_text + self._valid_text)
