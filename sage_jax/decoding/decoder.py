"""The pure functions of decoding: prefill, event step, loop, and going back. Shapes as in state.py."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.delay import delayed_step
from sage_jax.decoding.fused.step import PARAMETERS, FusedStep
from sage_jax.decoding.grammars.note_events import Grammar
from sage_jax.decoding.grammars.registry import make_grammar
from sage_jax.decoding.sampling import SamplingConfig, by_attribute, gumbel_noise, sample
from sage_jax.decoding.state import Controls, DecodeState
from sage_jax.models.cache import Cache
from sage_jax.models.config import ModelConfig
from sage_jax.models.kernel_layout import on_device
from sage_jax.models.registry import build_model, inference_parameters
from sage_jax.music.notes import Piece
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.base import Tokenizer


class Decoder:
    """A model, a grammar and how they generate events. It holds no parameters and no state.

    programs: of the grid of a fused event step, see fused/step.py.
    lag: steps from an event's first attribute to its last: A - 1 in the delay pattern, else 0. The last `lag` cached events of
    a row are incomplete, or given.
    """

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer, programs: int = 1):
        self.config = config
        # What comes first in a row has no cache. It is attended to in plain JAX as all else here, not by a kernel for training.
        self.model = build_model(dataclasses.replace(config, attention_impl="chunked"))
        self.grammar: Any = make_grammar(tokenizer)  # its methods take the state that its own `start` returns
        self.lag = config.num_attributes - 1 if config.architecture == "delay" else 0
        if self.lag and not isinstance(self.grammar, Grammar):
            raise TypeError(f"the delay pattern generates NoteEvents, and the tokenizer is {type(tokenizer).__name__}")
        self.fused = FusedStep(config, self.grammar, programs) if config.decode_impl == "fused" else None
        self._tokenizer = tokenizer
        empty = Piece.from_notes([], tokenizer.grid.ticks_per_quarter)
        self._eos_event = tokenizer.encode(tokenizer.quantize(empty))[-1:].astype(np.int32)

    def inference_parameters(self, params: Any, device: Any) -> Any:
        """`params` as the functions below take them on `device`. See models/registry.py and models/kernel_layout.py."""
        converted = inference_parameters(self.config, params)
        return self.fused.pack(converted) if self.fused else on_device(converted, device)

    def step_parameters(self, params: Any) -> Any:
        """Those of the parameters for inference that an event step reads: fewer arrays make a call of a program faster."""
        return {PARAMETERS: params[PARAMETERS]} if self.fused else params

    def empty(self, params: Any, rows: int, capacity: int) -> DecodeState:
        """A state without sessions: `rows` rows of `capacity` events."""
        A = self.config.num_attributes
        key = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
        tracks = self._tokenizer.grid.tracks_per_program
        controls = Controls.of(np.zeros(key.shape, key.dtype), SamplingConfig(), Limits(), tracks_per_program=tracks)
        start = pack(self.grammar.start(rows))
        return DecodeState(
            cache=Cache.empty(self.config, rows, capacity),
            carry=self._apply(params, "start_carry", jnp.full((rows, self._reread, A), ev.PAD, jnp.int32)),
            events=jnp.zeros((rows, self.lag + capacity, A), jnp.int16),
            known=jnp.zeros(rows, jnp.int32),
            grammar=jnp.repeat(start[:, None], self.lag + capacity + 1, axis=1),
            done=jnp.ones(rows, bool),
            controls=jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf), rows, axis=0), controls),
        )

    def edit(
        self,
        params: Any,
        state: DecodeState,
        slot: jax.Array,
        keep: jax.Array,
        known: jax.Array,
        given: jax.Array,
        controls: Controls,
    ) -> DecodeState:
        """Keeps the first `keep` events of the row `slot`, queues events [keep, known) of given [S, A], and sets its controls.

        With known = keep this is a rollback, with keep = length a push, and with keep = 0 a new session. Going back copies
        nothing: the last kept event is read again by the next step. `keep` and `known` are int32 scalars. The caller makes sure
        of keep <= max(length, known before) and known <= S - 1.
        """
        row = state.row(slot)
        length = row.cache.length
        # A row that goes back and has no event queued reads its last one again, for a carry to choose from.
        new_length = jnp.where(keep < length, jnp.maximum(jnp.minimum(keep, known - 1), 0), length)
        has_carry = (new_length == length) & (length > 0)
        is_new = (jnp.arange(self.lag + state.capacity) >= self.lag + keep)[None, :, None]
        given = jnp.pad(given, ((self.lag, 0), (0, 0)))[None]
        events = jnp.where(is_new, given, row.events)
        fresh = self._apply(params, "start_carry", self._before(events, new_length))
        return state.insert(
            slot,
            row.replace(
                cache=row.cache.replace(length=new_length),
                carry=select(has_carry, row.carry, fresh),
                events=events,
                known=known[None],
                done=jnp.zeros(1, bool),
                controls=controls,
            ),
        )

    def prefill(self, params: Any, state: DecodeState, slots: jax.Array, chunk: int) -> DecodeState:
        """The rows `slots`, int32 [K], read up to `chunk` queued events each, as in `read`. A row may be given twice."""
        return state.with_rows(slots, self.read(params, state.rows(slots), chunk))

    def read(self, params: Any, state: DecodeState, chunk: int) -> DecodeState:
        """Every row reads up to `chunk` queued events at once, after those that it has.

        The length of a row with queued events + chunk must not exceed S. Rows do not affect each other.
        """
        length = state.cache.length
        count = jnp.clip(state.known - length, 0, chunk)
        events = slices(state.events, self.lag + length, chunk).astype(jnp.int32)
        before, at_least_one = self._before(state.events, length), jnp.maximum(count, 1)
        carry, cache = self._apply(params, "prefill", events, before, at_least_one, state.cache)

        return state.replace(
            cache=cache.advance(count),
            carry=select(count > 0, carry, state.carry),
            grammar=put(state.grammar, self._grammar_after(state, chunk), length + 1),
        )

    def begin(self, params: Any, state: DecodeState, slots: jax.Array, chunk: int) -> DecodeState:
        """As `prefill`, for rows that have no event yet. They attend to no cache, so that many events can be read at once."""
        rows = state.rows(slots)
        rows = rows.replace(cache=rows.cache.replace(is_empty=True))
        return state.with_rows(slots, self.read(params, rows, chunk))

    def _grammar_after(self, state: DecodeState, chunk: int) -> jax.Array:
        """The grammar's state after each of the next `chunk` events of every row, int32 [B, chunk, g]."""

        def advance(packed: jax.Array, event: jax.Array) -> tuple[jax.Array, jax.Array]:
            packed = pack(self.grammar.advance(self._unpack(packed), event))
            return packed, packed

        length = state.cache.length
        complete = slices(state.events, length, chunk).astype(jnp.int32)  # those that these steps complete
        # In every turn a GPU launches the kernels of the loop anew.
        unroll = max(1, min(chunk // 32, 8))
        _, after = jax.lax.scan(advance, at(state.grammar, length), jnp.moveaxis(complete, 1, 0), unroll=unroll)
        return jnp.moveaxis(after, 0, 1)

    def offer(self, params: Any, state: DecodeState, slots: jax.Array, keys: jax.Array) -> tuple[DecodeState, jax.Array]:
        """The rows `slots`, int32 [K], read queued events until they would draw one of their own before the next one.

        keys: int32 [K, N], ascending: before which tick a row may still draw when it comes to each queued event. Several
        events of one key are read together. Each row has at least one event queued and at most N, and reads those of the
        first key in any case. Before the first event of a later one it draws an onset. If that is earlier than the key, the
        row stops: it drops the rest of its queue, and its limits in time become the last key that it read and this one. The
        event step that follows draws the same onset. Also returns how many events each row has read, int32 [K].
        """
        rows, chunk = state.rows(slots), keys.shape[1]
        length, controls, queued = rows.cache.length, rows.controls, rows.known - rows.cache.length
        events = slices(rows.events, length, chunk).astype(jnp.int32)
        carries, cache = self._apply(params, "prefill_each", events, self._before(rows.events, length), rows.cache)
        after = self._grammar_after(rows, chunk)
        but_last = jax.tree.map(lambda leaf: leaf[:, :-1], (carries, after, keys))
        onset_tick = self._next_ticks(params, rows, *but_last)
        is_queued = jnp.arange(1, chunk)[None, :] < queued[:, None]
        comes_first = is_queued & (keys[:, 1:] > keys[:, :-1]) & (onset_tick < keys[:, 1:])
        stops = comes_first.any(axis=1)
        count = jnp.where(stops, 1 + comes_first.argmax(axis=1), queued)
        limits = controls.constraints
        limits = limits.replace(
            first_tick=jnp.where(stops, at(keys, count - 1), limits.first_tick),
            stop_tick=jnp.where(stops, at(keys, jnp.minimum(count, chunk - 1)), limits.stop_tick),
        )
        rows = rows.replace(
            cache=cache.advance(count),
            carry=jax.tree.map(lambda leaf: at(leaf, count - 1), carries),
            known=length + count,
            grammar=put(rows.grammar, after, length + 1),
            controls=controls.replace(constraints=limits),
        )
        return state.with_rows(slots, rows), count

    def _next_ticks(
        self, params: Any, state: DecodeState, carries: Any, grammar: jax.Array, first_tick: jax.Array
    ) -> jax.Array:
        """The tick of the event that each row would draw after each of the next N events, int32 [B, N].

        carries: [B, N, ...] and grammar: int32 [B, N, g], after these events. first_tick: int32 [B, N], the earliest that is
        allowed then.
        """
        B, N, _ = grammar.shape
        joined = lambda tree: jax.tree.map(lambda leaf: leaf.reshape(B * N, *leaf.shape[2:]), tree)
        controls = jax.tree.map(lambda leaf: jnp.repeat(leaf, N, axis=0), state.controls)
        length, before = state.cache.length[:, None] + jnp.arange(1, N + 1)[None, :], self._unpack(joined(grammar))
        limits = controls.constraints.replace(first_tick=first_tick.ravel())
        logits = self._apply(params, "next_logits", joined(carries), ev.ONSET)
        # The first numbers of an event step's noise.
        noise = gumbel_noise(controls.keys_at(length.ravel()), self.config.vocab_sizes[:1])
        onset = sample(noise, logits, self.grammar.allowed(before, [], limits), controls.sampling)
        return self.grammar.onset_tick(before, onset).reshape(B, N)

    def event_step(self, params: Any, state: DecodeState) -> tuple[DecodeState, jax.Array]:
        """Every active row reads one more event: its next queued one, or one that the model chooses attribute by attribute.

        Also returns int32 [B, A + 2]: the event that the row completed, PAD if it was given or if there is none; the row's new
        length; and whether it is done.
        """
        length = state.cache.length
        controls = state.controls
        present = slices(state.events, length, self.lag + 1).astype(jnp.int32)
        grammar = self._unpack(at(state.grammar, length))
        noise = gumbel_noise(controls.keys_at(length), self.config.vocab_sizes)
        noises = by_attribute(noise, self.config.vocab_sizes)

        def draw(attribute: int, logits: jax.Array, allowed: jax.Array) -> jax.Array:
            return sample(noises[attribute], logits, allowed, controls.sampling)

        def choose(event: list[jax.Array], logits: jax.Array) -> jax.Array:
            drawn = draw(len(event), logits, self.grammar.allowed(grammar, event, controls.constraints))
            return jnp.where(length < state.known, present[:, -1, len(event)], drawn)

        if self.lag:
            carry, cache, written, event = self._delayed_step(params, state, present, grammar, draw)
        else:
            if self.fused:
                carry, cache, event = self.fused(params, state, grammar, noise, present[:, -1])
            else:
                carry, cache, event = self._apply(params, "event_step", state.carry, state.cache, choose)
            event = jnp.where(event[:, :1] == ev.EOS, self._eos_event, event)
            written = event[:, None]
        after = self.grammar.advance(grammar, event)
        # The number of the event that this step completed; negative in the first steps of the delay pattern.
        is_given = length - self.lag < state.known
        is_beyond = (self.grammar.tick(after) >= controls.constraints.stop_tick) | (after.bar >= controls.constraints.stop_bar)
        is_beyond &= ~is_given
        is_read = state.active & ~is_beyond
        ends = is_beyond | (event[:, 0] == ev.EOS) & ~is_given
        done = state.done | state.active & ends
        state = state.replace(
            cache=cache.advance(is_read.astype(jnp.int32)),
            carry=select(is_read, carry, state.carry),
            events=put(state.events, jnp.where(is_read[:, None, None], written, present), length),
            grammar=put(state.grammar, pack(after)[:, None], length + 1),
            done=done,
        )
        shown = jnp.where((is_read & ~is_given)[:, None], event, ev.PAD)
        return state, jnp.concatenate([shown, state.cache.length[:, None], done[:, None]], axis=1)

    def decode(
        self, params: Any, state: DecodeState, max_steps: jax.Array, min_active: jax.Array
    ) -> tuple[DecodeState, jax.Array]:
        """Event steps until `max_steps`, or until fewer than `min_active` rows are active.

        Also returns int32 [B, A + 3]: what the last event step returned, and the number of steps.
        """

        def goes_on(carry: tuple[DecodeState, jax.Array, jax.Array]) -> jax.Array:
            state, _, steps = carry
            return (steps < max_steps) & (state.active.sum() >= jnp.maximum(min_active, 1))

        def step(carry: tuple[DecodeState, jax.Array, jax.Array]) -> tuple[DecodeState, jax.Array, jax.Array]:
            state, _, steps = carry
            return *self.event_step(params, state), steps + 1

        nothing = jnp.zeros((len(state.done), self.config.num_attributes), jnp.int32)
        shown = jnp.concatenate([nothing, state.cache.length[:, None], state.done[:, None]], axis=1)
        state, shown, steps = jax.lax.while_loop(goes_on, step, (state, shown, jnp.int32(0)))
        return state, jnp.concatenate([shown, jnp.full((len(shown), 1), steps)], axis=1)

    def _delayed_step(
        self, params: Any, state: DecodeState, window: jax.Array, grammar: Any, draw
    ) -> tuple[Any, Cache, jax.Array, jax.Array]:
        """The carry and cache after a step, the events with the tokens that it chose, and the completed one of them.

        window: int32 [B, A, A], the events of the step, the oldest first.
        """
        length = state.cache.length
        # Events before the first one are given, too: as PAD.
        given = (length[:, None] - self.lag + jnp.arange(self.lag + 1)[None, :]) < state.known[:, None]

        def choose(attribute: int, allowed: jax.Array) -> jax.Array:
            return draw(attribute, self._apply(params, "next_logits", state.carry, attribute), allowed)

        tokens, events = delayed_step(self.grammar, grammar, window, given, state.controls.constraints, choose)
        carry, cache = state.carry, state.cache
        for attribute in range(self.config.num_attributes):
            carry, cache = self._apply(params, "decode_step", carry, cache, tokens[:, attribute], attribute)
        events = jnp.where(given[..., None], window, events)  # with the attributes that later steps read
        first = jnp.where(events[:, :1, :1] == ev.EOS, self._eos_event[None], events[:, :1])
        return carry, cache, jnp.concatenate([first, events[:, 1:]], axis=1), first[:, 0]

    @property
    def _reread(self) -> int:
        """C: the earlier events that a model reads again in a prefill."""
        return max(self.config.num_attributes - 1, 1)

    def _before(self, events: jax.Array, length: jax.Array) -> jax.Array:
        """int32 [B, C, A]: the events before number `length` [B] in events [B, L + S, A], PAD before the first one."""
        indices = length[:, None] - self._reread + jnp.arange(self._reread)[None, :]
        found = at(events, jnp.maximum(self.lag + indices, 0))
        return jnp.where((indices >= 0)[..., None], found, ev.PAD).astype(jnp.int32)

    def _unpack(self, packed: jax.Array) -> Any:
        """The grammar's state from int32 [B, g]."""
        return jax.tree.unflatten(jax.tree.structure(self.grammar.start(1)), list(packed.T))

    def _apply(self, params: Any, method: str, *arguments) -> Any:
        return self.model.apply({"params": params}, *arguments, method=method)


def at(buffer: jax.Array, index: jax.Array) -> jax.Array:
    """buffer [B, S, X] at each row's `index`, int32 [B] or [B, C] -> [B, X] or [B, C, X]."""
    return jax.vmap(lambda row, places: row[places])(buffer, index)


def slices(buffer: jax.Array, start: jax.Array, size: int) -> jax.Array:
    """buffer [B, S, X] -> [B, size, X], from each row's `start` [B] on."""
    return jax.vmap(lambda row, first: jax.lax.dynamic_slice_in_dim(row, first, size))(buffer, start)


def put(buffer: jax.Array, new: jax.Array, start: jax.Array) -> jax.Array:
    """buffer [B, S, X] with new [B, size, X] from each row's `start` [B] on."""
    return jax.vmap(lambda row, new, first: jax.lax.dynamic_update_slice_in_dim(row, new, first, 0))(
        buffer, new.astype(buffer.dtype), start
    )


def pack(grammar: Any) -> jax.Array:
    """A grammar's state as one array, int32 [B, g]."""
    return jnp.stack(jax.tree.leaves(grammar), axis=1)


def select(rows: jax.Array, new: Any, old: Any) -> Any:
    """The arrays [B, ...] of `new` where rows [B], else those of `old`."""
    return jax.tree.map(lambda new, old: jnp.where(rows.reshape(-1, *(1,) * (new.ndim - 1)), new, old), new, old)
