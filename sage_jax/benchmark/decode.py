"""Our decoder as a system of the benchmark: one model, one batch size, one context length.

Weights are random unless the job names a workdir; they do not affect speed. Prompts are the beginnings of pieces of the
embedded corpus. An event step samples the tokens of one event under the grammar's masks, with nucleus sampling. The measurement
is of the steady state: the cache has its final size from the start, and prompts are not read again.
"""

import dataclasses
import os
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.benchmark.memory import peak_megabytes
from sage_jax.benchmark.roofline import event_step_cost, last_level_cache, prefill_operations
from sage_jax.benchmark.worker import DecodingRun, serve
from sage_jax.config import RunConfig
from sage_jax.corpus.sources import list_corpus
from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.engine import Engine, stage_chunk_of
from sage_jax.decoding.grammars.mmt import MmtGrammar, MmtState
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.state import Controls
from sage_jax.environment import describe
from sage_jax.errors import UserError
from sage_jax.models.config import ModelConfig
from sage_jax.models.registry import build_model
from sage_jax.music.midi import BadMidi, read_midi
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.mmt import Mmt
from sage_jax.tokenizers.note_events import ONSET, PAD, NoteEvents
from sage_jax.training.checkpoint import load_for_sampling

LONG_PREFILL = 2.0  # seconds; a longer prefill is measured once, and later runs restore its result
SAMPLING = SamplingConfig(temperature=1.0, top_p=0.98)


class Decoder:
    """Draws `events` events per run for each of `batch` rows; the last event fills the context of `context_events` events.

    job: batch, context_events, events, seed, dtype, and the model: workdir (a trained one), sections (of a run, with merges_in,
      the folder of its learned merges) or model (fields of ModelConfig). Without `prefill` the cache holds noise instead of a
      prompt, for contexts that would take minutes to prefill. Raises UserError if no piece of the embedded corpus fills the
      context.
    """

    def __init__(self, job: dict[str, Any]):
        self._batch, self._context, self._events = (job[name] for name in ("batch", "context_events", "events"))
        self._tokenizer, config, params = _model(job)
        # One capacity, of which the context fills all but the last slot.
        context = self._context + 1
        self.engine = Engine(
            config,
            params,
            self._tokenizer,
            context=context,
            rows=self._batch,
            first_capacity=context,
            stage_chunk=stage_chunk_of(config),
        )
        del params
        if isinstance(self._tokenizer, Mmt):
            self.engine.decoder.grammar = CappedBeats(self._tokenizer)
        self._seed, self._has_prefill = job["seed"], job["prefill"]
        self._prefill_seconds: float | None = None
        self._lag = self.engine.decoder.lag
        self._start = self._context - self._events - self._lag  # events of a prompt
        length = self._start if self._has_prefill else 1
        self._prompts, seconds_per_note = prompts(self._tokenizer, self._batch, length)
        if not self._has_prefill:
            self._fill_with_noise()
        self.run()  # compiles
        self._prefill_seconds = None  # not that one: other systems are built at the same time
        step_bytes, step_operations = event_step_cost(config, self._batch, self._context)
        self.metadata = {
            "measures": "prefill, then events one by one from a compiled event step, then the same number in one compiled loop",
            "model": config.name,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self.engine.params)),
            "cache_bytes": self.engine.state.cache.num_bytes,
            "compile_seconds": self.engine.compile_seconds,
            "tokens_per_note": config.num_attributes,
            "seconds_per_note": seconds_per_note,
            "step_bytes": step_bytes,
            "step_operations": step_operations,
            "last_level_cache_bytes": last_level_cache(),
            "prefill_operations": prefill_operations(config, self._batch, self._context - self._events),
            "versions": describe(),
        }

    def run(self) -> dict[str, Any]:
        """The fields of a DecodingRun. Raises RuntimeError if a row drew another number of events."""
        if self._has_prefill and (self._prefill_seconds is None or self._prefill_seconds < LONG_PREFILL):
            self._prefill()
        else:
            self.restore()
        seconds = []
        for _ in range(self._events):
            start = time.perf_counter()
            self.decode(1)
            seconds.append(time.perf_counter() - start)
        self.drawn()
        self.restore()
        start = time.perf_counter()
        self.decode(self._events)
        loop_seconds = time.perf_counter() - start
        drawn = self.drawn()
        return dataclasses.asdict(
            DecodingRun(
                seconds=seconds,
                events_drawn=drawn.shape[1],
                notes_drawn=int(self._tokenizer.num_notes(drawn).sum()),
                prefill_seconds=self._prefill_seconds,
                loop_seconds=loop_seconds,
                peak_megabytes=peak_megabytes(),
            )
        )

    def decode(self, steps: int) -> None:
        """Event steps of all rows. The host gets what the last one completed, as a player would."""
        np.array(self.engine.decode(steps))

    def drawn(self) -> np.ndarray:
        """The events after the prompt, int16 [B, events, A]. Raises RuntimeError if a row has fewer or is done."""
        lengths, done = self.engine.status()
        counts = lengths - self._lag - self._start
        if (counts != self._events).any() or done.any():
            raise RuntimeError(f"a row is done or drew {counts.min()} events instead of {self._events}")
        whole = [self.engine.events(row, self._start + self._events) for row in range(self._batch)]
        drawn = np.stack(whole)[:, self._start :]
        if (drawn[..., ONSET] == PAD).any():
            raise RuntimeError(f"a row drew fewer than {self._events} events")
        return drawn

    def restore(self) -> None:
        """Goes back to the end of the prompt without a prefill. The same events are then drawn again."""
        for row, prompt in enumerate(self._prompts):
            self.engine.edit(row, self._start, self._whole(prompt), self._controls(row))
        self._settle(1)

    def _prefill(self) -> None:
        self.engine.reset()
        jax.block_until_ready(self.engine.state)
        compile_seconds, start = self.engine.compile_seconds, time.perf_counter()
        for first in range(0, self._batch, self.engine.staging_rows):
            rows = range(first, min(first + self.engine.staging_rows, self._batch))
            for place, row in enumerate(rows):
                self.engine.stage(self._prompts[row], self._controls(row), place=place)
                begun = self.engine.begin_staged(self._start, place)
            for _ in range(begun, self._start, self.engine.stage_chunk):
                self.engine.prefill_staged()
            for place, row in enumerate(rows):
                self.engine.insert_staged(row, self._start, place)
        jax.block_until_ready(self.engine.state)
        self._prefill_seconds = time.perf_counter() - start - (self.engine.compile_seconds - compile_seconds)
        self._settle(0)

    def _settle(self, steps: int) -> None:
        """Steps that complete no new event: after a rollback one that reads the last event, and those of the delay pattern."""
        self.decode(steps + self._lag)

    def _controls(self, row: int) -> Controls:
        key = jax.random.key_data(jax.random.fold_in(jax.random.key(self._seed), row))
        most = self._start + self._events + self._lag
        tracks = self._tokenizer.grid.tracks_per_program
        return Controls.of(np.array(key), SAMPLING, Limits(allow_eos=False), max_length=most, tracks_per_program=tracks)

    def _whole(self, prompt: np.ndarray) -> np.ndarray:
        """The prompt, whose last event repeats where the cache has noise instead of a prompt."""
        return np.pad(prompt, ((0, self._start - len(prompt)), (0, 0)), mode="edge")

    def _fill_with_noise(self) -> None:
        for row, prompt in enumerate(self._prompts):
            self.engine.edit(row, 0, self._whole(prompt), self._controls(row))
        state, key = self.engine.state, jax.random.key(self._seed)
        noise = lambda buffer: 0.1 * jax.random.normal(key, buffer.shape, buffer.dtype)
        length = jnp.full(self._batch, self._start, jnp.int32)
        cache = state.cache.replace(buffers=jax.tree.map(noise, state.cache.buffers), length=length)
        self.engine.state = state.replace(cache=cache)


class CappedBeats(MmtGrammar):
    """MMT's grammar, with the beat of the last note capped at half of all beats.

    Beats count from the beginning of a piece and never decrease. A model with random weights draws them uniformly from the
    remaining ones. After some 20 notes no later beat is left, and the grammar would end the row.
    """

    def __init__(self, tokenizer: Mmt):
        super().__init__(tokenizer)
        self._max_beat = tokenizer.max_beats // 2

    def advance(self, state: MmtState, step: jax.Array) -> MmtState:
        state = super().advance(state, step)
        return state.replace(beat=jnp.minimum(state.beat, self._max_beat))


def prompts(tokenizer: Tokenizer, batch: int, length: int) -> tuple[list[np.ndarray], float]:
    """The first `length` events of `batch` pieces of the embedded corpus, and the mean seconds per note of these pieces.

    The largest files come first. Pieces that are too short are skipped; the others repeat if there are too few. Prompts of MMT
    leave a quarter of all beats free. Raises UserError if no piece is long enough.
    """
    if isinstance(tokenizer, Mmt):
        tokenizer = dataclasses.replace(tokenizer, max_beats=max(64, tokenizer.max_beats * 3 // 4))
    paths = sorted((path for _, path in list_corpus("embedded")), key=lambda path: (-os.path.getsize(path), path))
    rows, seconds, notes = [], 0.0, 0
    for path in paths:
        if len(rows) == batch:
            break
        try:
            piece = tokenizer.quantize(read_midi(path, tokenizer.grid.ticks_per_quarter))
        except BadMidi:
            continue
        events = tokenizer.encode(piece)[:-1]
        if len(events) >= length:
            rows.append(events[:length])
            seconds += float(piece.seconds(piece.end))
            notes += len(piece.notes)
    if not rows:
        raise UserError(f"no piece of the embedded corpus has {length} events; choose a shorter context")
    return [rows[row % len(rows)] for row in range(batch)], seconds / notes


def _model(job: dict[str, Any]) -> tuple[Tokenizer, ModelConfig, Any]:
    """The tokenizer, config and parameters of the job's model."""
    if job.get("workdir"):
        params, run, _, tokenizer = load_for_sampling(job["workdir"])
        return tokenizer, dataclasses.replace(run.model, dtype=job["dtype"]), params
    if "sections" in job:
        run = RunConfig.from_dict(job["sections"])
        tokenizer = run.representation.learn(run.tokenizer, (), pathlib.Path(job["merges_in"]))
        config = dataclasses.replace(run.model, dtype=job["dtype"])
    else:
        tokenizer = NoteEvents()
        config = ModelConfig(vocab_sizes=tokenizer.vocab_sizes, dtype=job["dtype"], **job["model"])
    one_event = jnp.zeros((1, 1, config.num_attributes), jnp.int32)
    return tokenizer, config, jax.jit(build_model(config).init)(jax.random.key(job["seed"]), one_event)["params"]


if __name__ == "__main__":
    serve(Decoder)
