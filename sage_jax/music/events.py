"""NoteEvents: a piece as a sequence of events, each a fixed cycle of five tokens."""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Sequence

import numpy as np

from sage_jax.errors import UserError
from sage_jax.music.loss import GridLoss
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, DRUMS, METER, NOTE, TEMPO, Piece, bar_ticks, canonical
from sage_jax.music.windows import BarWindows

ATTRIBUTES = ("onset", "instrument", "pitch", "duration", "velocity")
NUM_ATTRIBUTES = len(ATTRIBUTES)
ONSET, INSTRUMENT, PITCH, DURATION, VELOCITY = range(NUM_ATTRIBUTES)

HEAD = 3  # the events that a crop begins with: BOS, the meter and the tempo in force

# Every attribute's block of the vocabulary begins with the same four ids. NONE fills what an event has no use for.
PAD, BOS, EOS, NONE = range(4)
FIRST = 4  # the id of an attribute's first value

# Instrument ids, in canonical order: what stands at one onset stands in this order.
REST, METER_CHANGE, TEMPO_CHANGE = FIRST, FIRST + 1, FIRST + 2
FIRST_PROGRAM = FIRST + 3
DRUM_KIT = FIRST_PROGRAM + DRUMS

# Pitch ids: pitches, then drum sounds, then tempos, then meters.
FIRST_PITCH = FIRST
FIRST_DRUM = FIRST_PITCH + 128
FIRST_TEMPO = FIRST_DRUM + 128


@dataclasses.dataclass(frozen=True)
class NoteEvents(BarWindows):
    """The tokenizer: a piece is an int16 array [N, 5] of ids, one block of ids per attribute, BOS first and EOS last.

    - onset: bars advanced since the last event and position in the bar, one token. A rest of more than `max_bar_step`
      bars is a chain of REST events.
    - instrument: program, drums, or a meta instrument (rest, meter, tempo) whose value stands in the pitch slot.
    - a meter change begins a bar at its own onset, so a bar that it cuts short (a pickup) keeps its length.

    Events are in the order onset, instrument, pitch, and no two notes have the same three. For every piece q that
    `quantize` returned, decode(encode(q)) == q. Raises UserError for impossible settings.
    """

    ticks_per_quarter: int = 12
    max_bar_step: int = 3
    max_bar_quarters: int = 8
    num_velocities: int = 32

    attributes = ATTRIBUTES
    HEAD = HEAD

    def __post_init__(self):
        for field, low, high in (
            ("ticks_per_quarter", 4, 96),
            ("max_bar_step", 1, 16),
            ("max_bar_quarters", 4, 16),
            ("num_velocities", 1, 127),
        ):
            value = getattr(self, field)
            if not isinstance(value, int) or not low <= value <= high:
                raise UserError(f"tokenizer.{field} is {value!r}; give a whole number from {low} to {high}")

    # Vocabulary

    @property
    def max_position(self) -> int:
        """Ticks in the longest bar that the vocabulary knows."""
        return self.max_bar_quarters * self.ticks_per_quarter

    @functools.cached_property
    def durations(self) -> np.ndarray:
        """Durations in ticks: every tick up to two quarters, then ever coarser, up to 64 quarters."""
        quarter = self.ticks_per_quarter
        steps = ((2, 1), (4, quarter // 4), (8, quarter // 2), (16, quarter), (64, 4 * quarter))
        values, last = [], 0
        for until, step in steps:
            values.append(np.arange(last + step, until * quarter + 1, step))
            last = until * quarter
        return np.concatenate(values)

    @functools.cached_property
    def velocities(self) -> np.ndarray:
        """MIDI velocities: the middle of each of `num_velocities` equal bins."""
        edges = 1 + 127 * np.arange(self.num_velocities + 1) // self.num_velocities
        return (edges[:-1] + edges[1:] - 1) // 2

    @functools.cached_property
    def tempos(self) -> np.ndarray:
        """Quarters per minute from 20 to 320, about 3% apart."""
        return np.unique(np.round(20 * 2 ** (np.arange(97) / 24)))

    @functools.cached_property
    def meters(self) -> tuple[tuple[int, int], ...]:
        """(numerator, denominator) of every bar of whole ticks that is no longer than `max_bar_quarters`."""
        return tuple(
            (numerator, denominator)
            for denominator in (1, 2, 4, 8, 16)
            for numerator in range(1, 17)
            if 4 * numerator <= self.max_bar_quarters * denominator
            and 4 * self.ticks_per_quarter * numerator % denominator == 0
        )

    @property
    def first_meter(self) -> int:
        return FIRST_TEMPO + len(self.tempos)

    @functools.cached_property
    def meter_ticks(self) -> np.ndarray:
        """The length in ticks of a bar of each meter."""
        numerators, denominators = np.array(self.meters).T
        return bar_ticks(numerators, denominators, self.ticks_per_quarter)

    @functools.cached_property
    def vocab_sizes(self) -> tuple[int, ...]:
        """The number of ids in each attribute's block."""
        return (
            FIRST + (self.max_bar_step + 1) * self.max_position,
            DRUM_KIT + 1,
            self.first_meter + len(self.meters),
            FIRST + len(self.durations),
            FIRST + self.num_velocities,
        )

    # Pieces to events

    def quantize(self, piece: Piece, loss: GridLoss | None = None, end: int | None = None) -> Piece:
        """The nearest piece that the vocabulary can encode; what that loses is added to `loss`.

        end: the tick before which tempos and meters count, by default that at which the last note ends. Of notes with the same
        onset, program and pitch the longest is kept. Raises ValueError for another grid.
        """
        if piece.ticks_per_quarter != self.ticks_per_quarter:
            raise ValueError(f"the piece has {piece.ticks_per_quarter} ticks per quarter, not {self.ticks_per_quarter}")
        loss = GridLoss() if loss is None else loss
        notes = piece.notes.copy()
        notes["duration"] = _nearest(self.durations, notes["duration"])
        notes["velocity"] = _nearest(self.velocities, notes["velocity"])
        error = np.abs(notes["duration"] - piece.notes["duration"])
        loss.duration_error_ticks += float(error.sum())
        loss.duration_error_ticks_max = max(loss.duration_error_ticks_max, float(error.max(initial=0)))
        loss.durations_clipped += int((piece.notes["duration"] > self.durations[-1]).sum())
        louder = np.abs(notes["velocity"] - piece.notes["velocity"])
        loss.velocities_changed += int((louder > 0).sum())
        loss.velocity_error += float(louder.sum())
        loss.velocity_error_max = max(loss.velocity_error_max, float(louder.max(initial=0)))
        notes = canonical(notes)
        same = np.ones(max(len(notes) - 1, 0), bool)
        for field in ("onset", "program", "pitch"):
            same &= notes[field][1:] == notes[field][:-1]
        loss.duplicate_notes += int(same.sum())
        notes = notes[np.append(~same, True)] if len(notes) else notes
        # A change after the last note changes nothing, and would take tokens.
        if end is None:
            end = int((notes["onset"].astype(np.int64) + notes["duration"]).max(initial=0))
        tempos, meters = (changes[changes["tick"] < max(end, 1)] for changes in (piece.tempos, piece.meters))
        loss.changes_after_the_end += len(piece.tempos) - len(tempos) + len(piece.meters) - len(meters)
        meters = self._quantize_meters(meters, end, loss)
        return dataclasses.replace(piece, notes=notes, tempos=self._quantize_tempos(tempos, loss), meters=meters)

    def _quantize_tempos(self, tempos: np.ndarray, loss: GridLoss) -> np.ndarray:
        nearest = tempos.copy()
        nearest["qpm"] = _nearest(self.tempos, tempos["qpm"])
        error = np.abs(nearest["qpm"] / tempos["qpm"] - 1)
        loss.tempos_clipped += int(((tempos["qpm"] < self.tempos[0]) | (tempos["qpm"] > self.tempos[-1])).sum())
        loss.tempo_error_max = max(loss.tempo_error_max, float(error.max()))
        changed = np.append(True, np.diff(nearest["qpm"]) != 0)
        loss.tempos_merged += int((~changed).sum())
        return nearest[changed]

    def _quantize_meters(self, meters: np.ndarray, end: int, loss: GridLoss) -> np.ndarray:
        """`meters` as the vocabulary has them, for a piece that ends at the tick `end`."""
        rows = []
        for (tick, *meter), until in zip(meters.tolist(), [*meters["tick"][1:].tolist(), end], strict=True):
            parts = _split(self.meters, *meter)
            loss.meters_split += len(parts) > 1
            loss.meters_replaced += not parts
            rows += self._in_turn(parts or [DEFAULT_METER], tick, until)
        nearest = np.array(rows, METER)
        kept = [0]
        for index in range(1, len(nearest)):
            last = nearest[kept[-1]]
            length = bar_ticks(last["numerator"], last["denominator"], self.ticks_per_quarter)
            on_bar_line = (nearest["tick"][index] - last["tick"]) % length == 0
            if on_bar_line and tuple(nearest[index])[1:] == tuple(last)[1:]:
                loss.meters_merged += 1
            else:
                kept.append(index)
        return nearest[kept]

    def _in_turn(self, parts: Sequence[tuple[int, int]], tick: int, until: int) -> list[tuple[int, int, int]]:
        """(tick, numerator, denominator) of bars of `parts` in turn, from `tick` to `until`, where the meter changes."""
        rows = [(tick, *parts[0])]
        for part, following in zip(itertools.cycle(parts), itertools.islice(itertools.cycle(parts), 1, None), strict=False):
            tick += int(bar_ticks(*part, self.ticks_per_quarter))
            if tick >= until or len(set(parts)) == 1:
                return rows
            if following != part:
                rows.append((tick, *following))

    def encode(self, piece: Piece) -> np.ndarray:
        """The events of a quantized piece, int16 [N, 5]. Raises ValueError for one that is not quantized."""
        notes, tempos, meters = piece.notes, piece.tempos, piece.meters
        meter_ids = [self._meter_id(meter) for meter in meters[["numerator", "denominator"]].tolist()]
        drums = notes["program"] == DRUMS
        ticks = np.concatenate([meters["tick"], tempos["tick"], notes["onset"]]).astype(np.int64)
        events = np.full((len(ticks), NUM_ATTRIBUTES), NONE, np.int64)
        meta, first_note = len(meters), len(meters) + len(tempos)
        events[:meta, INSTRUMENT], events[:meta, PITCH] = METER_CHANGE, meter_ids
        events[meta:first_note, INSTRUMENT] = TEMPO_CHANGE
        events[meta:first_note, PITCH] = FIRST_TEMPO + index_in(self.tempos, tempos["qpm"], "tempo")
        events[first_note:, INSTRUMENT] = FIRST_PROGRAM + notes["program"]
        events[first_note:, PITCH] = np.where(drums, FIRST_DRUM, FIRST_PITCH) + notes["pitch"]
        events[first_note:, DURATION] = FIRST + index_in(self.durations, notes["duration"], "duration")
        events[first_note:, VELOCITY] = FIRST + index_in(self.velocities, notes["velocity"], "velocity")
        # Notes are in order already, so only where the few meta events go is looked for.
        place = np.searchsorted(ticks[first_note:], ticks[:first_note], "left")
        order = np.lexsort((events[:first_note, INSTRUMENT], ticks[:first_note]))
        events = np.insert(events[first_note:], place[order], events[:first_note][order], axis=0)
        ticks = np.insert(ticks[first_note:], place[order], ticks[:first_note][order])

        bar, position, _ = piece.bars.locate(ticks)
        is_meter = events[:, INSTRUMENT] == METER_CHANGE
        # A meter event stands where the old meter counts it, and what follows counts from the bar that it begins.
        cut = np.flatnonzero(is_meter)[1:]
        into_bar = (ticks[cut] - piece.bars.starts[:-1]) % piece.bars.lengths[:-1]
        position[cut] = into_bar
        advanced = np.diff(bar, prepend=0)
        advanced[cut] -= into_bar > 0
        rests = np.maximum(advanced - 1, 0) // self.max_bar_step
        if (position >= self.max_position).any():
            raise ValueError("a bar is longer than the vocabulary knows; quantize the piece first")
        events[:, ONSET] = FIRST + (advanced - rests * self.max_bar_step) * self.max_position + position
        rest = (FIRST + self.max_bar_step * self.max_position, REST, NONE, NONE, NONE)
        events = np.insert(events, np.repeat(np.arange(len(events)), rests), rest, axis=0)
        ends = np.full((2, NUM_ATTRIBUTES), [[BOS], [EOS]])
        return np.concatenate([ends[:1], events, ends[1:]]).astype(np.int16)

    def _meter_id(self, meter: tuple[int, int]) -> int:
        if meter not in self.meters:
            raise ValueError(f"meter {meter[0]}/{meter[1]} is not in the vocabulary; quantize the piece first")
        return self.first_meter + self.meters.index(meter)

    # Events to pieces

    def decode(self, events: np.ndarray) -> Piece:
        """The piece that `events` [N, 5] tell, up to the first EOS; BOS and PAD are passed over.

        Without a meter or a tempo of its own at its beginning the piece gets 4/4 or 120. Raises ValueError for an event
        that the vocabulary does not know.
        """
        events = np.asarray(events, np.int64)
        stop = np.flatnonzero(events[:, ONSET] == EOS)
        events = events[: stop[0]] if len(stop) else events
        events = events[events[:, ONSET] >= FIRST]
        self._check(events)
        advanced, position = np.divmod(events[:, ONSET] - FIRST, self.max_position)
        kind, value = events[:, INSTRUMENT], events[:, PITCH]
        ticks, meter_rows = self._ticks(advanced, position, kind == METER_CHANGE, value)

        is_note, is_tempo = kind >= FIRST_PROGRAM, kind == TEMPO_CHANGE
        notes = np.zeros(int(is_note.sum()), NOTE)
        notes["onset"], notes["program"] = ticks[is_note], kind[is_note] - FIRST_PROGRAM
        pitch = value[is_note]
        notes["pitch"] = pitch - np.where(pitch >= FIRST_DRUM, FIRST_DRUM, FIRST_PITCH)
        notes["duration"] = self.durations[events[is_note, DURATION] - FIRST]
        notes["velocity"] = self.velocities[events[is_note, VELOCITY] - FIRST]
        tempos = np.zeros(int(is_tempo.sum()), TEMPO)
        tempos["tick"], tempos["qpm"] = ticks[is_tempo], self.tempos[value[is_tempo] - FIRST_TEMPO]
        meters = np.array([(tick, *self.meters[meter]) for tick, meter in meter_rows], METER)
        return Piece.from_changes(notes, tempos, meters, self.ticks_per_quarter)

    def _ticks(self, advanced, position, is_meter, value) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """The tick of every event, and (tick, index of the meter) of every meter event."""
        changes = np.flatnonzero(is_meter)
        meter_index = value[changes] - self.first_meter
        default = bar_ticks(*DEFAULT_METER, self.ticks_per_quarter)
        # Events after a meter event, and the next meter event itself, count bars from it in its own bar length.
        segment = np.cumsum(is_meter) - is_meter
        lengths = np.concatenate([[default], self.meter_ticks[meter_index]])
        bars = np.cumsum(advanced)
        bars = bars - np.concatenate([[0], bars[changes]])[segment]
        ticks = bars * lengths[segment] + position
        begins = np.concatenate([[0], np.cumsum(ticks[changes])])
        ticks = ticks + begins[segment]
        return ticks, list(zip(begins[1:].tolist(), meter_index.tolist(), strict=True))

    def _check(self, events: np.ndarray) -> None:
        kind = events[:, INSTRUMENT]
        for known, name in (
            ((events >= NONE).all() and (events < self.vocab_sizes).all(), "id"),
            ((kind >= REST).all(), "instrument"),
            (self.pitch_fits(kind, events[:, PITCH]).all(), "pitch"),
            ((events[kind >= FIRST_PROGRAM][:, DURATION:] >= FIRST).all(), "duration or velocity"),
        ):
            if not known:
                raise ValueError(f"an event has an {name} that the vocabulary does not know at its place")

    def pitch_fits(self, kind: np.ndarray, pitch: np.ndarray) -> np.ndarray:
        """Whether each pitch id may stand beside its instrument id, which must be a known one."""
        low, high = np.array(self.pitch_ranges).T
        which = pitch_range_of(kind)
        return (pitch >= low[which]) & (pitch < high[which])

    @property
    def pitch_ranges(self) -> tuple[tuple[int, int], ...]:
        """[low, high) of the ids in the pitch slot of a rest, a meter, a tempo, a pitched note and a drum."""
        end = self.first_meter + len(self.meters)
        return (
            (NONE, FIRST),
            (self.first_meter, end),
            (FIRST_TEMPO, self.first_meter),
            (FIRST_PITCH, FIRST_DRUM),
            (FIRST_DRUM, FIRST_TEMPO),
        )

    # Work on events as they are

    @property
    def grid(self) -> "NoteEvents":
        """The tables of ticks, durations, velocities, tempos and meters: its own."""
        return self

    @classmethod
    def num_notes(cls, events: np.ndarray) -> np.ndarray:
        """The notes that each of `events` [..., 5] completes, int32 [...]."""
        return cls.is_note(events).astype(np.int32)

    @staticmethod
    def head_length(events: np.ndarray) -> int:
        """The events that are given where a crop is scored: BOS, the meter and the tempo in force."""
        return HEAD

    @staticmethod
    def sounding(events: np.ndarray) -> np.ndarray:
        """Indices of the events that a crop can begin with: all but BOS, EOS and rests."""
        return np.flatnonzero(events[:, INSTRUMENT] > REST)

    def bar_of(self, events: np.ndarray, index: int) -> int:
        """The number of the bar in which the event at `index` stands, or which it begins."""
        before = self.decode(events[: index + 1])
        changes = (before.notes["onset"], before.tempos["tick"], before.meters["tick"])
        latest = max(ticks[-1] for ticks in changes if len(ticks))
        return before.bar_of(int(latest))

    @staticmethod
    def is_note(events: np.ndarray) -> np.ndarray:
        """Which events [..., 5] are notes, drums among them."""
        return events[..., INSTRUMENT] >= FIRST_PROGRAM

    def bar_starts(self, events: np.ndarray) -> np.ndarray:
        """Indices of the events that are the first in their bar; BOS, EOS and rests are never among them."""
        inside = events[:, INSTRUMENT] > REST
        advances = events[:, ONSET] >= FIRST + self.max_position
        first = inside & (advances | (events[:, INSTRUMENT] == METER_CHANGE))
        first[np.flatnonzero(inside)[:1]] = True
        return np.flatnonzero(first)

    def crop(self, events: np.ndarray, start: int, length: int) -> np.ndarray:
        """At most `length` events: BOS, the meter and the tempo in force, then the events from `start` on.

        `start` is one of `bar_starts`, whose bar becomes bar 0. EOS is there only where the end of the piece is reached.
        """
        body = events[start : start + length].astype(np.int64)
        # How far the bar lies behind the one before it is forgotten; a meter change begins its bar itself.
        begins_bar = body[0, INSTRUMENT] == METER_CHANGE
        body[0, ONSET] = FIRST + (0 if begins_bar else (body[0, ONSET] - FIRST) % self.max_position)
        state = {METER_CHANGE: self._meter_id(DEFAULT_METER), TEMPO_CHANGE: self._tempo_id(DEFAULT_QPM)}
        for kind in state:
            earlier = np.flatnonzero(events[:start, INSTRUMENT] == kind)
            if len(earlier):
                state[kind] = events[earlier[-1], PITCH]
        stated = 0
        while stated < len(body) and body[stated, ONSET] == FIRST and body[stated, INSTRUMENT] in state:
            state[int(body[stated, INSTRUMENT])] = body[stated, PITCH]
            stated += 1
        head = [[BOS] * NUM_ATTRIBUTES] + [[FIRST, kind, value, NONE, NONE] for kind, value in state.items()]
        return np.concatenate([head, body[stated:]])[:length].astype(np.int16)

    def _tempo_id(self, qpm: float) -> int:
        return FIRST_TEMPO + int(index_in(self.tempos, np.array([qpm]), "tempo")[0])

    @staticmethod
    def transpose(events: np.ndarray, semitones: int) -> np.ndarray:
        """`events` with every pitched note moved by `semitones`. Raises ValueError where one would leave MIDI's range."""
        pitched = (events[..., INSTRUMENT] >= FIRST_PROGRAM) & (events[..., INSTRUMENT] != DRUM_KIT)
        moved = events.copy()
        moved[..., PITCH][pitched] += semitones
        if ((moved[pitched][:, PITCH] < FIRST_PITCH) | (moved[pitched][:, PITCH] >= FIRST_DRUM)).any():
            raise ValueError(f"transposition by {semitones} semitones takes a note out of MIDI's range")
        return moved

    @staticmethod
    def pitch_range(events: np.ndarray) -> tuple[int, int] | None:
        """The lowest and the highest MIDI pitch of the pitched notes; None without any."""
        pitched = (events[..., INSTRUMENT] >= FIRST_PROGRAM) & (events[..., INSTRUMENT] != DRUM_KIT)
        pitches = events[pitched][:, PITCH]
        return (int(pitches.min()) - FIRST_PITCH, int(pitches.max()) - FIRST_PITCH) if len(pitches) else None

    # Identity

    def to_dict(self) -> dict:
        """The settings, JSON-ready, with the name of the tokenizer."""
        return {"tokenizer": "note_events", **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: dict) -> "NoteEvents":
        """The tokenizer that `to_dict` told of. Raises UserError for another kind."""
        values = dict(values)
        if values.pop("tokenizer", "note_events") != "note_events":
            raise UserError("the vocabulary is not one of NoteEvents; preprocess the corpus again")
        return cls(**values)

    @property
    def fingerprint(self) -> str:
        """A short hash of everything that the meaning of an id depends on."""
        tables = (self.durations.tolist(), self.velocities.tolist(), self.tempos.tolist(), self.meters)
        text = json.dumps([self.to_dict(), self.vocab_sizes, tables], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def pitch_range_of(kind):
    """The row of `NoteEvents.pitch_ranges` that holds for each instrument id (a numpy or a jax array)."""
    return (kind - REST).clip(0, 3) + (kind == DRUM_KIT)


@functools.cache
def _split(meters: tuple[tuple[int, int], ...], numerator: int, denominator: int) -> tuple[tuple[int, int], ...]:
    """The fewest of `meters` that add up to a bar of this one and differ by a beat at most; none where there are none."""
    for count in range(1, numerator + 1):
        parts = tuple(((numerator + rest) // count, denominator) for rest in reversed(range(count)))
        if set(parts) <= set(meters):
            return parts
    return _split(meters, numerator // 2, denominator // 2) if numerator % 2 == denominator % 2 == 0 else ()


def _nearest(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The entry of the sorted `table` nearest to each value, the lower one of two."""
    index = np.searchsorted((table[1:] + table[:-1]) / 2, values, "left")
    return table[index]


def index_in(table: np.ndarray, values: np.ndarray, name: str) -> np.ndarray:
    """Where each value stands in the sorted `table`. Raises ValueError, calling it a `name`, for one that does not."""
    index = np.minimum(np.searchsorted(table, values), len(table) - 1)
    if (table[index] != values).any():
        raise ValueError(f"a {name} is not in the vocabulary; quantize the piece first")
    return index
