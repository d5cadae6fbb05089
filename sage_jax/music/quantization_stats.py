"""Counters of what reading, quantizing and tokenizing MIDI files changes or drops."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

ODDITIES = {  # irregularities in files, by counter; the reader accepts or skips each of them
    "riff_files": "RIFF wrappers",
    "patterns_in_a_row": "patterns of format 2 files, played in sequence",
    "foreign_chunks": "chunks other than tracks",
    "empty_tracks": "empty tracks",
    "tracks_beyond_the_header": "tracks beyond the header's count, read",
    "tracks_without_an_end": "tracks without an end-of-track event",
    "bytes_after_an_end_of_track": "bytes after an end-of-track event",
    "bytes_after_the_tracks": "bytes after the last track",
    "odd_meta_events": "meta events of a wrong length or with an impossible value",
    "data_bytes_over_127": "messages with data above 127",
    "system_messages": "system messages",
    "system_exclusive_packets": "system-exclusive packets and escapes",
    "running_status_kept": "running statuses kept after a meta event or a system-exclusive message",
}


@dataclasses.dataclass
class QuantizationStats:
    """Sums and maxima that `to_piece` and the tokenizers' `quantize` fill, and that can be added over files.

    Onset and duration errors are distances to the tick grid; duration errors include the distance to the duration vocabulary.
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
    notes_without_end: int = 0  # notes without a note-off; they last to the end of their track
    notes_without_length: int = 0  # notes of length 0; they get one tick of the file
    notes_overlapping: int = 0  # begin while their pitch, channel and track sound: matched first in, first out
    velocities_changed: int = 0
    velocity_error: float = 0.0
    velocity_error_max: float = 0.0
    notes_dropped: int = 0  # instrument or time outside the vocabulary
    tempos: int = 0
    tempos_merged: int = 0  # superseded at the same tick, or equal to the tempo before in the vocabulary
    tempos_clipped: int = 0  # outside the vocabulary's range
    tempo_error_max: float = 0.0  # relative
    meters: int = 0
    meters_merged: int = 0
    meters_regrouped: int = 0  # runs of one-beat bars that became bars of four beats
    meters_split: int = 0  # meters missing from the vocabulary, written as several meters that add up to them
    meters_replaced: int = 0  # meters that the vocabulary cannot express; they become 4/4
    changes_after_the_end: int = 0  # tempo or meter changes after the last note; dropped
    tracks: int = 0
    tracks_merged: int = 0  # with another track of their program
    controls_dropped: int = 0  # control changes (including pedal), pressures and pitch bends
    riff_files: int = 0  # files inside a RIFF wrapper
    foreign_chunks: int = 0  # chunks other than tracks
    empty_tracks: int = 0
    tracks_beyond_the_header: int = 0  # read anyway
    tracks_without_an_end: int = 0
    patterns_in_a_row: int = 0  # of format 2 files, played in sequence
    bytes_after_an_end_of_track: int = 0
    bytes_after_the_tracks: int = 0
    odd_meta_events: int = 0  # tempo, meter, key, port or end of track with a wrong length or an impossible value
    data_bytes_over_127: int = 0  # in messages whose data is unused
    system_messages: int = 0  # messages that a file should not contain
    system_exclusive_packets: int = 0  # packets and escapes
    running_status_kept: int = 0  # continued after a meta or system-exclusive event, where the standard ends it

    def count(self, counts: Mapping[str, int]) -> None:
        """Adds `counts`, a mapping from counter name to number."""
        for name, number in counts.items():
            setattr(self, name, getattr(self, name) + number)

    def add(self, other: "QuantizationStats") -> None:
        """Adds `other` in place: sums are added, the larger maximum is kept."""
        for field in dataclasses.fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            setattr(self, field.name, max(mine, theirs) if field.name.endswith("_max") else mine + theirs)

    def to_dict(self) -> dict:
        """All counters, and the mean errors per note as `*_mean`."""
        values = dataclasses.asdict(self)
        for name in ("onset_error_ticks", "onset_error_ms", "duration_error_ticks", "velocity_error"):
            values[f"{name}_mean"] = values[name] / max(self.notes, 1)
        return values


def stats_rows(loss: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """(subject, summary, whether anything was changed or dropped) for each subject of a report.

    loss: the result of `QuantizationStats.to_dict`.
    """
    yield (
        "onsets",
        f"moved by {loss['onset_error_ticks_mean']:.3f} ticks ({loss['onset_error_ms_mean']:.1f} ms) on average, "
        f"{loss['onset_error_ticks_max']:.2f} ticks ({loss['onset_error_ms_max']:.1f} ms) at most",
        loss["onset_error_ticks_max"] > 0,
    )
    yield (
        "durations",
        f"changed by {loss['duration_error_ticks_mean']:.3f} ticks on average, {loss['duration_error_ticks_max']:,.1f} at most"
        f"; {loss['durations_clipped']:,} clipped to the longest duration",
        loss["duration_error_ticks_max"] > 0,
    )
    yield (
        "velocities",
        f"{loss['velocities_changed']:,} changed, by {loss['velocity_error_max']:.0f} at most",
        loss["velocities_changed"] > 0,
    )
    duplicates, dropped = loss["duplicate_notes"], loss["notes_dropped"]
    yield (
        "dropped",
        f"{duplicates:,} duplicate notes ({duplicates / max(loss['notes'], 1):.2%}; same onset, track and pitch), "
        f"{dropped:,} notes outside the vocabulary",
        duplicates + dropped > 0,
    )
    endless, short, overlapping = (loss[f"notes_{name}"] for name in ("without_end", "without_length", "overlapping"))
    yield (
        "ends",
        f"{endless:,} notes without a note-off last to the end of their track; {short:,} without a length last one tick; "
        f"{overlapping:,} overlap a note of the same pitch and end first in, first out",
        endless + short + overlapping > 0,
    )
    yield (
        "tempos",
        f"{loss['tempos']:,}, {loss['tempos_merged']:,} merged, {loss['tempos_clipped']:,} clipped to the vocabulary's range; "
        f"error at most {loss['tempo_error_max']:.1%}",
        loss["tempos_merged"] + loss["tempos_clipped"] > 0 or loss["tempo_error_max"] > 0,
    )
    yield (
        "meters",
        f"{loss['meters']:,}, {loss['meters_merged']:,} merged, {loss['meters_split']:,} split into shorter bars, "
        f"{loss['meters_replaced']:,} replaced by 4/4, {loss['meters_regrouped']:,} runs of one-beat bars regrouped into fours",
        any(loss[f"meters_{name}"] for name in ("merged", "split", "replaced", "regrouped")),
    )
    late = loss["changes_after_the_end"]
    yield "late", f"{late:,} tempo or meter changes after the last note, dropped", late > 0
    merged, controls = loss["tracks_merged"], loss["controls_dropped"]
    yield "tracks", f"{loss['tracks']:,}, {merged:,} merged with another track of the same instrument", merged > 0
    yield "controls", f"{controls:,} dropped (pedal and other control changes, pressures, pitch bends)", controls > 0
    odd = [f"{loss[name]:,} {text}" for name, text in ODDITIES.items() if loss[name]]
    yield "oddities", "; ".join(odd) or "none", bool(odd)
