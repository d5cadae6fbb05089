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
from sage_jax.decoding.generate import DecodeState, Generator
from sage_jax.decoding.grammars.mmt import MmtGrammar, MmtState
from sage_jax.decoding.sampling import SamplingConfig
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
        self._generator = Generator(config, params, self._tokenizer)
        del params
        if isinstance(self._tokenizer, Mmt):
            self._generator.grammar = CappedBeats(self._tokenizer)
        self._constraints = self._generator.constraints(self._batch, allow_eos=False)
        self._sampling_params = SAMPLING.sampling_params
        self._seed, self._has_prefill = job["seed"], job["prefill"]
        self._prefill_seconds: float | None = None
        length = self._context - self._events if self._has_prefill else 1 + self._generator.delay
        self._prompts, seconds_per_note = prompts(self._tokenizer, self._batch, length)
        if not self._has_prefill:
            self._save(self._noise())
        self.run()  # compiles
        step_bytes, step_operations = event_step_cost(config, self._batch, self._context)
        self.metadata = {
            "measures": "prefill, then events one by one from a compiled event step, then the same number in one compiled loop",
            "model": config.name,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self._generator.params)),
            "cache_bytes": self._state.cache.num_bytes,
            "compile_seconds": self._generator.compile_seconds,
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
            compile_seconds, start = self._generator.compile_seconds, time.perf_counter()
            state = self._prefill()
            self._prefill_seconds = time.perf_counter() - start - (self._generator.compile_seconds - compile_seconds)
            self._save(state)
        else:
            self._restore()
        seconds = []
        for event in range(1, self._events + 1):
            start = time.perf_counter()
            self._decode(event)
            seconds.append(time.perf_counter() - start)
        self.drawn()
        self._restore()
        start = time.perf_counter()
        self._decode(self._events)
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

    def drawn(self) -> np.ndarray:
        """The events after the prompt, int16 [B, events, A]. Raises RuntimeError if a row has fewer or is done."""
        events = np.asarray(self._state.events)
        counts = (events[..., ONSET] != PAD).sum(axis=1)
        if (counts != self._events).any() or np.asarray(self._state.finished).any():
            raise RuntimeError(f"a row is done or drew {counts.min()} events instead of {self._events}")
        return events[:, : self._events]

    def _prefill(self) -> DecodeState:
        delay = self._generator.delay
        width = self._context - self._events - delay
        prompts = [prompt[-width:] for prompt in self._prompts]
        state = self._generator.prefill(prompts, self._context, width=width, seed=self._seed)
        if delay:  # the delay pattern replays the last events of the prompt step by step
            state = self._generator.decode(state, 0, self._sampling_params, self._constraints)
        return jax.block_until_ready(state)

    def _decode(self, event: int) -> None:
        self._state = self._generator.decode(self._state, event, self._sampling_params, self._constraints)
        jax.block_until_ready(self._state)

    def _save(self, state: DecodeState) -> None:
        """Continues from `state`, the end of the prompt, and saves a copy for _restore."""
        # On the host, because `state` is donated to the first step. Keys and values are overwritten in place: no copy.
        self._saved = jax.tree.map(np.array, state.replace(cache=state.cache.replace(layers=())))
        self._state = state

    def _restore(self) -> None:
        """Goes back to the end of the prompt without a prefill. The same events are then drawn again."""
        start = jax.tree.map(jnp.asarray, self._saved)
        cache = start.cache.replace(layers=self._state.cache.layers)
        self._state = jax.block_until_ready(start.replace(cache=cache))

    def _noise(self) -> DecodeState:
        width = 1 + self._generator.delay
        state = self._generator.prefill(self._prompts, self._context, width=width, seed=self._seed)
        key = jax.random.key(self._seed)
        noise = lambda buffer: 0.1 * jax.random.normal(key, buffer.shape, buffer.dtype)
        length = jnp.int32(self._context - self._events)
        cache = state.cache.replace(layers=jax.tree.map(noise, state.cache.layers), length=length)
        return state.replace(cache=cache, step=jnp.int32(0))


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
