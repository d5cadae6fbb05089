"""The grammar of the Multitrack Music Transformer's rows: masks that exclude ill-formed, out-of-order and duplicate rows.

Shapes: B rows of the batch, V ids of one attribute, I instruments. A step is one event: an MMT row of six tokens.
"""

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax import struct
from sage_jax.decoding.constraints import Constraints
from sage_jax.tokenizers import mmt
from sage_jax.tokenizers.mmt import Mmt
from sage_jax.tokenizers.mmt_instruments import INSTRUMENT_OF


@struct.dataclass
class MmtState(struct.Struct):
    """Position of each row, int32 [B] each.

    bar: index of the current bar; every bar has bar_ticks ticks. type, beat, position, pitch, duration, instrument: ids of the
    last step, 0 before any. After an instrument step the note's ids are 0.
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
        """The ids [B, 5] of the last note, in sort order: beat, position, pitch, duration, instrument."""
        return jnp.stack([self.beat, self.position, self.pitch, self.duration, self.instrument], axis=-1)


class MmtGrammar:
    """The grammar of Mmt, on the device.

    A piece has instruments, start-of-notes, notes and EOS. Instruments and notes are in strictly increasing order, so that time
    never decreases and nothing occurs twice. A note may have an instrument without an instrument row. If no note can follow,
    after the last beat or without allowed programs, EOS is the only choice, even if allow_eos is false.
    """

    def __init__(self, representation: Mmt):
        self.representation = representation
        self.vocab_sizes = representation.vocab_sizes
        # bool [I, 129]: whether an instrument stands for a program.
        instruments = np.arange(self.vocab_sizes[mmt.INSTRUMENT])[:, None]
        self._covers = (instruments > 0) & (instruments == INSTRUMENT_OF)

    def start(self, batch: int) -> MmtState:
        """The state before the first step."""
        values = (0, self.representation.bar_ticks, 0, 0, 0, 0, 0, 0)
        return MmtState(*(jnp.full((batch,), value, jnp.int32) for value in values))

    def tick(self, state: MmtState) -> jax.Array:
        """The tick of the last note, int32 [B]; 0 before any."""
        return jnp.maximum(_tick(state.beat, state.position), 0)

    def allowed(self, state: MmtState, step: list[jax.Array], constraints: Constraints) -> jax.Array:
        """bool [B, V] ids of the next attribute. `step`: the tokens of the step so far, [B] each."""
        attribute = len(step)
        playable = (self._covers[None] & constraints.programs[:, None, :]).any(axis=-1)
        last = self._last_note(state, constraints)
        later = self._later(last, playable)
        if attribute == mmt.TYPE:
            return self._types(state, later[0], playable, constraints)
        ids = np.arange(self.vocab_sizes[attribute])[None, :]
        kind = step[mmt.TYPE][:, None]
        place = attribute - mmt.BEAT
        # Notes are in lexicographic order: the first id that differs from the last note's decides.
        equal = jnp.ones_like(state.type, bool)
        for token, before in zip(step[mmt.BEAT :], last.T, strict=False):
            equal &= token == before
        bound = last[:, place, None]
        note = (ids > 0) & (~equal[:, None] | (ids > bound) | (ids == bound) & later[place + 1][:, None])
        unused = ids == 0
        if attribute < mmt.INSTRUMENT:
            return jnp.where(kind == mmt.NOTE_ROW, note, unused)
        instrument = playable & (ids > state.instrument[:, None])
        return jnp.where(kind == mmt.NOTE_ROW, note & playable, jnp.where(kind == mmt.INSTRUMENT_ROW, instrument, unused))

    def _last_note(self, state: MmtState, constraints: Constraints) -> jax.Array:
        """The ids [B, 5] that the next note must exceed: those of the last note, or of the first allowed tick."""
        end = self.representation.max_beats * mmt.RESOLUTION
        first = jnp.maximum(jnp.clip(constraints.first_bar, 0, end) * state.bar_ticks, constraints.first_tick)
        beat, position = jnp.divmod(first, mmt.RESOLUTION)
        zero = jnp.zeros_like(beat)
        first_note = jnp.stack([beat + 1, position + 1, zero, zero, zero], axis=-1)
        return jnp.where((_tick(state.beat, state.position) < first)[:, None], first_note, state.note)

    def _later(self, last: jax.Array, playable: jax.Array) -> list[jax.Array]:
        """For each attribute of a note, from the beat on: whether it and the attributes after it can still exceed `last`.

        A list of bool [B] with one more element, false, after the instrument.
        """
        highest = (playable * np.arange(playable.shape[1])[None, :]).max(axis=-1)
        later = [jnp.zeros_like(last[:, 0], bool), last[:, -1] < highest]
        for attribute in range(mmt.DURATION, mmt.TYPE, -1):
            before, top = last[:, attribute - mmt.BEAT], self.vocab_sizes[attribute] - 1
            # If the first allowed bar is after the last beat, `before` exceeds `top`.
            later.append((highest > 0) & (before < top) | (before <= top) & later[-1])
        return later[::-1]

    def _types(self, state: MmtState, can_continue: jax.Array, playable: jax.Array, constraints: Constraints) -> jax.Array:
        """bool [B, V] types allowed next. can_continue: bool [B], whether another note can follow."""
        ids = np.arange(self.vocab_sizes[mmt.TYPE])[None, :]
        has_instrument = (playable & (np.arange(playable.shape[1])[None, :] > state.instrument[:, None])).any(axis=-1)
        in_notes = state.type >= mmt.START_OF_NOTES
        is_late = (state.bar >= constraints.first_bar) & (self.tick(state) >= constraints.first_tick)
        ends = in_notes & (constraints.allow_eos & is_late | ~can_continue)
        allowed = (ids == mmt.EOS) & ends[:, None]
        allowed |= (ids == mmt.INSTRUMENT_ROW) & (~in_notes & has_instrument)[:, None]
        allowed |= (ids == mmt.START_OF_NOTES) & ~in_notes[:, None]
        return allowed | (ids == mmt.NOTE_ROW) & (in_notes & can_continue)[:, None]

    def advance(self, state: MmtState, step: jax.Array) -> MmtState:
        """The state after `step` [B, 6]. BOS, EOS and PAD do not change it."""
        kind, beat, position, pitch, duration, instrument = step.T
        bar = jnp.maximum(_tick(beat, position), 0) // state.bar_ticks
        moved = MmtState(bar, state.bar_ticks, kind, beat, position, pitch, duration, instrument)
        return jax.tree.map(lambda new, old: jnp.where(kind > mmt.EOS, new, old).astype(jnp.int32), moved, state)


def _tick(beat: jax.Array, position: jax.Array) -> jax.Array:
    """The tick of a note's ids; negative without a note."""
    return (beat - 1) * mmt.RESOLUTION + position - 1
