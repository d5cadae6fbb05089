"""The fused decoder: prefill, then a compiled loop of event steps over a preallocated cache."""

import dataclasses
import functools
import time

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.decoding.grammar import Grammar, GrammarState, Limits
from sage_jax.decoding.sampling import Knobs, SamplingConfig, sample
from sage_jax.models.cache import Cache
from sage_jax.models.config import ModelConfig
from sage_jax.models.transformer import Transformer
from sage_jax.music import events as ev
from sage_jax.music.events import NoteEvents

SMALLEST_BUCKET = 64


@flax.struct.dataclass
class DecodeState:
    """All that a decode step reads and writes; donated to it.

    logits: float32 [B, V_onset], of the onset of the next event. keys [B]: one per row, folded with `step`, so that a row
    is the same alone as in a batch. step: events drawn. finished [B]. events: int16 [B, M, A], PAD where none is drawn yet.
    """

    cache: Cache
    logits: jax.Array
    grammar: GrammarState
    keys: jax.Array
    step: jax.Array
    finished: jax.Array
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

    @property
    def notes(self) -> int:
        return int(sum(NoteEvents.is_note(events).sum() for events in self.continuations))


def bucket(size: int) -> int:
    """The length that is allocated for `size` events: a power of two, or one and a half times it."""
    length = SMALLEST_BUCKET
    while length < size:
        length *= 2
    return length * 3 // 4 if length > SMALLEST_BUCKET and size <= length * 3 // 4 else length


class Generator:
    """Continues prompts with one model. Programs are compiled ahead of time, one for each batch size and bucket."""

    def __init__(self, config: ModelConfig, params, tokenizer: NoteEvents):
        self.config = config
        self.tokenizer = tokenizer
        self.params = jax.tree.map(lambda leaf: jnp.asarray(leaf, config.dtype), params)
        self.model = Transformer(config)
        self.grammar = Grammar(tokenizer)
        self._programs = {}

    def generate(
        self,
        prompts: list[np.ndarray],
        *,
        max_events: int,
        first_bar: int | np.ndarray = 0,
        stop_bar: int | np.ndarray | None = None,
        sampling: SamplingConfig = SamplingConfig(),
        seed: int | jax.Array = 0,
        stop_at_end: bool = True,
        programs: list[int] | None = None,
        finished: np.ndarray | None = None,
    ) -> Generation:
        """Continues each prompt (int [N, A], BOS first, no EOS) by at most `max_events` events.

        first_bar, stop_bar: a row begins no earlier than the one and ends before the other, bars counted from its prompt's
        first; one number for all rows or one for each. seed: a number or a jax key. stop_at_end: whether the model may end
        the piece. programs: the only ones to play (128 for drums); None for all. finished: bool [B], rows that are to stay
        as they are.
        """
        width = bucket(max(len(prompt) for prompt in prompts))
        room = bucket(width + max_events) - width
        padded = np.zeros((len(prompts), width, ev.NUM_ATTRIBUTES), np.int32)
        for row, prompt in zip(padded, prompts, strict=True):
            row[width - len(prompt) :] = prompt
        start = np.array([width - len(prompt) for prompt in prompts], np.int32)
        key = jax.random.key(seed) if isinstance(seed, int) else seed
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(prompts)))
        knobs = sampling.knobs

        finished = np.zeros(len(prompts), bool) if finished is None else finished
        arguments = (self.params, padded, start, keys, finished)
        prefill, compile_prefill = self._program(self._prefill, arguments, room=room)
        began = time.perf_counter()
        state = jax.block_until_ready(prefill(*arguments))
        prefill_seconds = time.perf_counter() - began

        stop_bar = np.iinfo(np.int32).max if stop_bar is None else stop_bar
        bars = (jnp.broadcast_to(jnp.asarray(bar, jnp.int32), len(prompts)) for bar in (first_bar, stop_bar))
        limits = Limits(jnp.int32(max_events), *bars, jnp.bool_(stop_at_end), jnp.asarray(self._playable(programs)))
        decode, compile_decode = self._program(self._decode, (self.params, state, knobs, limits), donate=(1,))
        began = time.perf_counter()
        state = jax.block_until_ready(decode(self.params, state, knobs, limits))
        decode_seconds = time.perf_counter() - began

        drawn = np.asarray(state.events)
        continuations = [row[row[:, ev.ONSET] != ev.PAD] for row in drawn]
        seconds = (prefill_seconds, decode_seconds, compile_prefill + compile_decode)
        return Generation(continuations, np.asarray(state.finished), int(state.step), *seconds)

    def _playable(self, programs: list[int] | None) -> np.ndarray:
        playable = np.ones(self.grammar.vocab_sizes[ev.INSTRUMENT], bool)
        if programs is not None:
            playable[ev.FIRST_PROGRAM :] = False
            playable[ev.FIRST_PROGRAM + np.array(programs, np.int64)] = True
        return playable

    def _program(self, function, arguments, donate=(), **static):
        """The compiled `function` for arguments of these shapes, and the seconds that compiling took (0 if it was there)."""
        leaves, structure = jax.tree.flatten(arguments[1:])
        key = (function.__name__, tuple((np.shape(leaf), str(leaf.dtype)) for leaf in leaves), structure, *static.items())
        if key in self._programs:
            return self._programs[key], 0.0
        began = time.perf_counter()
        jitted = jax.jit(functools.partial(function, **static), donate_argnums=donate)
        self._programs[key] = jitted.lower(*arguments).compile()
        return self._programs[key], time.perf_counter() - began

    def _prefill(self, params, prompts, start, keys, finished, *, room: int) -> DecodeState:
        B, N, A = prompts.shape
        cache = Cache.empty(self.config, B, N + room).replace(start=start)
        hidden, cache = self.model.apply({"params": params}, prompts, cache, empty=True, method="extend")
        logits = self._logits(params, hidden[:, -1, -1], ev.ONSET)
        advance = lambda state, event: (self.grammar.advance(state, event), None)
        grammar, _ = jax.lax.scan(advance, self.grammar.start(B), jnp.moveaxis(prompts, 1, 0))
        events = jnp.full((B, room, A), ev.PAD, jnp.int16)
        return DecodeState(cache, logits, grammar, keys, jnp.int32(0), finished, events)

    def _decode(self, params, state: DecodeState, knobs: Knobs, limits: Limits) -> DecodeState:
        def unfinished(state: DecodeState) -> jax.Array:
            return (state.step < limits.max_events) & ~state.finished.all()

        return jax.lax.while_loop(unfinished, lambda state: self.event_step(params, state, knobs, limits), state)

    def event_step(self, params, state: DecodeState, knobs: Knobs, limits: Limits) -> DecodeState:
        """Draws the next event of every row, its five tokens in turn, and reads it into the cache."""
        keys = jax.vmap(jax.random.fold_in, (0, None))(state.keys, state.step)
        logits, cache, event = state.logits, state.cache, []
        for attribute in range(ev.NUM_ATTRIBUTES):
            allowed = self.grammar.allowed(state.grammar, event, limits)
            token_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, attribute)
            event.append(sample(token_keys, logits, allowed, knobs))
            hidden, cache = self.model.apply(
                {"params": params}, event[-1][:, None, None], cache, attribute, method="extend"
            )
            logits = self._logits(params, hidden[:, 0, 0], (attribute + 1) % ev.NUM_ATTRIBUTES)
        return self._record(state, cache, logits, jnp.stack(event, axis=1), limits)

    def _record(self, state: DecodeState, cache: Cache, logits, event: jax.Array, limits: Limits) -> DecodeState:
        ends = event[:, :1] == ev.EOS
        grammar = self.grammar.advance(state.grammar, event)
        beyond = grammar.bar >= limits.stop_bar
        event = jnp.where(ends, ev.EOS, event)
        shown = jnp.where((state.finished | beyond)[:, None], ev.PAD, event).astype(state.events.dtype)
        events = jax.lax.dynamic_update_slice(state.events, shown[:, None, :], (0, state.step, 0))
        finished = state.finished | beyond | ends[:, 0]
        return DecodeState(cache, logits, grammar, state.keys, state.step + 1, finished, events)

    def _logits(self, params, hidden: jax.Array, attribute: int) -> jax.Array:
        return self.model.apply({"params": params}, hidden, attribute, method="logits")
