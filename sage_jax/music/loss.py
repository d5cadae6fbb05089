"""What is lost on the way from a MIDI file to tokens, counted so that files add up."""

import dataclasses


@dataclasses.dataclass
class GridLoss:
    """Counters that `from_midi` and `NoteEvents.quantize` fill; sums and maxima, so that files can be added.

    Onset and duration errors are the distance to the tick grid (and, for durations, to the duration vocabulary).
    """

    notes: int = 0
    onset_error_ticks: float = 0.0
    onset_error_ticks_max: float = 0.0
    onset_error_ms: float = 0.0
    onset_error_ms_max: float = 0.0
    duration_error_ticks: float = 0.0
    duration_error_ticks_max: float = 0.0
    durations_clipped: int = 0
    duplicate_notes: int = 0
    notes_dropped: int = 0  # of instruments, or at times, that the vocabulary does not know
    tempos: int = 0
    tempos_merged: int = 0  # changes that fell on the tick of a later one, or that the vocabulary does not tell apart
    tempo_error_max: float = 0.0  # relative
    meters: int = 0
    meters_merged: int = 0
    meters_regrouped: int = 0  # runs of one-beat bars, told as bars of four beats
    meters_replaced: int = 0  # meters outside the vocabulary, told as a divisor or as 4/4
    tracks: int = 0
    tracks_merged: int = 0  # tracks that share their program with another one of the file
    controls_dropped: int = 0  # control changes, pedal among them, and pitch bends

    def add(self, other: "GridLoss") -> None:
        """Adds `other` to this one: sums add up, maxima are kept."""
        for field in dataclasses.fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            setattr(self, field.name, max(mine, theirs) if field.name.endswith("_max") else mine + theirs)

    def to_dict(self) -> dict:
        """The counters, with the mean errors per note beside the sums."""
        values = dataclasses.asdict(self)
        for name in ("onset_error_ticks", "onset_error_ms", "duration_error_ticks"):
            values[f"{name}_mean"] = values[name] / max(self.notes, 1)
        return values
