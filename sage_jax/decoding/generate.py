"""Generation with one model: prefill, then a compiled loop of event steps over a preallocated cache that grows."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax import struct
from sage_jax.decoding.delay import delayed_step
from sage_jax.decoding.grammars.note_events import Constraints, Grammar
from sage_jax.decoding.grammars.registry import make_grammar
from sage_jax.decoding.sampling import SamplingConfig, SamplingParams, sample
from sage_jax.models.cache import Cache
from sage_jax.models.config import ModelConfig
from sage_jax.models.registry import build_model, cast_parameters
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.programs import load_or_compile, shapes_of
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.base import Tokenizer

SMALLEST_BUCKET = 64
FIRST_CAPACITY = 256  # events; smaller caches are hardly faster, and each capacity has programs of its own to compile
PREFILL_BATCH = 8  # rows per prefill pass; larger batches need more memory for scores and are not faster


@struct.dataclass
class DecodeState(struct.Struct):
    """Everything that an event step reads and writes. Donated to each call.

    carry: the model's carry, see `Backbone`.
    grammar: the grammar's state.
    keys: uint32 [B, ...], data of each row's PRNG key. An event folds in `step`, so that a row does not depend on its batch.
      Typed keys would make each call slower.
    step: number of generated events; negative while the delay pattern replays the end of the prompt.
    finished: bool [B].
    partial_events: int32 [B, L, A], events of which some attributes are chosen; L = 0 except for the delay pattern.
    events: int16 [B, S, A], the generated events, PAD where there is none yet; S is the capacity of the cache.
    """

    cache: Cache
    carry: Any
    grammar: Any
    keys: jax.Array
    step: jax.Array
    finished: jax.Array
    partial_events: jax.Array
    events: jax.Array


@dataclasses.dataclass(frozen=True)
class GenerationOutput:
    """The result for one batch. Times are in seconds.

    continuations: for each row the events after its prompt, int16 [N, A], with a final EOS if the model ended the piece.
    finished: bool [B], rows that reached EOS or their stop bar. steps: event steps of the batch.
    """

    continuations: list[np.ndarray]
    finished: np.ndarray
    steps: int
    prefill_seconds: float
    decode_seconds: float
    compile_seconds: float


def bucket_length(size: int) -> int:
    """The length that is allocated for `size` events: a power of two, or three quarters of one."""
    length = SMALLEST_BUCKET
    while length < size:
        length *= 2
    return length * 3 // 4 if length > SMALLEST_BUCKET and size <= length * 3 // 4 else length


def cache_capacities(width: int, max_events: int, first: int = FIRST_CAPACITY) -> list[int]:
    """Cache capacities, in events, used in turn to generate `max_events` events after a prompt of `width` events.

    Each is twice the one before. The last one is the bucket of the whole length. Attention thus reads at most twice the events
    that are filled.
    """
    last = bucket_length(width + max_events)
    capacity = max(bucket_length(width + 1), first)
    capacities = []
    while capacity < last:
        capacities.append(capacity)
        capacity *= 2
    return [*capacities, last]


class Generator:
    """Continues prompts with one model.

    Programs are compiled ahead of time, or loaded from disk (programs.py): prefill for each batch size and prompt bucket, the
    loop for each batch size and cache capacity. compilations, compile_seconds: number of programs, and the time spent on them.
    """

    def __init__(self, config: ModelConfig, params, tokenizer: Tokenizer, first_capacity: int = FIRST_CAPACITY):
        self.config = config
        self.tokenizer = tokenizer
        self.set_params(params)
        self.model = build_model(config)
        self.grammar = make_grammar(tokenizer)
        self.compilations, self.compile_seconds = 0, 0.0
        # What the programs depend on besides their arguments and the code.
        self._identity = (config, type(tokenizer), tokenizer.fingerprint)
        empty = Piece.from_notes([], tokenizer.grid.ticks_per_quarter)
        self._eos_event = tokenizer.encode(tokenizer.quantize(empty))[-1:].astype(np.int32)
        # Number of partial events: the delay in steps between an event's first and last attribute.
        self.delay = config.num_attributes - 1 if config.architecture == "delay" else 0
        self._first_capacity = first_capacity
        self._programs = {}

    def set_params(self, params: Any) -> None:
        """Replaces the parameters with others of the same shapes. Compiled programs stay valid."""
        self.params = cast_parameters(self.config, params)

    def generate(
        self,
        prompts: list[np.ndarray],
        *,
        max_events: int,
        first_bar: int | np.ndarray = 0,
        stop_bar: int | np.ndarray | None = None,
        sampling: SamplingConfig = SamplingConfig(),
        seed: int | np.integer | jax.Array = 0,
        stop_at_eos: bool = True,
        programs: list[int] | None = None,
        finished: np.ndarray | None = None,
    ) -> GenerationOutput:
        """Continues each prompt (int [N, A], BOS first, no EOS) by at most `max_events` events.

        first_bar, stop_bar: new events lie in bars [first_bar, stop_bar), counted from the prompt's first bar; one value for
        all rows or one per row. seed: an integer, a JAX key, or a key per row [B]. stop_at_eos: whether the model may end a
        piece. programs: MIDI programs that may be generated (128 for drums); None for all. finished: bool [B], rows to leave
        unchanged.
        """
        compiled, began = self.compile_seconds, time.perf_counter()
        capacities = cache_capacities(bucket_length(max(map(len, prompts))), max_events + self.delay, self._first_capacity)
        state = jax.block_until_ready(self.prefill(prompts, capacities[0], seed=seed, finished=finished))
        prefill_seconds = time.perf_counter() - began - (self.compile_seconds - compiled)

        constraints = self.constraints(len(prompts), first_bar, stop_bar, stop_at_eos, programs)
        compiled_prefill, began = self.compile_seconds, time.perf_counter()
        state = self.decode(state, max_events, sampling.sampling_params, constraints, capacities)
        events = np.asarray(state.events)
        decode_seconds = time.perf_counter() - began - (self.compile_seconds - compiled_prefill)
        continuations = [row[row[:, ev.ONSET] != ev.PAD] for row in events]
        seconds = (prefill_seconds, decode_seconds, self.compile_seconds - compiled)
        return GenerationOutput(continuations, np.asarray(state.finished), int(state.step), *seconds)

    def warmup(self, batch: int, longest_prompt: int, max_events: int, sampling: SamplingConfig = SamplingConfig()) -> float:
        """Compiles each program that `generate` needs for prompts of up to `longest_prompt` events; returns the seconds."""
        compiled = self.compile_seconds
        for width in sorted({bucket_length(length) for length in range(1, longest_prompt + 1)}):
            capacities = cache_capacities(width, max_events + self.delay, self._first_capacity)
            self._prefill_program(batch, width, capacities[0])
            for capacity, larger in zip(capacities, [*capacities[1:], None], strict=True):
                self._decode_program(batch, capacity, sampling.top_k)
                if larger:
                    self._resize_program(batch, capacity, larger)
        return self.compile_seconds - compiled

    def prefill(
        self,
        prompts: list[np.ndarray],
        capacity: int,
        *,
        width: int | None = None,
        seed: int | np.integer | jax.Array = 0,
        finished: np.ndarray | None = None,
    ) -> DecodeState:
        """Reads the prompts into a cache with a capacity of `capacity` events.

        width: length to which prompts are padded on the left; None for their bucket length. Other arguments as in `generate`.
        """
        width = width or bucket_length(max(map(len, prompts)))
        padded = np.zeros((len(prompts), width, self.config.num_attributes), np.int32)
        for row, prompt in zip(padded, prompts, strict=True):
            row[width - len(prompt) :] = prompt
        start = np.array([width - len(prompt) for prompt in prompts], np.int32)
        key = jax.random.key(int(seed)) if isinstance(seed, (int, np.integer)) else seed
        keys = key if key.ndim else jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(prompts)))
        finished = np.zeros(len(prompts), bool) if finished is None else finished
        keys = jax.random.key_data(keys)
        return self._prefill_program(len(prompts), width, capacity)(self.params, padded, start, keys, finished)

    def constraints(
        self,
        batch: int,
        first_bar: int | np.ndarray = 0,
        stop_bar: int | np.ndarray | None = None,
        allow_eos: bool = True,
        programs: list[int] | None = None,
    ) -> Constraints:
        """The constraints of `generate` as arrays."""
        stop_bar = np.iinfo(np.int32).max if stop_bar is None else stop_bar
        first_bars, stop_bars = (np.broadcast_to(np.asarray(bar, np.int32), batch) for bar in (first_bar, stop_bar))
        playable = np.full(DRUMS + 1, programs is None)
        playable[np.array([] if programs is None else programs, np.int64)] = True
        return Constraints(*jax.device_put((first_bars, stop_bars, np.bool_(allow_eos), playable)))

    def decode(
        self,
        state: DecodeState,
        max_events: int,
        sampling_params: SamplingParams,
        constraints: Constraints,
        capacities: list[int] | None = None,
    ) -> DecodeState:
        """Generates until there are `max_events` events or every row is finished. Donates `state`.

        capacities: capacities to which the cache may grow. Without them decoding stops when the cache is full. Splitting a call
        into several does not change the events.
        """
        batch = len(state.finished)
        larger = [capacity for capacity in capacities or () if capacity > state.cache.max_events]
        while True:
            capacity = state.cache.max_events
            program = self._decode_program(batch, capacity, sampling_params.top_k)
            state = program(self.params, state, np.int32(max_events), sampling_params, constraints)
            if not larger or int(state.cache.length) < capacity or int(state.step) >= max_events or state.finished.all():
                return state
            state = self._resize_program(batch, capacity, larger[0])(state)
            del larger[0]

    def _prefill_program(self, batch: int, width: int, capacity: int):
        key = ("prefill", batch, width, capacity)
        prefill = functools.partial(self._prefill, capacity=capacity)
        return self._program(key, prefill, lambda: (self.params, *self._prefill_shapes(batch, width)))

    def _decode_program(self, batch: int, capacity: int, top_k: int):
        def shapes():
            sampling_params = SamplingConfig(top_k=top_k).sampling_params
            return self.params, self._state_shapes(batch, capacity), np.int32(0), sampling_params, self.constraints(batch)

        return self._program(("decode", batch, capacity, top_k), self._decode, shapes, donate=(1,))

    def _resize_program(self, batch: int, capacity: int, larger: int):
        resize = functools.partial(_resize, capacity=larger)
        return self._program(("resize", batch, capacity, larger), resize, lambda: (self._state_shapes(batch, capacity),))

    def _state_shapes(self, batch: int, capacity: int) -> DecodeState:
        prefill = functools.partial(self._prefill, capacity=capacity)
        key = (*self._identity, capacity)
        return shapes_of(prefill, self.params, *self._prefill_shapes(batch, 1 + self.delay), key=key)

    def _program(self, key: tuple, function: Callable, shapes: Callable[[], tuple], donate: tuple[int, ...] = ()):
        """`function` compiled for arguments of the shapes that `shapes` returns; cached by `key`."""
        if key not in self._programs:
            began = time.perf_counter()
            jitted = jax.jit(function, donate_argnums=donate)
            self._programs[key] = load_or_compile(jitted, *shapes(), key=(*self._identity, *key))
            self.compile_seconds += time.perf_counter() - began
            self.compilations += 1
        return self._programs[key]

    def _prefill_shapes(self, batch: int, width: int):
        """Shapes of the prefill program's arguments after the parameters."""
        rows = lambda dtype, *shape: jax.ShapeDtypeStruct((batch, *shape), dtype)
        keys = jax.eval_shape(lambda: jax.random.key_data(jax.random.split(jax.random.key(0), batch)))
        return rows(np.int32, width, self.config.num_attributes), rows(np.int32), keys, rows(bool)

    def _prefill(self, params, prompts, start, keys, finished, *, capacity: int) -> DecodeState:
        B, _, A = prompts.shape
        read = functools.partial(self._read, params, capacity=capacity)
        if B > PREFILL_BATCH and B % PREFILL_BATCH == 0:
            carry, cache = _in_batches(read, PREFILL_BATCH, prompts, start)
        else:
            carry, cache = read(prompts, start)
        complete = prompts.shape[1] - self.delay  # the delay pattern still holds the events after these as partial events
        advance = lambda state, event: (self.grammar.advance(state, event), None)
        grammar, _ = jax.lax.scan(advance, self.grammar.start(B), jnp.moveaxis(prompts[:, :complete], 1, 0))
        events = jnp.full((B, capacity, A), ev.PAD, jnp.int16)
        return DecodeState(cache, carry, grammar, keys, jnp.int32(-self.delay), finished, prompts[:, complete:], events)

    def _read(self, params, prompts, start, *, capacity: int) -> tuple[Any, Cache]:
        """The model's carry after the prompts [B, N, A], and a cache that holds them."""
        cache = Cache.empty(self.config, len(prompts), capacity).replace(start=start)
        return self._apply(params, "prefill", prompts, cache)

    def _decode(
        self, params, state: DecodeState, max_events: jax.Array, sampling_params: SamplingParams, constraints: Constraints
    ) -> DecodeState:
        def unfinished(state: DecodeState) -> jax.Array:
            has_capacity = state.cache.length < state.cache.max_events
            return has_capacity & (state.step < max_events) & ~state.finished.all()

        return jax.lax.while_loop(unfinished, lambda state: self.event_step(params, state, sampling_params, constraints), state)

    def event_step(self, params, state: DecodeState, sampling_params: SamplingParams, constraints: Constraints) -> DecodeState:
        """Samples the next event of every row, attribute by attribute, and reads it into the cache."""
        keys = jax.vmap(jax.random.fold_in, (0, None))(jax.random.wrap_key_data(state.keys), state.step)

        def choose(attribute: int, carry, allowed: jax.Array) -> jax.Array:
            logits = self._apply(params, "next_logits", carry, attribute)
            return sample(jax.vmap(jax.random.fold_in, (0, None))(keys, attribute), logits, allowed, sampling_params)

        if self.delay:
            return self._delayed_step(params, state, choose, constraints)
        carry, cache, event = state.carry, state.cache, []
        for attribute in range(self.config.num_attributes):
            event.append(choose(attribute, carry, self.grammar.allowed(state.grammar, event, constraints)))
            carry, cache = self._apply(params, "decode_step", carry, cache, event[-1], attribute)
        return self._record(state.replace(carry=carry, cache=cache), jnp.stack(event, axis=1), constraints)

    def _delayed_step(self, params, state: DecodeState, choose: Callable, constraints: Constraints) -> DecodeState:
        """As event_step, for the delay pattern: completes the oldest partial event and adds an attribute to each other one."""
        assert isinstance(self.grammar, Grammar), "the delay pattern generates NoteEvents only"

        def choose_or_keep(attribute: int, allowed: jax.Array, current: jax.Array) -> jax.Array:
            is_prompt = state.step + self.delay - attribute < 0
            return jnp.where(is_prompt, current, choose(attribute, state.carry, allowed))

        tokens, events = delayed_step(self.grammar, state.grammar, state.partial_events, constraints, choose_or_keep)
        carry, cache = state.carry, state.cache
        for attribute in range(self.config.num_attributes):
            carry, cache = self._apply(params, "decode_step", carry, cache, tokens[:, attribute], attribute)
        state = state.replace(carry=carry, cache=cache, partial_events=events[:, 1:])
        return self._record(state, events[:, 0], constraints)

    def _record(self, state: DecodeState, event: jax.Array, constraints: Constraints) -> DecodeState:
        """Appends `event` [B, A] to the rows that are not finished, and updates the grammar, `finished` and `step`."""
        is_eos = event[:, :1] == ev.EOS
        grammar = self.grammar.advance(state.grammar, event)
        is_beyond = grammar.bar >= constraints.stop_bar
        event = jnp.where(is_eos, self._eos_event, event)
        recorded = jnp.where((state.finished | is_beyond)[:, None], ev.PAD, event).astype(state.events.dtype)
        position = jnp.maximum(state.step, 0)
        events = jax.lax.dynamic_update_slice(state.events, recorded[:, None, :], (0, position, 0))
        finished = state.finished | is_beyond | is_eos[:, 0]
        return state.replace(grammar=grammar, step=state.step + 1, finished=finished, events=events)

    def _apply(self, params, method: str, *arguments) -> Any:
        return self.model.apply({"params": params}, *arguments, method=method)


def _in_batches(read: Callable, rows: int, *arrays: jax.Array):
    """`read` of arrays [B, ...], `rows` rows at a time. Outputs with a row axis are concatenated; scalars are equal in all."""
    batches = [array.reshape(-1, rows, *array.shape[1:]) for array in arrays]
    join = lambda part: part.reshape(-1, *part.shape[2:]) if part.ndim > 1 else part[0]
    return jax.tree.map(join, jax.lax.map(lambda batch: read(*batch), batches))


def _resize(state: DecodeState, *, capacity: int) -> DecodeState:
    more = capacity - state.cache.max_events
    events = jnp.pad(state.events, ((0, 0), (0, more), (0, 0)), constant_values=ev.PAD)
    return state.replace(cache=state.cache.resize(capacity), events=events)
