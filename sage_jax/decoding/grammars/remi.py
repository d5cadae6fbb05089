"""The grammar of REMI+ streams, with or without byte-pair encoding: masks of the ids that can follow the last one.

Shapes: B rows of the batch, V ids. A step is one id, which stands for one or more tokens of REMI+.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax import struct
from sage_jax.decoding.constraints import Constraints
from sage_jax.music.notes import DEFAULT_METER, DRUMS, bar_ticks
from sage_jax.tokenizers.bpe import RemiBpe
from sage_jax.tokenizers.remi import (
    BAR,
    DRUM,
    DURATION,
    EOS,
    KINDS,
    METER_OF,
    PITCH,
    POSITION,
    PROGRAM,
    SPECIAL,
    TEMPO_OF,
    VELOCITY,
)
from sage_jax.tokenizers.remi_table import INF, TokenTable

# After tokens of these kinds nothing is incomplete: a new onset or a new bar can follow.
SETTLED = [kind in (SPECIAL, BAR, METER_OF, TEMPO_OF, DURATION) for kind in range(len(KINDS))]
# An id that begins with one of these kinds continues a note of the id before.
INSIDE_NOTE = [kind in (PITCH, DRUM, VELOCITY, DURATION) for kind in range(len(KINDS))]


@struct.dataclass
class RemiState(struct.Struct):
    """Position of each row, int32 [B] each.

    kind: kind of the last REMI+ token. bar: index of the current bar. bar_start: tick at which it begins. position: the last
    Position in the bar, -1 before any; with per_track, in the track. bar_ticks: length of the bar. program: the last Program in
    the bar, -1 before any. min_note: smallest number (program * 128 + pitch) of the next note at this onset. back: 1 if the
    last Position did not exceed the one before, so that it begins another track.
    """

    kind: jax.Array
    bar: jax.Array
    bar_start: jax.Array
    position: jax.Array
    bar_ticks: jax.Array
    program: jax.Array
    min_note: jax.Array
    back: jax.Array


class RemiGrammar:
    """The grammar of `RemiBpe`, on the device: the grammar of REMI+ tokens, applied to all tokens of an id at once.

    Kinds follow each other as in `Remi.followers`. Positions increase within a bar and lie inside its meter. Notes at one onset
    are in order of program and pitch, each once. With per_track, a position may decrease if a program follows that is higher
    than the track's; tempo changes come in the first track of a bar only.
    """

    def __init__(self, representation: RemiBpe):
        self.representation = representation
        self.vocab_sizes = representation.vocab_sizes
        self._spans = representation.spans
        # The same table with fields [1, V], for masks over all ids.
        tables = {field.name: getattr(self._spans, field.name)[None] for field in dataclasses.fields(TokenTable)}
        self._all = TokenTable(**tables)
        self._meter_ticks = representation.grid.meter_ticks.astype(np.int32)
        # bool [kinds, V]: whether an id can follow a token of a kind. PAD and BOS never can.
        self._follows = representation.remi.follows[:, self._spans.first]
        self._follows[:, :EOS] = False

    def start(self, batch: int) -> RemiState:
        """The state before the first bar."""
        ticks = bar_ticks(*DEFAULT_METER, self.representation.grid.ticks_per_quarter)
        return RemiState(*(jnp.full((batch,), value, jnp.int32) for value in (SPECIAL, 0, 0, -1, ticks, -1, 0, 0)))

    def tick(self, state: RemiState) -> jax.Array:
        """The tick of the last id, int32 [B], from the beginning of the first bar."""
        return state.bar_start + jnp.maximum(state.position, 0)

    def allowed(self, state: RemiState, step: list[jax.Array], constraints: Constraints) -> jax.Array:
        """bool [B, V] ids allowed next. `step` is empty, because a step has one token."""
        spans = self._all
        rows = jax.tree.map(lambda values: values[:, None], state)
        follows = jnp.asarray(self._follows)[state.kind]
        # As a product, since [B, V, 129] would be large.
        excluded = jnp.einsum("vp,bp->bv", jnp.asarray(self._spans.programs, jnp.float32), ~constraints.programs * 1.0)
        inside = (spans.meter >= 0) | (spans.last_position < rows.bar_ticks)
        if self.representation.per_track:
            fits = self._tracks_fit(rows, constraints)
        else:
            fits = spans.first_position > self._position(rows)
        allowed = follows & (excluded == 0) & inside & fits & self._notes_fit(rows)
        # Before the first allowed bar only bars follow, once a note that the prompt left incomplete is complete.
        next_bar = spans.begins_bar & (rows.kind != SPECIAL)
        position = jnp.where(spans.first_position < INF, spans.first_position, jnp.maximum(self._position(rows), 0))
        tick = rows.bar_start + next_bar * rows.bar_ticks + position
        early = (rows.bar + next_bar < constraints.first_bar[:, None]) | (tick < constraints.first_tick[:, None])
        allowed &= ~(early & spans.has_moment & jnp.array(SETTLED)[rows.kind])
        allow_eos = constraints.allow_eos & (state.bar >= constraints.first_bar) & (self.tick(state) >= constraints.first_tick)
        return allowed.at[:, EOS].set(follows[:, EOS] & allow_eos)

    def _position(self, rows: RemiState) -> jax.Array:
        """[B, V]: the position that the first Position of an id must exceed."""
        return jnp.where(self._all.begins_bar, -1, rows.position)

    def _notes_fit(self, rows: RemiState) -> jax.Array:
        """bool [B, V]: whether pitches fit their programs, and the notes at an id's first onset are in order, each once."""
        spans = self._all
        number = rows.program * 128 + spans.opening_pitch
        opens = spans.opening_pitch >= 0
        fits = ~opens | ((number >= rows.min_note) & ((spans.first == DRUM) == (rows.program == DRUMS)))
        return fits & (spans.next_note >= jnp.where(opens, number + 1, rows.min_note))

    def _tracks_fit(self, rows: RemiState, constraints: Constraints) -> jax.Array:
        """bool [B, V]: whether positions and programs fit with per_track. An id has notes of one track at most."""
        spans = self._all
        position, program = self._position(rows), jnp.where(spans.begins_bar, -1, rows.program)
        id_program = spans.last_program
        begins_at_position = spans.first == POSITION
        forward = spans.first_position > position
        back = jnp.where(begins_at_position, ~forward, rows.back > 0)
        same_onset = jnp.array(INSIDE_NOTE)[spans.first] | ((spans.first == PROGRAM) & (rows.kind == DURATION))
        min_program = jnp.maximum(program + back, 0)
        program_fits = (id_program < 0) | jnp.where(same_onset, id_program == program, id_program >= min_program)
        tempo_fits = ~spans.has_tempo | ((program < 0) & ~back)
        # After a final Position some allowed program must remain that can play there.
        highest = jnp.max(jnp.where(constraints.programs, np.arange(DRUMS + 1)[None], -1), axis=-1, keepdims=True)
        needs_next_track = jnp.where(spans.single & begins_at_position, back, False)
        track = jnp.where(id_program >= 0, id_program, program)
        is_playable = (highest >= jnp.maximum(track + needs_next_track, 0)) | ((track < 0) & ~needs_next_track)
        return (forward | begins_at_position) & program_fits & tempo_fits & (is_playable | (spans.last != POSITION))

    def advance(self, state: RemiState, step: jax.Array) -> RemiState:
        """The state after `step` [B, 1]. BOS, EOS and PAD do not change it."""
        ids = step[:, 0]
        span = lambda name: jnp.asarray(getattr(self._spans, name))[ids]
        begins_bar, id_program, last_position = span("begins_bar"), span("last_program"), span("last_position")
        next_bar = begins_bar & (state.kind != SPECIAL)
        position = jnp.where(begins_bar, -1, state.position)
        program = jnp.where(id_program >= 0, id_program, jnp.where(begins_bar, -1, state.program))
        back = span("single") & (span("first") == POSITION) & (last_position <= position)
        at_new_onset = jnp.maximum(program + back, 0) * 128 if self.representation.per_track else 0
        pitch, pitch_program = span("last_pitch"), span("last_pitch_program")
        number = jnp.where(pitch_program >= 0, pitch_program, state.program) * 128 + pitch
        moved = RemiState(
            kind=span("last"),
            bar=state.bar + next_bar,
            bar_start=state.bar_start + next_bar * state.bar_ticks,
            position=jnp.where(last_position >= 0, last_position, position),
            bar_ticks=jnp.where(span("meter") >= 0, jnp.asarray(self._meter_ticks)[span("meter")], state.bar_ticks),
            program=program,
            min_note=jnp.where(pitch >= 0, number + 1, jnp.where(span("moves"), at_new_onset, state.min_note)),
            back=back,
        )
        return jax.tree.map(lambda new, old: jnp.where(ids > EOS, new, old).astype(jnp.int32), moved, state)
