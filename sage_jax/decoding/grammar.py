"""What may come next: masks under which no event that is drawn can be ill-formed, late or a repetition."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.music import events as ev
from sage_jax.music.events import NoteEvents
from sage_jax.music.notes import DEFAULT_METER, bar_ticks


@flax.struct.dataclass
class GrammarState:
    """Where each row [B] stands: int32 throughout.

    bar: bars begun since the first one. position: ticks into the bar. bar_ticks: its length. instrument, pitch: ids of the
    last event (0 before any).
    """

    bar: jax.Array
    position: jax.Array
    bar_ticks: jax.Array
    instrument: jax.Array
    pitch: jax.Array


@flax.struct.dataclass
class Limits:
    """Where to stop and what may be played: traced, so that changing one compiles nothing.

    first_bar, stop_bar: int32 [B], a row's events belong to bars from the one up to, not with, the other, counted from its
    prompt's first. may_end: bool, whether EOS may be drawn. programs: bool [129], those that may be played, drums last.
    """

    first_bar: jax.Array
    stop_bar: jax.Array
    may_end: jax.Array
    programs: jax.Array


class Grammar:
    """The grammar of NoteEvents, on the device.

    Within an onset events follow in canonical order, instrument then pitch, each later than the one before: so time never
    goes back and no note comes twice at its onset. The pitch slot fits its instrument; a rest stands only where encoding
    puts one.
    """

    def __init__(self, tokenizer: NoteEvents):
        self.tokenizer = tokenizer
        self.vocab_sizes = tokenizer.vocab_sizes
        ids = np.arange(self.vocab_sizes[ev.ONSET]) - ev.FIRST
        self._bars, self._positions = np.divmod(ids, tokenizer.max_position)
        self._bars[ids < 0] = -1
        # A meter's length in ticks, by its id in the pitch slot.
        self.meter_ticks = np.zeros(self.vocab_sizes[ev.PITCH], np.int32)
        self.meter_ticks[tokenizer.first_meter :] = tokenizer.meter_ticks

    def start(self, batch: int) -> GrammarState:
        """Before the first event: bar 0 of 4/4."""
        ticks = bar_ticks(*DEFAULT_METER, self.tokenizer.ticks_per_quarter)
        return GrammarState(*(jnp.full((batch,), value, jnp.int32) for value in (0, 0, ticks, 0, 0)))

    def onsets(self, state: GrammarState, limits: Limits) -> jax.Array:
        """[B, V] onsets that may come next, EOS among them."""
        bars, positions = self._bars[None, :], self._positions[None, :]
        position = state.position[:, None]
        forward = (bars > 0) | ((bars == 0) & (positions > position))
        can_stay = self._instruments_at(state, jnp.ones_like(state.bar, bool), limits).any(axis=-1)
        here = (bars == 0) & (positions == position) & can_stay[:, None]
        inside = (positions < state.bar_ticks[:, None]) & (forward | here)
        # After a rest the music goes on in a later bar, and no sooner than in the first bar wanted.
        least = jnp.maximum(limits.first_bar - state.bar, state.instrument == ev.REST)[:, None]
        allowed = inside & (bars >= least)
        rest = (bars == self.tokenizer.max_bar_step) & (positions == 0)
        allowed = jnp.where(least > self.tokenizer.max_bar_step, rest, allowed)
        return allowed.at[:, ev.EOS].set(limits.may_end & (least[:, 0] <= 0))

    def instruments(self, state: GrammarState, onset: jax.Array, limits: Limits) -> jax.Array:
        """[B, V] instruments that may stand at `onset` [B]."""
        bars, position = jnp.divmod(onset - ev.FIRST, self.tokenizer.max_position)
        same = (bars == 0) & (position == state.position)
        allowed = self._instruments_at(state, same, limits)
        allowed &= (state.bar + bars >= limits.first_bar)[:, None]  # on the way there, nothing but rests
        rest = (bars == self.tokenizer.max_bar_step) & (position == 0)
        return allowed.at[:, ev.REST].set(rest)

    def _instruments_at(self, state: GrammarState, same_onset: jax.Array, limits: Limits) -> jax.Array:
        ids = np.arange(self.vocab_sizes[ev.INSTRUMENT])[None, :]
        last = state.instrument[:, None]
        _, high = self.pitch_range(state.instrument)
        higher_pitch = (state.instrument >= ev.FIRST_PROGRAM) & (state.pitch + 1 < high)
        later = (ids > last) | ((ids == last) & higher_pitch[:, None])
        return self.playable(limits)[None, :] & (ids > ev.REST) & (later | ~same_onset[:, None])

    def playable(self, limits: Limits) -> jax.Array:
        """[V_instrument]: the programs that may be played, and all that is no program."""
        return jnp.concatenate([jnp.ones(ev.FIRST_PROGRAM, bool), limits.programs])

    def pitches(self, state: GrammarState, onset: jax.Array, instrument: jax.Array) -> jax.Array:
        """[B, V] ids that fit the pitch slot of `instrument` [B]."""
        low, high = self.pitch_range(instrument)
        same = (onset == ev.FIRST + state.position) & (instrument == state.instrument)
        low = jnp.where(same & (instrument >= ev.FIRST_PROGRAM), state.pitch + 1, low)
        ids = np.arange(self.vocab_sizes[ev.PITCH])[None, :]
        return (ids >= low[:, None]) & (ids < high[:, None])

    def rest_of_note(self, instrument: jax.Array, attribute: int) -> jax.Array:
        """[B, V] durations or velocities: a value for a note, NONE for anything else."""
        ids = np.arange(self.vocab_sizes[attribute])[None, :]
        is_note = (instrument >= ev.FIRST_PROGRAM)[:, None]
        return jnp.where(is_note, ids >= ev.FIRST, ids == ev.NONE)

    def allowed(self, state: GrammarState, event: list, limits: Limits) -> jax.Array:
        """[B, V] ids that may follow the tokens (each [B]) of the `event` begun so far."""
        attribute = len(event)
        if attribute == ev.ONSET:
            return self.onsets(state, limits)
        if attribute == ev.INSTRUMENT:
            return self.instruments(state, event[ev.ONSET], limits)
        if attribute == ev.PITCH:
            return self.pitches(state, event[ev.ONSET], event[ev.INSTRUMENT])
        return self.rest_of_note(event[ev.INSTRUMENT], attribute)

    def advance(self, state: GrammarState, event: jax.Array) -> GrammarState:
        """The state after `event` [B, A]; BOS, EOS and PAD leave it as it is."""
        onset, instrument, pitch = event[:, ev.ONSET], event[:, ev.INSTRUMENT], event[:, ev.PITCH]
        bars, position = jnp.divmod(onset - ev.FIRST, self.tokenizer.max_position)
        is_meter = instrument == ev.METER_CHANGE
        cuts_bar = is_meter & (position > 0)  # a meter begins a bar where it stands
        ticks = jnp.where(is_meter, jnp.asarray(self.meter_ticks)[pitch], state.bar_ticks)
        moved = GrammarState(
            state.bar + bars + cuts_bar, jnp.where(is_meter, 0, position), ticks, instrument, pitch
        )
        inside = onset >= ev.FIRST
        return jax.tree.map(lambda new, old: jnp.where(inside, new, old).astype(jnp.int32), moved, state)

    def pitch_range(self, instrument: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[low, high) of the ids [B] in the pitch slot of each instrument."""
        low, high = jnp.asarray(self.tokenizer.pitch_ranges, jnp.int32).T
        row = ev.pitch_range_of(instrument)
        return low[row], high[row]
