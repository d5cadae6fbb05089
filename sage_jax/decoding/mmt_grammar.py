"""What may come next in the Multitrack Music Transformer's rows: masks under which none is ill-formed, late or a repetition."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.decoding.grammar import Limits
from sage_jax.music import mmt
from sage_jax.music.mmt import Mmt
from sage_jax.music.mmt_instruments import INSTRUMENT_OF


@flax.struct.dataclass
class MmtState:
    """Where each row of a batch [B] stands: int32 throughout.

    bar: bars begun since the first one, each of bar_ticks. type, beat, position, pitch, duration, instrument: ids of the last
    step, 0 before any; of an instrument's, those of the notes are 0.
    """

    bar: jax.Array
    bar_ticks: jax.Array
    type: jax.Array
    beat: jax.Array
    position: jax.Array
    pitch: jax.Array
    duration: jax.Array
    instrument: jax.Array

    @property
    def note(self) -> jax.Array:
        """The ids [B, 5] of the last note, in the order that notes are sorted by."""
        return jnp.stack([self.beat, self.position, self.pitch, self.duration, self.instrument], axis=-1)


class MmtGrammar:
    """The grammar of Mmt, on the device.

    Instruments, start-of-notes, notes, the end. Instruments and notes follow in order, each later than the one before: so time
    never goes back and nothing comes twice. A note may be of an instrument that no row has told. Where no note can follow, at
    the end of the last beat or as nothing may play, there is nothing but the end, whether it may come or not.
    """

    def __init__(self, representation: Mmt):
        self.representation = representation
        self.vocab_sizes = representation.vocab_sizes
        # Whether an instrument [65] tells a program [129].
        instruments = np.arange(self.vocab_sizes[mmt.INSTRUMENT])[:, None]
        self._tells = (instruments > 0) & (instruments == INSTRUMENT_OF)

    def start(self, batch: int) -> MmtState:
        """Before the first step."""
        values = (0, self.representation.bar_ticks, 0, 0, 0, 0, 0, 0)
        return MmtState(*(jnp.full((batch,), value, jnp.int32) for value in values))

    def allowed(self, state: MmtState, step: list, limits: Limits) -> jax.Array:
        """[B, V] ids that may follow the tokens (each [B]) of the `step` begun so far."""
        attribute = len(step)
        playable = (self._tells & limits.programs[None, :]).any(axis=-1)[None, :]
        last = self._last_note(state, limits)
        later = self._later(last, playable)
        if attribute == mmt.TYPE:
            return self._types(state, later[0], playable, limits)
        ids = np.arange(self.vocab_sizes[attribute])[None, :]
        kind = step[mmt.TYPE][:, None]
        place = attribute - mmt.BEAT
        # A note is later than the last one by the first of its ids that differs.
        equal = jnp.ones_like(state.type, bool)
        for token, before in zip(step[mmt.BEAT :], last.T, strict=False):
            equal &= token == before
        bound = last[:, place, None]
        note = (ids > 0) & (~equal[:, None] | (ids > bound) | (ids == bound) & later[place + 1][:, None])
        none = ids == 0
        if attribute < mmt.INSTRUMENT:
            return jnp.where(kind == mmt.NOTE_ROW, note, none)
        row = playable & (ids > state.instrument[:, None])
        return jnp.where(kind == mmt.NOTE_ROW, note & playable, jnp.where(kind == mmt.INSTRUMENT_ROW, row, none))

    def _last_note(self, state: MmtState, limits: Limits) -> jax.Array:
        """The ids [B, 5] that those of the next note come behind: of the last one, or of the first tick that is wanted."""
        end = self.representation.max_beats * mmt.RESOLUTION
        first = jnp.clip(limits.first_bar, 0, end) * state.bar_ticks
        beat, position = jnp.divmod(first, mmt.RESOLUTION)
        nothing = jnp.zeros_like(beat)
        wanted = jnp.stack([beat + 1, position + 1, nothing, nothing, nothing], axis=-1)
        return jnp.where((_tick(state.beat, state.position) < first)[:, None], wanted, state.note)

    def _later(self, last: jax.Array, playable: jax.Array) -> list[jax.Array]:
        """For each attribute of a note, from the beat on, whether [B] it and those behind it can still come behind `last`.

        One more at the end, behind the instrument, where nothing can.
        """
        highest = (playable * np.arange(playable.shape[1])[None, :]).max()
        later = [jnp.zeros_like(last[:, 0], bool), last[:, -1] < highest]
        for attribute in range(mmt.DURATION, mmt.TYPE, -1):
            before, top = last[:, attribute - mmt.BEAT], self.vocab_sizes[attribute] - 1
            # A beat beyond the last one, of a bar that is wanted too late, is never reached.
            later.append((highest > 0) & (before < top) | (before <= top) & later[-1])
        return later[::-1]

    def _types(self, state: MmtState, can_go_on: jax.Array, playable: jax.Array, limits: Limits) -> jax.Array:
        ids = np.arange(self.vocab_sizes[mmt.TYPE])[None, :]
        more = (playable & (np.arange(playable.shape[1])[None, :] > state.instrument[:, None])).any(axis=-1)
        in_notes = state.type >= mmt.START_OF_NOTES
        ends = in_notes & (limits.may_end & (state.bar >= limits.first_bar) | ~can_go_on)
        allowed = (ids == mmt.EOS) & ends[:, None]
        allowed |= (ids == mmt.INSTRUMENT_ROW) & (~in_notes & more)[:, None]
        allowed |= (ids == mmt.START_OF_NOTES) & ~in_notes[:, None]
        return allowed | (ids == mmt.NOTE_ROW) & (in_notes & can_go_on)[:, None]

    def advance(self, state: MmtState, step: jax.Array) -> MmtState:
        """The state after `step` [B, 6]; BOS, EOS and PAD leave it as it is."""
        kind, beat, position, pitch, duration, instrument = step.T
        bar = jnp.maximum(_tick(beat, position), 0) // state.bar_ticks
        moved = MmtState(bar, state.bar_ticks, kind, beat, position, pitch, duration, instrument)
        return jax.tree.map(lambda new, old: jnp.where(kind > mmt.EOS, new, old).astype(jnp.int32), moved, state)


def _tick(beat: jax.Array, position: jax.Array) -> jax.Array:
    """The tick of a note's ids; below 0 where there is none."""
    return (beat - 1) * mmt.RESOLUTION + position - 1
