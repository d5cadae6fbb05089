"""What is lost on the way from a MIDI file to tokens, counted so that files add up."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

ODDITIES = {  # counters of what a file has that it should not, or need not, have; all of it is read or passed over
    "riff_files": "RIFF wrappers",
    "patterns_in_a_row": "patterns of format 2, one after another",
    "foreign_chunks": "chunks that are no tracks",
    "empty_tracks": "empty tracks",
    "tracks_beyond_the_header": "tracks beyond those of the header, read",
    "tracks_without_an_end": "tracks without an end",
    "bytes_after_an_end_of_track": "bytes after an end of track",
    "bytes_after_the_tracks": "bytes after the last track",
    "odd_meta_events": "meta events of a wrong length or an impossible value",
    "data_bytes_over_127": "messages with data above 127",
    "system_messages": "system messages",
    "system_exclusive_packets": "system-exclusive messages in parts, or escapes",
    "running_status_kept": "running statuses kept after a meta event or a system-exclusive message",
}


@dataclasses.dataclass
class GridLoss:
    """Counters that `to_piece` and `NoteEvents.quantize` fill; sums and maxima, so that files can be added.

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
    notes_without_end: int = 0  # without a note-off: they last to the end of their track
    notes_without_length: int = 0  # given one tick of the file
    notes_overlapping: int = 0  # begun while one of their pitch, channel and track sounds: first in, first out
    velocities_changed: int = 0
    velocity_error: float = 0.0
    velocity_error_max: float = 0.0
    notes_dropped: int = 0  # of instruments, or at times, that the vocabulary does not know
    tempos: int = 0
    tempos_merged: int = 0  # changes that fell on the tick of a later one, or that are one in the vocabulary
    tempos_clipped: int = 0  # beyond the slowest or the fastest of the vocabulary
    tempo_error_max: float = 0.0  # relative
    meters: int = 0
    meters_merged: int = 0
    meters_regrouped: int = 0  # runs of one-beat bars, joined to bars of four beats
    meters_split: int = 0  # meters longer than the vocabulary has, as bars of two or more that it has
    meters_replaced: int = 0  # meters that no bars of the vocabulary add up to, as 4/4
    changes_after_the_end: int = 0  # of tempo or meter, after the last note: dropped
    tracks: int = 0
    tracks_merged: int = 0  # tracks that share their program with another one of the file
    controls_dropped: int = 0  # control changes, pedal among them, pressures and pitch bends
    riff_files: int = 0  # files wrapped in RIFF
    foreign_chunks: int = 0  # chunks that are no tracks
    empty_tracks: int = 0
    tracks_beyond_the_header: int = 0  # read all the same
    tracks_without_an_end: int = 0
    patterns_in_a_row: int = 0  # of format 2 files, one after the other
    bytes_after_an_end_of_track: int = 0
    bytes_after_the_tracks: int = 0
    odd_meta_events: int = 0  # tempos, meters, keys, ports and ends of track of a wrong length or an impossible value
    data_bytes_over_127: int = 0  # in messages that are dropped anyway
    system_messages: int = 0  # that a file should not hold
    system_exclusive_packets: int = 0  # in parts, or escapes
    running_status_kept: int = 0  # after a meta event or a system-exclusive message, where the standard ends it

    def count(self, counts: Mapping[str, int]) -> None:
        """Adds `counts`, by the names of counters."""
        for name, number in counts.items():
            setattr(self, name, getattr(self, name) + number)

    def add(self, other: "GridLoss") -> None:
        """Adds `other` to this one: sums add up, maxima are kept."""
        for field in dataclasses.fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            setattr(self, field.name, max(mine, theirs) if field.name.endswith("_max") else mine + theirs)

    def to_dict(self) -> dict:
        """The counters, with the mean errors per note beside the sums."""
        values = dataclasses.asdict(self)
        for name in ("onset_error_ticks", "onset_error_ms", "duration_error_ticks", "velocity_error"):
            values[f"{name}_mean"] = values[name] / max(self.notes, 1)
        return values


def loss_rows(loss: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """(subject, what became of it, whether anything was changed or dropped) of what `GridLoss.to_dict` gave."""
    yield (
        "onsets",
        f"moved by {loss['onset_error_ticks_mean']:.3f} ticks or {loss['onset_error_ms_mean']:.1f} ms on average, "
        f"{loss['onset_error_ticks_max']:.2f} ticks or {loss['onset_error_ms_max']:.1f} ms at most",
        loss["onset_error_ticks_max"] > 0,
    )
    yield (
        "durations",
        f"changed by {loss['duration_error_ticks_mean']:.3f} ticks on average, {loss['duration_error_ticks_max']:,.1f} at most; "
        f"{loss['durations_clipped']:,} cut to the longest that there is",
        loss["duration_error_ticks_max"] > 0,
    )
    yield (
        "velocities",
        f"{loss['velocities_changed']:,} changed, by {loss['velocity_error_max']:.0f} at most",
        loss["velocities_changed"] > 0,
    )
    duplicates, unknown = loss["duplicate_notes"], loss["notes_dropped"]
    yield (
        "dropped",
        f"{duplicates:,} notes ({duplicates / max(loss['notes'], 1):.2%}) whose onset, instrument and pitch another one has; "
        f"{unknown:,} that the vocabulary does not know",
        duplicates + unknown > 0,
    )
    endless, short, overlapping = (loss[f"notes_{name}"] for name in ("without_end", "without_length", "overlapping"))
    yield (
        "ends",
        f"{endless:,} notes without an end last to that of their track; {short:,} without a length last a tick; "
        f"{overlapping:,} begin while their pitch sounds and end in the same order",
        endless + short + overlapping > 0,
    )
    yield (
        "tempos",
        f"{loss['tempos']:,}, {loss['tempos_merged']:,} merged; up to {loss['tempo_error_max']:.1%} off; "
        f"{loss['tempos_clipped']:,} beyond the range",
        loss["tempos_merged"] + loss["tempos_clipped"] > 0 or loss["tempo_error_max"] > 0,
    )
    yield (
        "meters",
        f"{loss['meters']:,}, {loss['meters_merged']:,} merged, {loss['meters_split']:,} split into shorter bars, "
        f"{loss['meters_replaced']:,} replaced by 4/4, {loss['meters_regrouped']:,} runs of one-beat bars joined to bars of four",
        any(loss[f"meters_{name}"] for name in ("merged", "split", "replaced", "regrouped")),
    )
    late = loss["changes_after_the_end"]
    yield "late", f"{late:,} changes of tempo or meter after the last note dropped", late > 0
    merged, controls = loss["tracks_merged"], loss["controls_dropped"]
    yield "tracks", f"{loss['tracks']:,}, {merged:,} merged into another one of the same instrument", merged > 0
    yield "controls", f"{controls:,} dropped: pedal, other control changes, pressures, pitch bends", controls > 0
    odd = [f"{loss[name]:,} {words}" for name, words in ODDITIES.items() if loss[name]]
    yield "oddities", "; ".join(odd) or "none", bool(odd)
