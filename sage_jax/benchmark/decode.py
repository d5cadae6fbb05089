"""Our own decoder as a subject of the benchmark: one model, one batch, one context.

Weights are random where the job names no workdir: speed does not depend on them. Prompts are the beginnings of pieces of
the embedded corpus. An event step draws an event, five tokens, under the grammar's masks and with nucleus sampling. What is
timed is the steady state: the cache has its final size from the beginning, and the prompt is not read again.
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
from sage_jax.decoding.generate import DecodeState, Generator
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.environment import describe
from sage_jax.errors import UserError
from sage_jax.models.config import ModelConfig
from sage_jax.models.forms import make_model
from sage_jax.music.corpus import list_corpus
from sage_jax.music.events import ONSET, PAD, NoteEvents
from sage_jax.music.midi import BadMidi, read_midi
from sage_jax.music.mmt import Mmt
from sage_jax.music.representation import Representation
from sage_jax.training.checkpoint import load_for_sampling
from sage_jax.training.config import RunConfig

LONG_PREFILL = 2.0  # seconds; one that takes longer is measured once, and later runs go back to where it ended
SAMPLING = SamplingConfig(temperature=1.0, top_p=0.98)


class Decoder:
    """Draws `events` events for each of `batch` rows, the last of which fills a context of `context_events` events.

    job: batch, context_events, events, seed, dtype, and which model: workdir (of a trained one), sections (of a run, and
    merges_in, the folder of what its representation has learned), or model (fields of ModelConfig). prefill: where it is false
    the context is noise that nobody read, for contexts that would take minutes to read. Raises UserError for a context that
    no piece of the embedded corpus fills.
    """

    def __init__(self, job: dict[str, Any]):
        self._batch, self._context, self._events = (job[name] for name in ("batch", "context_events", "events"))
        self._tokenizer, config, params = _model(job)
        self._generator = Generator(config, params, self._tokenizer)
        del params
        if isinstance(self._tokenizer, Mmt):
            self._generator.grammar = HeldBeats(self._generator.grammar, self._tokenizer)
        self._limits = self._generator.limits(self._batch, may_end=False)
        self._knobs = SAMPLING.knobs
        self._seed, self._reads = job["seed"], job["prefill"]
        length = self._context - self._events if self._reads else 1 + self._generator.lag
        self._prompts, seconds_per_note = prompts(self._tokenizer, self._batch, length)
        self._state, self._end_of_prompt, self._prefill_seconds = None, None, None
        if not self._reads:
            self._begin_at(self._noise())
        self.run()  # compiles
        cost = event_step_cost(config, self._batch, self._context)
        self.about = {
            "measures": "prefill, then events one by one from a compiled event step, then as many in one compiled loop",
            "model": config.name,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self._generator.params)),
            "cache_bytes": self._state.cache.num_bytes,
            "compile_seconds": self._generator.compile_seconds,
            "tokens_per_note": config.num_attributes,
            "seconds_per_note": seconds_per_note,
            "step_bytes": cost[0],
            "step_operations": cost[1],
            "last_level_cache_bytes": last_level_cache(),
            "prefill_operations": prefill_operations(config, self._batch, self._context - self._events),
            "versions": describe(),
        }

    def run(self) -> dict[str, Any]:
        """A DecodingRun. Raises RuntimeError where other events were drawn than those that were wanted."""
        if self._reads and (self._prefill_seconds is None or self._prefill_seconds < LONG_PREFILL):
            compiled, began = self._generator.compile_seconds, time.perf_counter()
            state = self._start()
            self._prefill_seconds = time.perf_counter() - began - (self._generator.compile_seconds - compiled)
            self._begin_at(state)
        else:
            self._rewind()
        seconds = []
        for event in range(1, self._events + 1):
            began = time.perf_counter()
            self._advance(event)
            seconds.append(time.perf_counter() - began)
        self.drawn()
        self._rewind()
        began = time.perf_counter()
        self._advance(self._events)
        loop_seconds = time.perf_counter() - began
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
        """The events since the end of the prompt, int16 [B, events, A]. Raises RuntimeError where a row lacks some of them."""
        events = np.asarray(self._state.events)
        counts = (events[..., ONSET] != PAD).sum(axis=1)
        if (counts != self._events).any() or np.asarray(self._state.finished).any():
            raise RuntimeError(f"a row drew {counts.min()} events, or came to its end, where {self._events} were wanted")
        return events[:, : self._events]

    def _start(self) -> DecodeState:
        lag = self._generator.lag
        width = self._context - self._events - lag
        prompts = [prompt[-width:] for prompt in self._prompts]
        state = self._generator.start(prompts, self._context, width=width, seed=self._seed)
        if lag:  # the prompt's last events, which the delay pattern reads step by step
            state = self._generator.advance(state, 0, self._knobs, self._limits)
        return jax.block_until_ready(state)

    def _advance(self, event: int) -> None:
        self._state = self._generator.advance(self._state, event, self._knobs, self._limits)
        jax.block_until_ready(self._state)

    def _begin_at(self, state: DecodeState) -> None:
        """Goes on from `state`, the end of the prompt, and keeps all of it that a step changes, but for the cache's buffers."""
        # The host has the copy: `state` is donated to the first step. Keys and values are overwritten in their places.
        self._end_of_prompt = jax.tree.map(np.array, state.replace(cache=state.cache.replace(layers=())))
        self._state = state

    def _rewind(self) -> None:
        """Back to the end of the prompt: nothing is read again, and the same events are drawn as before."""
        start = jax.tree.map(jnp.asarray, self._end_of_prompt)
        cache = start.cache.replace(layers=self._state.cache.layers)
        self._state = jax.block_until_ready(start.replace(cache=cache))

    def _noise(self) -> DecodeState:
        width = 1 + self._generator.lag
        state = self._generator.start(self._prompts, self._context, width=width, seed=self._seed)
        key = jax.random.key(self._seed)
        noise = lambda buffer: 0.1 * jax.random.normal(key, buffer.shape, buffer.dtype)
        length = jnp.int32(self._context - self._events)
        cache = state.cache.replace(layers=jax.tree.map(noise, state.cache.layers), length=length)
        return state.replace(cache=cache, step=jnp.int32(0))


class HeldBeats:
    """The grammar of MMT, in which the last note never stands later than at half of all beats.

    Beats count from the beginning of a piece and never go back. A model with random weights draws them evenly from those that
    are left, so that after some 20 notes no later one is possible and the grammar ends the row.
    """

    def __init__(self, grammar: Any, representation: Mmt):
        self._grammar, self._last = grammar, representation.max_beats // 2

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grammar, name)

    def advance(self, state: Any, step: jax.Array) -> Any:
        moved = self._grammar.advance(state, step)
        return moved.replace(beat=jnp.minimum(moved.beat, self._last))


def prompts(tokenizer: Representation, batch: int, length: int) -> tuple[list[np.ndarray], float]:
    """The first `length` events of `batch` pieces of the embedded corpus, and how many seconds a note of them lasts on average.

    The longest files come first; a piece that is too short is left out, and where pieces are too few they come again. Those
    of MMT, whose beats count from the beginning, have a quarter of all beats left. Raises UserError where no piece is long
    enough.
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
