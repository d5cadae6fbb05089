"""The fused decoder: prefill, then a compiled loop of event steps over a preallocated cache that grows bucket by bucket."""

import dataclasses
import functools
import time
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.decoding.delayed import draw_step
from sage_jax.decoding.grammar import Limits
from sage_jax.decoding.grammars import make_grammar
from sage_jax.decoding.sampling import Knobs, SamplingConfig, sample
from sage_jax.models.cache import Cache
from sage_jax.models.config import ModelConfig
from sage_jax.models.forms import cast_parameters, make_model
from sage_jax.music import events as ev
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.music.representation import Representation

SMALLEST_BUCKET = 64
FIRST_CAPACITY = 256  # events; a smaller cache costs hardly less to read, and each size is a program to compile
PREFILL_ROWS = 8  # rows that are read at once: the scores of more need memory, and are made no faster


@flax.struct.dataclass
class DecodeState:
    """All that a decode step reads and writes; donated to it.

    carry: what the model knows of the events before. keys: uint32 [B, ..], the data of a key for each row, folded
    with `step`, so that a row is the same alone as in a batch; typed keys would make each call of a program dearer. step:
    events drawn; below 0 in the delay pattern until the prompt's last events are fed whole. finished [B]. begun: int32
    [B, L, A], the L events that are drawn in part, none but in the delay pattern. events: int16 [B, S, A], as many as the
    cache has room for, PAD where none is drawn yet.
    """

    cache: Cache
    carry: Any
    grammar: Any
    keys: jax.Array
    step: jax.Array
    finished: jax.Array
    begun: jax.Array
    events: jax.Array


@dataclasses.dataclass(frozen=True)
class Generation:
    """What came out of a batch, with times in seconds.

    continuations: for each row the events behind its prompt, int16 [N, A], EOS among them where the model ended the piece.
    finished: bool [B], the rows that came to their end or to the bar where they stop. steps: event steps of the batch.
    """

    continuations: list[np.ndarray]
    finished: np.ndarray
    steps: int
    prefill_seconds: float
    decode_seconds: float
    compile_seconds: float


def bucket(size: int) -> int:
    """The length that is allocated for `size` events: a power of two, or one and a half times it."""
    length = SMALLEST_BUCKET
    while length < size:
        length *= 2
    return length * 3 // 4 if length > SMALLEST_BUCKET and size <= length * 3 // 4 else length


def capacities(width: int, max_events: int, first: int = FIRST_CAPACITY) -> list[int]:
    """The rooms, in events, that the cache has in turn while `max_events` events follow a prompt of `width`.

    Each is twice the one before, and the last is the bucket of all: so attention reads at most twice what is filled.
    """
    last = bucket(width + max_events)
    capacity = max(bucket(width + 1), first)
    rooms = []
    while capacity < last:
        rooms.append(capacity)
        capacity *= 2
    return [*rooms, last]


class Generator:
    """Continues prompts with one model.

    Programs are compiled ahead of time: prefill for each batch size and prompt bucket, the loop for each batch size and room
    of the cache. compilations, compile_seconds: how many there were, and the time they took.
    """

    def __init__(self, config: ModelConfig, params, tokenizer: Representation, first_capacity: int = FIRST_CAPACITY):
        self.config = config
        self.tokenizer = tokenizer
        self.use(params)
        self.model = make_model(config)
        self.grammar = make_grammar(tokenizer)
        self.compilations, self.compile_seconds = 0, 0.0
        nothing = Piece.from_notes([], tokenizer.grid.ticks_per_quarter)
        self._end = tokenizer.encode(tokenizer.quantize(nothing))[-1:].astype(np.int32)
        # The events that are begun before one is complete.
        self.lag = config.num_attributes - 1 if config.form == "delay" else 0
        self._first_capacity = first_capacity
        self._programs = {}

    def use(self, params: Any) -> None:
        """Has other parameters of the same shapes play from now on; what is compiled stays."""
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
        stop_at_end: bool = True,
        programs: list[int] | None = None,
        finished: np.ndarray | None = None,
    ) -> Generation:
        """Continues each prompt (int [N, A], BOS first, no EOS) by at most `max_events` events.

        first_bar, stop_bar: a row begins no earlier than the one and ends before the other, bars counted from its prompt's
        first; one number for all rows or one for each. seed: a number, a jax key, or a key for each row [B]. stop_at_end:
        whether the model may end the piece. programs: the only ones to play (128 for drums); None for all. finished: bool [B],
        rows that are to stay as they are.
        """
        compiled, began = self.compile_seconds, time.perf_counter()
        rooms = capacities(bucket(max(map(len, prompts))), max_events + self.lag, self._first_capacity)
        state = jax.block_until_ready(self.start(prompts, rooms[0], seed=seed, finished=finished))
        prefill_seconds = time.perf_counter() - began - (self.compile_seconds - compiled)

        limits = self.limits(len(prompts), first_bar, stop_bar, stop_at_end, programs)
        compiled_prefill, began = self.compile_seconds, time.perf_counter()
        state = self.advance(state, max_events, sampling.knobs, limits, rooms)
        drawn = np.asarray(state.events)
        decode_seconds = time.perf_counter() - began - (self.compile_seconds - compiled_prefill)
        continuations = [row[row[:, ev.ONSET] != ev.PAD] for row in drawn]
        seconds = (prefill_seconds, decode_seconds, self.compile_seconds - compiled)
        return Generation(continuations, np.asarray(state.finished), int(state.step), *seconds)

    def prepare(self, batch: int, longest_prompt: int, max_events: int, sampling: SamplingConfig = SamplingConfig()) -> float:
        """Compiles all that `generate` can need for prompts of up to `longest_prompt` events; returns the seconds it took."""
        compiled = self.compile_seconds
        for width in sorted({bucket(length) for length in range(1, longest_prompt + 1)}):
            rooms = capacities(width, max_events + self.lag, self._first_capacity)
            self._prefill_program(batch, width, rooms[0])
            for room, larger in zip(rooms, [*rooms[1:], None], strict=True):
                self._decode_program(batch, room, sampling.top_k)
                if larger:
                    self._grow_program(batch, room, larger)
        return self.compile_seconds - compiled

    def start(
        self,
        prompts: list[np.ndarray],
        capacity: int,
        *,
        width: int | None = None,
        seed: int | np.integer | jax.Array = 0,
        finished: np.ndarray | None = None,
    ) -> DecodeState:
        """Reads the prompts, padded to `width` events (their bucket, if None), into a cache with room for `capacity` events."""
        width = width or bucket(max(map(len, prompts)))
        padded = np.zeros((len(prompts), width, self.config.num_attributes), np.int32)
        for row, prompt in zip(padded, prompts, strict=True):
            row[width - len(prompt) :] = prompt
        start = np.array([width - len(prompt) for prompt in prompts], np.int32)
        key = jax.random.key(int(seed)) if isinstance(seed, (int, np.integer)) else seed
        keys = key if key.ndim else jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(prompts)))
        finished = np.zeros(len(prompts), bool) if finished is None else finished
        keys = jax.random.key_data(keys)
        return self._prefill_program(len(prompts), width, capacity)(self.params, padded, start, keys, finished)

    def limits(
        self,
        batch: int,
        first_bar: int | np.ndarray = 0,
        stop_bar: int | np.ndarray | None = None,
        may_end: bool = True,
        programs: list[int] | None = None,
    ) -> Limits:
        """The arguments of `generate` on the device."""
        stop_bar = np.iinfo(np.int32).max if stop_bar is None else stop_bar
        bars = (jnp.broadcast_to(jnp.asarray(bar, jnp.int32), batch) for bar in (first_bar, stop_bar))
        playable = np.full(DRUMS + 1, programs is None)
        playable[np.array([] if programs is None else programs, np.int64)] = True
        return Limits(*bars, jnp.bool_(may_end), jnp.asarray(playable))

    def advance(
        self, state: DecodeState, max_events: int, knobs: Knobs, limits: Limits, rooms: list[int] | None = None
    ) -> DecodeState:
        """Draws on until there are `max_events` events in all, or every row is finished; `state` is given away.

        rooms: those that the cache may grow to; without them it stays as it is, and the loop ends where it is full. Whether
        events are drawn in one call or in many makes no difference to them.
        """
        batch = len(state.finished)
        larger = [room for room in rooms or () if room > state.cache.max_events]
        while True:
            room = state.cache.max_events
            program = self._decode_program(batch, room, knobs.top_k)
            state = program(self.params, state, np.int32(max_events), knobs, limits)
            if not larger or int(state.cache.length) < room or int(state.step) >= max_events or state.finished.all():
                return state
            state = self._grow_program(batch, room, larger[0])(state)
            del larger[0]

    def _prefill_program(self, batch: int, width: int, capacity: int):
        key = ("prefill", batch, width, capacity)
        prefill = functools.partial(self._prefill, capacity=capacity)
        return self._program(key, prefill, lambda: (self.params, *self._start_shapes(batch, width)))

    def _decode_program(self, batch: int, capacity: int, top_k: int):
        def shapes():
            knobs = SamplingConfig(top_k=top_k).knobs
            return self.params, self._state_shapes(batch, capacity), np.int32(0), knobs, self.limits(batch)

        return self._program(("decode", batch, capacity, top_k), self._decode, shapes, donate=(1,))

    def _grow_program(self, batch: int, capacity: int, larger: int):
        grow = functools.partial(_grow, capacity=larger)
        return self._program(("grow", batch, capacity, larger), grow, lambda: (self._state_shapes(batch, capacity),))

    def _state_shapes(self, batch: int, capacity: int) -> DecodeState:
        prefill = functools.partial(self._prefill, capacity=capacity)
        return jax.eval_shape(prefill, self.params, *self._start_shapes(batch, 1 + self.lag))

    def _program(self, key: tuple, function, shapes, donate: tuple[int, ...] = ()):
        """The compiled `function`, by its `key`; for arguments of the shapes that `shapes` returns."""
        if key not in self._programs:
            began = time.perf_counter()
            self._programs[key] = jax.jit(function, donate_argnums=donate).lower(*shapes()).compile()
            self.compile_seconds += time.perf_counter() - began
            self.compilations += 1
        return self._programs[key]

    def _start_shapes(self, batch: int, width: int):
        """Of the arguments of prefill after the parameters."""
        rows = lambda dtype, *shape: jax.ShapeDtypeStruct((batch, *shape), dtype)
        keys = jax.eval_shape(lambda: jax.random.key_data(jax.random.split(jax.random.key(0), batch)))
        return rows(np.int32, width, self.config.num_attributes), rows(np.int32), keys, rows(bool)

    def _prefill(self, params, prompts, start, keys, finished, *, capacity: int) -> DecodeState:
        B, _, A = prompts.shape
        read = functools.partial(self._read, params, capacity=capacity)
        if B > PREFILL_ROWS and B % PREFILL_ROWS == 0:
            carry, cache = _in_blocks(read, PREFILL_ROWS, prompts, start)
        else:
            carry, cache = read(prompts, start)
        whole = prompts.shape[1] - self.lag
        advance = lambda state, event: (self.grammar.advance(state, event), None)
        grammar, _ = jax.lax.scan(advance, self.grammar.start(B), jnp.moveaxis(prompts[:, :whole], 1, 0))
        events = jnp.full((B, capacity, A), ev.PAD, jnp.int16)
        return DecodeState(cache, carry, grammar, keys, jnp.int32(-self.lag), finished, prompts[:, whole:], events)

    def _read(self, params, prompts, start, *, capacity: int) -> tuple[Any, Cache]:
        """The model's carry behind the prompts [B, N, A], and a cache that holds them."""
        cache = Cache.empty(self.config, len(prompts), capacity).replace(start=start)
        return self._apply(params, "read", prompts, cache)

    def _decode(self, params, state: DecodeState, max_events: jax.Array, knobs: Knobs, limits: Limits) -> DecodeState:
        def unfinished(state: DecodeState) -> jax.Array:
            room = state.cache.length < state.cache.max_events
            return room & (state.step < max_events) & ~state.finished.all()

        return jax.lax.while_loop(unfinished, lambda state: self.event_step(params, state, knobs, limits), state)

    def event_step(self, params, state: DecodeState, knobs: Knobs, limits: Limits) -> DecodeState:
        """Draws the next event of every row, its tokens in turn, and reads it into the cache."""
        keys = jax.vmap(jax.random.fold_in, (0, None))(jax.random.wrap_key_data(state.keys), state.step)

        def choose(attribute: int, carry, allowed: jax.Array) -> jax.Array:
            logits = self._apply(params, "next_logits", carry, attribute)
            return sample(jax.vmap(jax.random.fold_in, (0, None))(keys, attribute), logits, allowed, knobs)

        if self.lag:
            return self._delayed_step(params, state, choose, limits)
        carry, cache, event = state.carry, state.cache, []
        for attribute in range(self.config.num_attributes):
            event.append(choose(attribute, carry, self.grammar.allowed(state.grammar, event, limits)))
            carry, cache = self._apply(params, "feed", carry, cache, event[-1], attribute)
        return self._record(state.replace(carry=carry, cache=cache), jnp.stack(event, axis=1), limits)

    def _delayed_step(self, params, state: DecodeState, choose, limits: Limits) -> DecodeState:
        """As event_step, but the next event's last attribute, and as much of those behind it as belongs to that step."""

        def choose_or_keep(attribute: int, allowed: jax.Array, there: jax.Array) -> jax.Array:
            is_prompts = state.step + self.lag - attribute < 0
            return jnp.where(is_prompts, there, choose(attribute, state.carry, allowed))

        tokens, events = draw_step(self.grammar, state.grammar, state.begun, limits, choose_or_keep)
        carry, cache = state.carry, state.cache
        for attribute in range(self.config.num_attributes):
            carry, cache = self._apply(params, "feed", carry, cache, tokens[:, attribute], attribute)
        state = state.replace(carry=carry, cache=cache, begun=events[:, 1:])
        return self._record(state, events[:, 0], limits)

    def _record(self, state: DecodeState, event: jax.Array, limits: Limits) -> DecodeState:
        ends = event[:, :1] == ev.EOS
        grammar = self.grammar.advance(state.grammar, event)
        beyond = grammar.bar >= limits.stop_bar
        event = jnp.where(ends, self._end, event)
        shown = jnp.where((state.finished | beyond)[:, None], ev.PAD, event).astype(state.events.dtype)
        place = jnp.maximum(state.step, 0)
        events = jax.lax.dynamic_update_slice(state.events, shown[:, None, :], (0, place, 0))
        finished = state.finished | beyond | ends[:, 0]
        return state.replace(grammar=grammar, step=state.step + 1, finished=finished, events=events)

    def _apply(self, params, method: str, *arguments):
        return self.model.apply({"params": params}, *arguments, method=method)


def _in_blocks(read, rows: int, *arrays: jax.Array):
    """`read` of the arrays [B, ..], `rows` rows after another; what it returns for each row is joined, the rest is that of any."""
    blocks = [array.reshape(-1, rows, *array.shape[1:]) for array in arrays]
    join = lambda part: part.reshape(-1, *part.shape[2:]) if part.ndim > 1 else part[0]
    return jax.tree.map(join, jax.lax.map(lambda block: read(*block), blocks))


def _grow(state: DecodeState, *, capacity: int) -> DecodeState:
    more = capacity - state.cache.max_events
    events = jnp.pad(state.events, ((0, 0), (0, more), (0, 0)), constant_values=ev.PAD)
    return state.replace(cache=state.cache.grown(capacity), events=events)
