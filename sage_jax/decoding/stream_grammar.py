"""What may come next in a stream of REMI+, merged or not: masks under which every id that is drawn fits behind the last one."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.decoding.grammar import Limits
from sage_jax.music.bpe import RemiBpe
from sage_jax.music.notes import DEFAULT_METER, DRUMS, bar_ticks
from sage_jax.music.remi import (
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
from sage_jax.music.spans import Spans

# Behind these kinds nothing is left open: a moment may begin or the bar may end.
SETTLED = [kind in (SPECIAL, BAR, METER_OF, TEMPO_OF, DURATION) for kind in range(len(KINDS))]
# With these kinds an id goes on with a note that was begun.
INSIDE_NOTE = [kind in (PITCH, DRUM, VELOCITY, DURATION) for kind in range(len(KINDS))]


@flax.struct.dataclass
class StreamState:
    """Where each row [B] stands: int32 throughout.

    kind: of the last token of REMI+. bar: bars begun since the first one. position: the last one told in the bar (and, track
    after track, in its track), -1 before any. bar_ticks: the bar's length. program: the last one told in the bar, -1 before
    any. least_note: the number (program * 128 + pitch) that the next note at this moment must have at least. back: 1 where the
    last position was not behind the one before, so that another track begins with it.
    """

    kind: jax.Array
    bar: jax.Array
    position: jax.Array
    bar_ticks: jax.Array
    program: jax.Array
    least_note: jax.Array
    back: jax.Array


class StreamGrammar:
    """The grammar of `RemiBpe`, on the device: that of its tokens of REMI+, asked for all tokens of an id at once.

    Kinds follow each other as in `Remi.followers`. Positions go forward within a bar and lie inside its meter; notes at one
    moment are told in order of program and pitch, each once. Track after track, a position may go back, but only where a
    program follows that is higher than the track's, and no tempo changes behind the first track of a bar.
    """

    def __init__(self, representation: RemiBpe):
        self.representation = representation
        self.vocab_sizes = representation.vocab_sizes
        self._spans = representation.spans
        # The same as rows [1, V], for what is asked of all ids at once.
        tables = {field.name: getattr(self._spans, field.name)[None] for field in dataclasses.fields(Spans)}
        self._all = Spans(**tables)
        self._meter_ticks = representation.grid.meter_ticks.astype(np.int32)
        # [kinds, V] whether an id may stand behind a token of a kind. PAD and BOS never may.
        self._follows = representation.remi.follows[:, self._spans.first]
        self._follows[:, :EOS] = False

    def start(self, batch: int) -> StreamState:
        """Before the first bar."""
        ticks = bar_ticks(*DEFAULT_METER, self.representation.grid.ticks_per_quarter)
        return StreamState(*(jnp.full((batch,), value, jnp.int32) for value in (SPECIAL, 0, -1, ticks, -1, 0, 0)))

    def allowed(self, state: StreamState, step: list, limits: Limits) -> jax.Array:
        """[B, V] ids that may come next; `step` is empty, since a step is one token."""
        spans = self._all
        rows = jax.tree.map(lambda values: values[:, None], state)
        follows = jnp.asarray(self._follows)[state.kind]
        playable = ~(spans.programs & ~limits.programs[None, None, :]).any(axis=-1)
        inside = (spans.meter >= 0) | (spans.last_position < rows.bar_ticks)
        fits = self._tracks_fit(rows, limits) if self.representation.per_track else spans.first_position > self._position(rows)
        allowed = follows & playable & inside & fits & self._notes_fit(rows)
        # On the way to the first bar wanted there are bars alone, but what a prompt left open is told to its end.
        bar = rows.bar + (spans.begins_bar & (rows.kind != SPECIAL))
        early = bar < jnp.asarray(limits.first_bar)[:, None]
        allowed &= ~(early & spans.has_moment & jnp.array(SETTLED)[rows.kind])
        may_end = limits.may_end & (state.bar >= limits.first_bar)
        return allowed.at[:, EOS].set(follows[:, EOS] & may_end)

    def _position(self, rows: StreamState) -> jax.Array:
        """The position that the next one must lie behind."""
        return jnp.where(self._all.begins_bar, -1, rows.position)

    def _notes_fit(self, rows: StreamState) -> jax.Array:
        """Whether pitches fit their programs, and notes come in order, each once, at the moment at which an id begins."""
        spans = self._all
        number = rows.program * 128 + spans.opening_pitch
        opens = spans.opening_pitch >= 0
        fits = ~opens | ((number >= rows.least_note) & ((spans.first == DRUM) == (rows.program == DRUMS)))
        return fits & (spans.next_note >= jnp.where(opens, number + 1, rows.least_note))

    def _tracks_fit(self, rows: StreamState, limits: Limits) -> jax.Array:
        """Whether times and programs fit where bars are told track after track; an id has notes of one track at most."""
        spans = self._all
        position, program = self._position(rows), jnp.where(spans.begins_bar, -1, rows.program)
        told = spans.last_program
        begins = spans.first == POSITION
        ahead = spans.first_position > position
        back = jnp.where(begins, ~ahead, rows.back > 0)
        goes_on = jnp.array(INSIDE_NOTE)[spans.first] | ((spans.first == PROGRAM) & (rows.kind == DURATION))
        least = jnp.maximum(program + back, 0)
        same_track = (told < 0) | jnp.where(goes_on, told == program, told >= least)
        tempo_fits = ~spans.has_tempo | ((program < 0) & ~back)
        # A position that is last in an id must leave something to play there.
        highest = jnp.max(jnp.where(limits.programs, np.arange(DRUMS + 1), -1))
        left_open = jnp.where(spans.single & begins, back, False)
        track = jnp.where(told >= 0, told, program)
        room = (highest >= jnp.maximum(track + left_open, 0)) | ((track < 0) & ~left_open)
        return (ahead | begins) & same_track & tempo_fits & (room | (spans.last != POSITION))

    def advance(self, state: StreamState, step: jax.Array) -> StreamState:
        """The state after `step` [B, 1]; BOS, EOS and PAD leave it as it is."""
        ids = step[:, 0]
        span = lambda name: jnp.asarray(getattr(self._spans, name))[ids]
        begins_bar, told, last_position = span("begins_bar"), span("last_program"), span("last_position")
        position = jnp.where(begins_bar, -1, state.position)
        program = jnp.where(told >= 0, told, jnp.where(begins_bar, -1, state.program))
        back = span("single") & (span("first") == POSITION) & (last_position <= position)
        at_new_moment = jnp.maximum(program + back, 0) * 128 if self.representation.per_track else 0
        pitch, pitch_program = span("last_pitch"), span("last_pitch_program")
        number = jnp.where(pitch_program >= 0, pitch_program, state.program) * 128 + pitch
        moved = StreamState(
            kind=span("last"),
            bar=state.bar + (begins_bar & (state.kind != SPECIAL)),
            position=jnp.where(last_position >= 0, last_position, position),
            bar_ticks=jnp.where(span("meter") >= 0, jnp.asarray(self._meter_ticks)[span("meter")], state.bar_ticks),
            program=program,
            least_note=jnp.where(pitch >= 0, number + 1, jnp.where(span("moves"), at_new_moment, state.least_note)),
            back=back,
        )
        return jax.tree.map(lambda new, old: jnp.where(ids > EOS, new, old).astype(jnp.int32), moved, state)
