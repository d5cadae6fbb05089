"""The grammar of NoteEvents: masks that exclude ill-formed, out-of-order and duplicate events.

Shapes as in models/attention.py: B rows, V ids of one attribute, A attributes.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax import struct
from sage_jax.decoding.constraints import FAR, Constraints
from sage_jax.music.notes import DEFAULT_METER, bar_ticks
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.note_events import NoteEvents


@struct.dataclass
class GrammarState(struct.Struct):
    """Position of each row, int32 [B] each.

    bar: index of the current bar, from the first. bar_start: tick at which it begins. position: tick in the bar. bar_ticks:
    length of the bar. instrument, pitch: ids of the last event, 0 before any.
    """

    bar: jax.Array
    bar_start: jax.Array
    position: jax.Array
    bar_ticks: jax.Array
    instrument: jax.Array
    pitch: jax.Array


class Grammar:
    """The grammar of NoteEvents, on the device.

    Events at one onset follow in canonical order, by instrument and then by pitch, each strictly later than the one before.
    Time therefore never decreases, and no note occurs twice at an onset. The pitch id fits the instrument. A rest is allowed
    only where the tokenizer encodes one.

    widths: of the masks by attribute, for kernels that pad vocabularies; padding is not allowed. Masks are computed from ids
    and numbers of rows, without tables, so that a kernel can compute them.
    """

    def __init__(self, tokenizer: NoteEvents, widths: Sequence[int] | None = None):
        self.tokenizer = tokenizer
        self.vocab_sizes = tokenizer.vocab_sizes
        self.widths = tuple(widths or tokenizer.vocab_sizes)
        # Bar length in ticks by pitch id, for ids that encode a meter.
        self.meter_ticks = np.zeros(self.vocab_sizes[ev.PITCH], np.int32)
        first = tokenizer.first_meter
        self.meter_ticks[first : first + len(tokenizer.meters)] = tokenizer.meter_ticks

    def start(self, batch: int) -> GrammarState:
        """The state before the first event: bar 0 in 4/4."""
        ticks = bar_ticks(*DEFAULT_METER, self.tokenizer.ticks_per_quarter)
        return GrammarState(*(jnp.full((batch,), value, jnp.int32) for value in (0, 0, 0, ticks, 0, 0)))

    def tick(self, state: GrammarState) -> jax.Array:
        """The tick of the last event, int32 [B], from the beginning of the first bar."""
        return state.bar_start + state.position

    def onset_tick(self, state: GrammarState, onset: jax.Array) -> jax.Array:
        """The tick of an event with the id `onset` [B] after those of the state, int32 [B]."""
        bars, position = self._bars_and_position(onset)
        return state.bar_start + bars * state.bar_ticks + position

    def onsets(self, state: GrammarState, constraints: Constraints) -> jax.Array:
        """bool [B, V] onsets allowed next, including EOS."""
        ids = self._ids(ev.ONSET)
        bars, positions = self._bars_and_position(ids)
        position = state.position[:, None]
        forward = (bars > 0) | ((bars == 0) & (positions > position))
        here = self._instruments_at(state, jnp.ones_like(state.bar, bool), constraints)
        can_stay = here.astype(jnp.int32).max(axis=-1, keepdims=True) > 0
        stays = (bars == 0) & (positions == position) & can_stay
        inside = (positions < state.bar_ticks[:, None]) & (forward | stays)
        # The next event is in the first allowed bar or later, and in a later bar after a rest.
        min_bars = jnp.maximum(self._bars_to_wait(state, constraints), state.instrument == ev.REST)[:, None]
        tick = (state.bar_start[:, None] + bars * state.bar_ticks[:, None]) + positions
        is_waiting = self.tick(state) < constraints.first_tick
        end = jnp.where(is_waiting, constraints.begin_before, FAR)[:, None]
        allowed = inside & (bars >= min_bars) & (tick >= constraints.first_tick[:, None]) & (tick < end)
        rest = (bars == self.tokenizer.max_bar_step) & (positions == 0)
        allowed = jnp.where(min_bars > self.tokenizer.max_bar_step, rest, allowed)
        ends = constraints.allow_eos[:, None] & (min_bars <= 0)
        return jnp.where(ids == ev.EOS, ends, allowed & (ids < self.vocab_sizes[ev.ONSET]))

    def instruments(self, state: GrammarState, onset: jax.Array, constraints: Constraints) -> jax.Array:
        """bool [B, V] instruments allowed at `onset` [B]."""
        bars, position = self._bars_and_position(onset)
        same_onset = (bars == 0) & (position == state.position)
        allowed = self._instruments_at(state, same_onset, constraints)
        allowed &= (bars >= self._bars_to_wait(state, constraints))[:, None]  # only rests before the first allowed bar
        rest = (bars == self.tokenizer.max_bar_step) & (position == 0)
        return jnp.where(self._ids(ev.INSTRUMENT) == ev.REST, rest[:, None], allowed)

    def _bars_to_wait(self, state: GrammarState, constraints: Constraints) -> jax.Array:
        """int32 [B]: bars from the current one to the first in which an event may be; 0 or less if that is now."""
        to_tick = (constraints.first_tick - state.bar_start) // state.bar_ticks
        return jnp.maximum(constraints.first_bar - state.bar, to_tick)

    def _instruments_at(self, state: GrammarState, same_onset: jax.Array, constraints: Constraints) -> jax.Array:
        ids = self._ids(ev.INSTRUMENT)
        last = state.instrument[:, None]
        _, high = self.pitch_range(state.instrument, constraints)
        has_higher_pitch = (state.instrument >= ev.FIRST_PROGRAM) & (state.pitch + 1 < high)
        later = (ids > last) | ((ids == last) & has_higher_pitch[:, None])
        return self.playable(constraints) & (ids > ev.REST) & (later | ~same_onset[:, None])

    def playable(self, constraints: Constraints) -> jax.Array:
        """bool [B, V] instrument ids: the allowed tracks, changes where they are, and every other id."""
        others = jnp.arange(ev.FIRST_PROGRAM)[None, :] < ev.METER_CHANGE
        return jnp.concatenate([others | constraints.allow_changes[:, None], constraints.programs], axis=1)

    def pitches(
        self, state: GrammarState, onset: jax.Array, instrument: jax.Array, constraints: Constraints
    ) -> jax.Array:
        """bool [B, V] pitch ids allowed for `instrument` [B] at `onset` [B]."""
        low, high = self.pitch_range(instrument, constraints)
        same = (onset == ev.FIRST + state.position) & (instrument == state.instrument)
        low = jnp.where(same & (instrument >= ev.FIRST_PROGRAM), jnp.maximum(state.pitch + 1, low), low)
        ids = self._ids(ev.PITCH)
        return (low[:, None] <= ids) & (ids < high[:, None])

    def note_values(self, instrument: jax.Array, attribute: int) -> jax.Array:
        """bool [B, V] durations or velocities: any value for a note, NONE for other events."""
        ids = self._ids(attribute)
        is_note = (instrument >= ev.FIRST_PROGRAM)[:, None]
        return jnp.where(is_note, ids >= ev.FIRST, ids == ev.NONE) & (ids < self.vocab_sizes[attribute])

    def allowed(self, state: GrammarState, event: list[jax.Array], constraints: Constraints) -> jax.Array:
        """bool [B, V] ids of the next attribute. `event`: the tokens of the event so far, [B] each."""
        attribute = len(event)
        if attribute == ev.ONSET:
            return self.onsets(state, constraints)
        if attribute == ev.INSTRUMENT:
            return self.instruments(state, event[ev.ONSET], constraints)
        if attribute == ev.PITCH:
            return self.pitches(state, event[ev.ONSET], event[ev.INSTRUMENT], constraints)
        return self.note_values(event[ev.INSTRUMENT], attribute)

    def advance(self, state: GrammarState, event: jax.Array) -> GrammarState:
        """The state after `event` [B, A]. BOS, EOS and PAD do not change it."""
        onset, instrument, pitch = event[:, ev.ONSET], event[:, ev.INSTRUMENT], event[:, ev.PITCH]
        bars, position = self._bars_and_position(onset)
        is_meter = instrument == ev.METER_CHANGE
        cuts_bar = is_meter & (position > 0)  # a meter change inside a bar starts a new bar
        ticks = jnp.where(is_meter, jnp.asarray(self.meter_ticks)[pitch], state.bar_ticks)
        bar_start = state.bar_start + bars * state.bar_ticks + jnp.where(is_meter, position, 0)
        moved = GrammarState(state.bar + bars + cuts_bar, bar_start, jnp.where(is_meter, 0, position), ticks, instrument, pitch)
        inside = onset >= ev.FIRST
        return jax.tree.map(lambda new, old: jnp.where(inside, new, old).astype(jnp.int32), moved, state)

    def pitch_range(self, instrument: jax.Array, constraints: Constraints) -> tuple[jax.Array, jax.Array]:
        """[low, high) of the pitch ids of each instrument [B]."""
        row = self.tokenizer.pitch_range_of(instrument)
        (low, high), *others = self.tokenizer.pitch_ranges
        lows, highs = jnp.full_like(row, low), jnp.full_like(row, high)
        for number, (low, high) in enumerate(others, 1):
            lows, highs = jnp.where(row == number, low, lows), jnp.where(row == number, high, highs)
        program = self.tokenizer.program_of(jnp.maximum(instrument, ev.FIRST_PROGRAM))
        lowest, highest = self.pitch_limits(program, constraints)
        is_note = instrument >= ev.FIRST_PROGRAM
        return jnp.where(is_note, lows + lowest, lows), jnp.where(is_note, lows + highest + 1, highs)

    def pitch_limits(self, program: jax.Array, constraints: Constraints) -> tuple[jax.Array, jax.Array]:
        """The lowest and the highest MIDI pitch that each program [B] may have, int32 [B]."""
        limits = jnp.take_along_axis(constraints.pitches, program[:, None, None], axis=1)[:, 0]
        return limits[:, 0], limits[:, 1]

    def _ids(self, attribute: int) -> jax.Array:
        """int32 [1, V], or as wide as the masks are."""
        return jax.lax.broadcasted_iota(jnp.int32, (1, self.widths[attribute]), 1)

    def _bars_and_position(self, onset: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The bars that onset ids [...] advance and their positions in the bar; -1 bars for ids that are no onsets."""
        ticks, size = jnp.maximum(onset - ev.FIRST, 0), jnp.int32(self.tokenizer.max_position)
        return jnp.where(onset < ev.FIRST, -1, jax.lax.div(ticks, size)), jax.lax.rem(ticks, size)
