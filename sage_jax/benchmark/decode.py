"""Our own decoder as a subject of the benchmark: one model, one batch, one context.

Weights are random where the job names no workdir: speed does not depend on them. Prompts are the beginnings of pieces of
the embedded corpus. A note is one event step, five tokens, drawn with the grammar's masks and nucleus sampling.
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
from sage_jax.benchmark.roofline import event_step_cost, prefill_operations
from sage_jax.benchmark.worker import serve
from sage_jax.decoding.generate import DecodeState, Generator
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.environment import describe
from sage_jax.models.config import ModelConfig
from sage_jax.models.forms import make_model
from sage_jax.music.corpus import list_corpus
from sage_jax.music.events import NoteEvents
from sage_jax.music.midi import BadMidi, read_midi
from sage_jax.training.checkpoint import load_for_sampling
from sage_jax.training.config import RunConfig

LONG_PREFILL = 2.0  # seconds; one that takes longer is measured once, and later runs go back to where it ended
SAMPLING = SamplingConfig(temperature=1.0, top_p=0.98)


class Decoder:
    """Draws `events` notes for each of `batch` rows, the last of which fills a context of `context_events` events.

    job: batch, context_events, events, seed, dtype, and which model: workdir (of a trained one), sections (of a run, and
    merges_in, the folder of what its representation has learned), or model (fields of ModelConfig). prefill: where it is false
    the context is noise that nobody read, for contexts that would take minutes to read.
    """

    def __init__(self, job: dict[str, Any]):
        self._batch, self._context, self._events = (job[name] for name in ("batch", "context_events", "events"))
        tokenizer, config, params = _model(job)
        self._generator = Generator(config, params, tokenizer)
        del params
        self._limits = self._generator.limits(self._batch, may_end=False)
        self._knobs = SAMPLING.knobs
        self._seed, self._reads = job["seed"], job["prefill"]
        self._prompts, seconds_per_note = prompts(tokenizer, self._batch, self._context - self._events)
        self._state, self._prefill_seconds = None, None
        if not self._reads:
            self._state = self._noise()
        self.run()  # compiles
        cost = event_step_cost(config, self._batch, self._context)
        self.about = {
            "measures": "prefill, then notes one by one from a compiled event step, then as many in one compiled loop",
            "model": config.name,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self._generator.params)),
            "cache_bytes": self._state.cache.num_bytes,
            "compile_seconds": self._generator.compile_seconds,
            "tokens_per_note": config.num_attributes,
            "seconds_per_note": seconds_per_note,
            "step_bytes": cost[0],
            "step_operations": cost[1],
            "prefill_operations": prefill_operations(config, self._batch, self._context - self._events),
            "versions": describe(),
        }

    def run(self) -> dict[str, Any]:
        """prefill_seconds, seconds note by note, and loop_seconds, of all in one call."""
        if self._reads and (self._prefill_seconds is None or self._prefill_seconds < LONG_PREFILL):
            compiled, began = self._generator.compile_seconds, time.perf_counter()
            self._state = self._start()
            self._prefill_seconds = time.perf_counter() - began - (self._generator.compile_seconds - compiled)
        else:
            self._rewind()
        seconds = []
        for note in range(1, self._events + 1):
            began = time.perf_counter()
            self._advance(note)
            seconds.append(time.perf_counter() - began)
        self._rewind()
        began = time.perf_counter()
        self._advance(self._events)
        loop_seconds = time.perf_counter() - began
        return {
            "prefill_seconds": self._prefill_seconds,
            "seconds": seconds,
            "loop_seconds": loop_seconds,
            "peak_megabytes": peak_megabytes(),
        }

    def _start(self) -> DecodeState:
        lag = self._generator.lag
        width = self._context - self._events - lag
        prompts = [prompt[-width:] for prompt in self._prompts]
        state = self._generator.start(prompts, self._context, width=width, seed=self._seed)
        if lag:  # the prompt's last events, which the delay pattern reads step by step
            state = self._generator.advance(state, 0, self._knobs, self._limits)
        return jax.block_until_ready(state)

    def _advance(self, note: int) -> None:
        self._state = self._generator.advance(self._state, note, self._knobs, self._limits)
        jax.block_until_ready(self._state)

    def _rewind(self) -> None:
        """Back to the end of the prompt: what was drawn since is overwritten, and nothing is read again."""
        cache = self._state.cache.replace(length=jnp.int32(self._context - self._events))
        self._state = jax.block_until_ready(self._state.replace(cache=cache, step=jnp.int32(0)))

    def _noise(self) -> DecodeState:
        state = self._generator.start([prompt[:1] for prompt in self._prompts], self._context, width=1, seed=self._seed)
        key = jax.random.key(self._seed)
        noise = lambda buffer: 0.1 * jax.random.normal(key, buffer.shape, buffer.dtype)
        return state.replace(cache=state.cache.replace(layers=jax.tree.map(noise, state.cache.layers)))


def prompts(tokenizer: NoteEvents, batch: int, length: int) -> tuple[list[np.ndarray], float]:
    """The first `length` events of `batch` pieces of the embedded corpus, and how many seconds a note of them lasts on average.

    The longest files come first; a piece that is too short goes round again, as do the pieces where there are too few.
    """
    paths = sorted((path for _, path in list_corpus("embedded")), key=lambda path: (-os.path.getsize(path), path))
    rows, seconds, notes = [], 0.0, 0
    for path in paths[:batch]:
        try:
            piece = tokenizer.quantize(read_midi(path, tokenizer.grid.ticks_per_quarter))
        except BadMidi:
            continue
        events = tokenizer.encode(piece)[:-1]
        rows.append(np.resize(events, (length, events.shape[1])))
        seconds += float(piece.seconds(piece.end))
        notes += len(piece.notes)
    return [rows[row % len(rows)] for row in range(batch)], seconds / notes


def _model(job: dict[str, Any]):
    if job.get("workdir"):
        params, run, _, representation = load_for_sampling(job["workdir"])
        return representation, dataclasses.replace(run.model, dtype=job["dtype"]), params
    if "sections" in job:
        run = RunConfig.from_dict(job["sections"])
        tokenizer = run.representation.learn(run.tokenizer, (), pathlib.Path(job["merges_in"]))
        config = dataclasses.replace(run.model, dtype=job["dtype"])
    else:
        tokenizer = NoteEvents()
        config = ModelConfig(vocab_sizes=tokenizer.vocab_sizes, dtype=job["dtype"], **job["model"])
    one_event = jnp.zeros((1, 1, config.num_attributes), jnp.int32)
    return tokenizer, config, jax.jit(make_model(config).init)(jax.random.key(job["seed"]), one_event)["params"]


if __name__ == "__main__":
    serve(Decoder)
