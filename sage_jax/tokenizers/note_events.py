"""NoteEvents: a piece as a sequence of events, each a fixed cycle of five tokens."""

import dataclasses
import hashlib
import json

import numpy as np

from sage_jax.errors import UserError
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, DRUMS, METER, NOTE, TEMPO, Piece, bar_ticks
from sage_jax.tokenizers.grid import Grid, index_in
from sage_jax.tokenizers.windows import BarWindows

ATTRIBUTES = ("onset", "instrument", "pitch", "duration", "velocity")
NUM_ATTRIBUTES = len(ATTRIBUTES)
ONSET, INSTRUMENT, PITCH, DURATION, VELOCITY = range(NUM_ATTRIBUTES)

HEAD = 3  # the number of events that begin a crop: BOS, the meter and the tempo in force

# The ids of every attribute begin with the same four. NONE fills the attributes that an event does not use.
PAD, BOS, EOS, NONE = range(4)
FIRST = 4  # the id of an attribute's first value

# Instrument ids. Events at the same onset are in the order of these ids.
REST, METER_CHANGE, TEMPO_CHANGE = FIRST, FIRST + 1, FIRST + 2
FIRST_PROGRAM = FIRST + 3  # and up: the tracks of each program, see `NoteEvents.instrument_of`

# Pitch ids: pitches, then drum sounds, then tempos, then meters.
FIRST_PITCH = FIRST
FIRST_DRUM = FIRST_PITCH + 128
FIRST_TEMPO = FIRST_DRUM + 128


@dataclasses.dataclass(frozen=True)
class NoteEvents(Grid, BarWindows):
    """A `Tokenizer` whose step is an event of five tokens: a piece is an int16 array [N, 5] of ids, BOS first and EOS last.

    - onset: the bars advanced since the last event and the position in the bar, as one token. A rest of more than
      `max_bar_step` bars is a chain of REST events.
    - instrument: a track of a program, of drums, or a meta instrument (rest, meter change, tempo change).
    - pitch: the pitch or drum sound of a note, or the value of a meter or tempo change.
    - duration, velocity: indices into the tables of the grid.

    Each attribute has its own ids. Events are sorted by onset, instrument and pitch; no two notes have the same three. Each
    program has the ids of `tracks_per_program` tracks, so that the default of one merges all its tracks. A meter
    change begins a bar at its own onset, so that a bar it cuts short (a pickup) keeps its length. For every piece q that
    `quantize` returned, decode(encode(q)) == q.

    The settings, `quantize` and the tables of values are those of `Grid`. Raises UserError for a setting that is out of range.
    """

    attributes = ATTRIBUTES
    HEAD = HEAD

    # Vocabulary

    @property
    def first_meter(self) -> int:
        """The pitch id of the first meter."""
        return FIRST_TEMPO + len(self.tempos)

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """The number of ids of each attribute."""
        return (
            FIRST + (self.max_bar_step + 1) * self.max_position,
            self.num_instruments,
            self.first_meter + len(self.meters),
            FIRST + len(self.durations),
            FIRST + self.num_velocities,
        )

    @property
    def num_instruments(self) -> int:
        """One more than the last instrument id, which is that of the last track of drums."""
        return FIRST_PROGRAM + (DRUMS + 1) * self.tracks_per_program

    @property
    def first_drum_track(self) -> int:
        """The instrument id of the first track of drums. All ids from it on are drums."""
        return self.instrument_of(DRUMS, 0)

    def instrument_of(self, program, track):
        """The instrument id of each program and track, ints of the same shape. A track is below `tracks_per_program`."""
        return FIRST_PROGRAM + program * self.tracks_per_program + track

    def program_of(self, instrument):
        """The program of each note's instrument id, ints of the same shape; numpy or jax arrays, or numbers."""
        number = instrument - FIRST_PROGRAM
        return number if self.tracks_per_program == 1 else number // self.tracks_per_program

    def track_of(self, instrument):
        """The track of each note's instrument id among those of its program, ints of the same shape; as `program_of`."""
        return (instrument - FIRST_PROGRAM) % self.tracks_per_program

    # Pieces to events

    def encode(self, piece: Piece) -> np.ndarray:
        """The events of a quantized piece, int16 [N, 5]. Raises ValueError for a piece that is not quantized."""
        notes, tempos, meters = piece.notes, piece.tempos, piece.meters
        meter_ids = [self.meter_id(meter) for meter in meters[["numerator", "denominator"]].tolist()]
        ticks = np.concatenate([meters["tick"], tempos["tick"], notes["onset"]]).astype(np.int64)
        events = np.full((len(ticks), NUM_ATTRIBUTES), NONE, np.int16)
        meta, first_note = len(meters), len(meters) + len(tempos)
        events[:meta, INSTRUMENT], events[:meta, PITCH] = METER_CHANGE, meter_ids
        events[meta:first_note, INSTRUMENT] = TEMPO_CHANGE
        events[meta:first_note, PITCH] = FIRST_TEMPO + index_in(self.tempos, tempos["qpm"], "tempo")
        events[first_note:, INSTRUMENT:] = self.note_ids(notes)
        # Notes are sorted already; the few meta events are placed between them.
        metas = np.lexsort((events[:first_note, INSTRUMENT], ticks[:first_note]))
        place = np.searchsorted(ticks[first_note:], ticks[metas], "left") + np.arange(first_note)
        is_note = np.ones(len(ticks), bool)
        is_note[place] = False
        order = np.zeros(len(ticks), np.int64)
        order[place], order[is_note] = metas, np.arange(first_note, len(ticks))
        events, ticks = events.take(order, axis=0), ticks.take(order)

        bar, position, _ = piece.bars.locate(ticks)
        # A meter event is placed in bars of the old meter; later events count from the bar that it begins.
        cut = np.flatnonzero(order < meta)[1:]
        into_bar = (ticks[cut] - piece.bars.starts[:-1]) % piece.bars.lengths[:-1]
        position[cut] = into_bar
        advanced = np.diff(bar, prepend=0)
        advanced[cut] -= into_bar > 0
        if (position >= self.max_position).any():
            raise ValueError("a bar is longer than the longest of the vocabulary; quantize the piece first")
        rests, events[:, ONSET] = self.onset_ids(advanced, position)
        if rests.any():
            events = np.insert(events, np.repeat(np.arange(len(events)), rests), self.rest, axis=0)
        ends = np.full((2, NUM_ATTRIBUTES), [[BOS], [EOS]], np.int16)
        return np.concatenate([ends[:1], events, ends[1:]])

    def note_ids(self, notes: np.ndarray) -> np.ndarray:
        """The instrument, pitch, duration and velocity ids of `notes` [N], int [N, 4]. Raises ValueError as `encode`."""
        if (notes["track"] >= self.tracks_per_program).any():
            raise ValueError("a track is not in the vocabulary; quantize the piece first")
        ids = np.empty((len(notes), NUM_ATTRIBUTES - INSTRUMENT), np.int16)
        ids[:, 0] = self.instrument_of(notes["program"], notes["track"])
        ids[:, 1] = np.where(notes["program"] == DRUMS, FIRST_DRUM, FIRST_PITCH) + notes["pitch"]
        ids[:, 2] = FIRST + self.duration_index(notes["duration"])
        ids[:, 3] = FIRST + self.velocity_index(notes["velocity"])
        return ids

    def onset_ids(self, advanced, position):
        """(number of rests before each event, its onset id) for the bars advanced and the position in the bar, ints [...]."""
        rests = np.maximum(advanced - 1, 0) // self.max_bar_step
        return rests, FIRST + (advanced - rests * self.max_bar_step) * self.max_position + position

    @property
    def rest(self) -> tuple[int, ...]:
        """The event that advances `max_bar_step` bars."""
        return (FIRST + self.max_bar_step * self.max_position, REST, NONE, NONE, NONE)

    def meter_id(self, meter: tuple[int, int]) -> int:
        """The pitch id of a change to (numerator, denominator). Raises ValueError for a meter outside the vocabulary."""
        if meter not in self.meters:
            raise ValueError(f"meter {meter[0]}/{meter[1]} is not in the vocabulary; quantize the piece first")
        return self.first_meter + self.meters.index(meter)

    def tempo_id(self, qpm: float) -> int:
        """The pitch id of a change to `qpm` quarters per minute. Raises ValueError for a tempo outside the vocabulary."""
        return FIRST_TEMPO + int(index_in(self.tempos, np.array([qpm]), "tempo")[0])

    # Events to pieces

    def decode(self, events: np.ndarray) -> Piece:
        """The piece that `events` [N, 5] encode, up to the first EOS; BOS and PAD are skipped.

        A piece that does not begin with a meter gets 4/4, one that does not begin with a tempo gets 120 quarters per minute.
        Raises ValueError for an event with an id that is not in the vocabulary or does not fit its instrument.
        """
        events = np.asarray(events, np.int64)
        stop = np.flatnonzero(events[:, ONSET] == EOS)
        events = events[: stop[0]] if len(stop) else events
        events = events[events[:, ONSET] >= FIRST]
        self.check(events)
        advanced, position = np.divmod(events[:, ONSET] - FIRST, self.max_position)
        kind, value = events[:, INSTRUMENT], events[:, PITCH]
        ticks, meter_rows = self.ticks(advanced, position, kind == METER_CHANGE, value)

        is_note, is_tempo = kind >= FIRST_PROGRAM, kind == TEMPO_CHANGE
        notes = self.notes_of(events[is_note], ticks[is_note])
        tempos = np.zeros(int(is_tempo.sum()), TEMPO)
        tempos["tick"], tempos["qpm"] = ticks[is_tempo], self.tempos[value[is_tempo] - FIRST_TEMPO]
        meters = np.array([(tick, *self.meters[meter]) for tick, meter in meter_rows], METER)
        return Piece.from_changes(notes, tempos, meters, self.ticks_per_quarter)

    def notes_of(self, events: np.ndarray, ticks: np.ndarray) -> np.ndarray:
        """The notes of note events [N, 5] whose onsets are `ticks` [N], NOTE [N]."""
        notes, pitch = np.zeros(len(events), NOTE), events[:, PITCH]
        notes["onset"], notes["program"] = ticks, self.program_of(events[:, INSTRUMENT])
        notes["track"] = self.track_of(events[:, INSTRUMENT])
        notes["pitch"] = pitch - np.where(pitch >= FIRST_DRUM, FIRST_DRUM, FIRST_PITCH)
        notes["duration"] = self.durations[events[:, DURATION] - FIRST]
        notes["velocity"] = self.velocities[events[:, VELOCITY] - FIRST]
        return notes

    def ticks(
        self, advanced: np.ndarray, position: np.ndarray, is_meter: np.ndarray, value: np.ndarray
    ) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """The tick of each event, int [N], and (tick, index of the meter) of each meter event; all arguments are [N]."""
        changes = np.flatnonzero(is_meter)
        meter_index = value[changes] - self.first_meter
        default = bar_ticks(*DEFAULT_METER, self.ticks_per_quarter)
        # Events after a meter event, up to and including the next one, count bars of its length from its own tick.
        segment = np.cumsum(is_meter) - is_meter
        lengths = np.concatenate([[default], self.meter_ticks[meter_index]])
        bars = np.cumsum(advanced)
        bars = bars - np.concatenate([[0], bars[changes]])[segment]
        ticks = bars * lengths[segment] + position
        begins = np.concatenate([[0], np.cumsum(ticks[changes])])
        ticks = ticks + begins[segment]
        return ticks, list(zip(begins[1:].tolist(), meter_index.tolist(), strict=True))

    def check(self, events: np.ndarray) -> None:
        """Raises ValueError unless each of `events` [N, 5], without BOS, EOS and PAD, has ids that fit together."""
        kind = events[:, INSTRUMENT]
        for known, name in (
            ((events >= NONE).all() and (events < self.vocab_sizes).all(), "id"),
            ((kind >= REST).all(), "instrument"),
            (self.pitch_fits(kind, events[:, PITCH]).all(), "pitch"),
            ((events[kind >= FIRST_PROGRAM][:, DURATION:] >= FIRST).all(), "duration or velocity"),
        ):
            if not known:
                raise ValueError(f"the {name} of an event is not in the vocabulary or not allowed there")

    def pitch_fits(self, kind: np.ndarray, pitch: np.ndarray) -> np.ndarray:
        """Whether each pitch id is valid with its instrument id, bool [N]; instrument ids must be REST or higher."""
        low, high = np.array(self.pitch_ranges).T
        row = self.pitch_range_of(kind)
        return (pitch >= low[row]) & (pitch < high[row])

    @property
    def pitch_ranges(self) -> tuple[tuple[int, int], ...]:
        """[low, high) of the pitch ids of a rest, a meter change, a tempo change, a pitched note and a drum note."""
        end = self.first_meter + len(self.meters)
        return (
            (NONE, FIRST),
            (self.first_meter, end),
            (FIRST_TEMPO, self.first_meter),
            (FIRST_PITCH, FIRST_DRUM),
            (FIRST_DRUM, FIRST_TEMPO),
        )

    def pitch_range_of(self, kind):
        """The row of `pitch_ranges` for each instrument id, int [...]; numpy or jax arrays."""
        return (kind - REST).clip(0, 3) + (kind >= self.first_drum_track)

    # Events without decoding

    @property
    def grid(self) -> "NoteEvents":
        """This tokenizer, which is its own grid."""
        return self

    @classmethod
    def num_notes(cls, events: np.ndarray) -> np.ndarray:
        """The number of notes that each of `events` [..., 5] completes, int32 [...]; numpy or jax arrays."""
        return cls.is_note(events).astype(np.int32)

    @staticmethod
    def head_length(events: np.ndarray) -> int:
        """The number of events at the beginning of a crop that are not scored: BOS, the meter and the tempo in force."""
        return HEAD

    @staticmethod
    def sounding(events: np.ndarray) -> np.ndarray:
        """Indices of the events of `events` [N, 5] that a crop can begin with: all but BOS, EOS, PAD and rests."""
        return np.flatnonzero(events[:, INSTRUMENT] > REST)

    def bar_of(self, events: np.ndarray, index: int) -> int:
        """The number of the bar in which the event at `index` of `events` [N, 5] lies, or which it begins."""
        before = self.decode(events[: index + 1])
        changes = (before.notes["onset"], before.tempos["tick"], before.meters["tick"])
        latest = max(ticks[-1] for ticks in changes if len(ticks))
        return before.bar_of(int(latest))

    @staticmethod
    def is_note(events: np.ndarray) -> np.ndarray:
        """Which of `events` [..., 5] are notes, drum notes included, bool [...]."""
        return events[..., INSTRUMENT] >= FIRST_PROGRAM

    def bar_starts(self, events: np.ndarray) -> np.ndarray:
        """Indices of the first event of each bar in `events` [N, 5]. BOS, EOS and rests are skipped."""
        inside = events[:, INSTRUMENT] > REST
        advances = events[:, ONSET] >= FIRST + self.max_position
        first = inside & (advances | (events[:, INSTRUMENT] == METER_CHANGE))
        first[np.flatnonzero(inside)[:1]] = True
        return np.flatnonzero(first)

    def crop(self, events: np.ndarray, start: int, length: int) -> np.ndarray:
        """At most `length` events: BOS, the meter and the tempo in force, then `events` [N, 5] from `start` on; int16.

        start: one of `sounding`; its bar becomes bar 0. EOS is in the crop only if `events` end there and it fits.
        """
        body = events[start : start + length].astype(np.int64)
        # Drop the bars advanced since the previous event. A meter change begins its bar, so its position is 0.
        begins_bar = body[0, INSTRUMENT] == METER_CHANGE
        body[0, ONSET] = FIRST + (0 if begins_bar else (body[0, ONSET] - FIRST) % self.max_position)
        stated = 0
        while stated < len(body) and body[stated, ONSET] == FIRST and body[stated, INSTRUMENT] in (METER_CHANGE, TEMPO_CHANGE):
            stated += 1
        return np.concatenate([self.head_after(events[: start + stated]), body[stated:]])[:length].astype(np.int16)

    def head_after(self, events: np.ndarray) -> np.ndarray:
        """BOS, and the meter and the tempo in force after `events` [N, 5]: int16 [HEAD, 5]."""
        head = [[BOS] * NUM_ATTRIBUTES]
        for kind, default in ((METER_CHANGE, self.meter_id(DEFAULT_METER)), (TEMPO_CHANGE, self.tempo_id(DEFAULT_QPM))):
            found = np.flatnonzero(events[:, INSTRUMENT] == kind)
            head.append([FIRST, kind, int(events[found[-1], PITCH]) if len(found) else default, NONE, NONE])
        return np.array(head, np.int16)

    def is_pitched(self, events: np.ndarray) -> np.ndarray:
        """Which of `events` [..., 5] are notes, drum notes excluded, bool [...]."""
        return self.is_note(events) & (events[..., INSTRUMENT] < self.first_drum_track)

    def transpose(self, events: np.ndarray, semitones: int) -> np.ndarray:
        """`events` [..., 5] with the pitched notes moved by `semitones`. Raises ValueError if one leaves MIDI's range."""
        pitched = self.is_pitched(events)
        moved, pitches = events.copy(), events[..., PITCH][pitched] + semitones
        if ((pitches < FIRST_PITCH) | (pitches >= FIRST_DRUM)).any():
            raise ValueError(f"transposition by {semitones} semitones takes a note out of MIDI's range")
        moved[..., PITCH][pitched] = pitches
        return moved

    def pitch_range(self, events: np.ndarray) -> tuple[int, int] | None:
        """The lowest and the highest MIDI pitch of the pitched notes in `events` [..., 5]; None without pitched notes."""
        pitches = events[..., PITCH][self.is_pitched(events)]
        return (int(pitches.min()) - FIRST_PITCH, int(pitches.max()) - FIRST_PITCH) if len(pitches) else None

    # Identity

    def to_dict(self) -> dict:
        """The settings and the name of the tokenizer, JSON-ready."""
        settings = dataclasses.asdict(self)
        if self.tracks_per_program == 1:
            del settings["tracks_per_program"]  # younger than shards and weights whose fingerprints must stay
        return {"tokenizer": "note_events", **settings}

    @classmethod
    def from_dict(cls, values: dict) -> "NoteEvents":
        """The inverse of `to_dict`. Raises UserError for the settings of another tokenizer."""
        values = dict(values)
        if values.pop("tokenizer", "note_events") != "note_events":
            raise UserError("the vocabulary is not one of NoteEvents; preprocess the corpus again")
        return cls(**values)

    @property
    def fingerprint(self) -> str:
        """A short hash of everything that defines the meaning of an id."""
        tables = (self.durations.tolist(), self.velocities.tolist(), self.tempos.tolist(), self.meters)
        text = json.dumps([self.to_dict(), self.vocab_sizes, tables], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


DEFAULT_GRID = NoteEvents()
