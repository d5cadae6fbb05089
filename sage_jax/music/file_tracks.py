"""The tracks of a MIDI file: which notes are of which, their numbers and their names.

A track is a (MIDI track, channel, program) that has notes. Where a text event marks a MIDI track, as writing.py does, the mark
has the number of the track among those of its program. MIDI tracks with one mark and one program are one track.
"""

import collections
import re

import numpy as np

from sage_jax.music.messages import SYSEX, TEXT, TRACK_NAME, Messages, MidiError
from sage_jax.music.note_programs import begins_of_runs
from sage_jax.music.system_events import CHANNELS
from sage_jax.music.tracks import DRUMS, MOST_TRACKS, Track, default_name

MARK = "sage_jax track={}"  # the text of the event that marks a MIDI track
_MARK = re.compile(MARK.format(r"(\d{1,5})").encode())


def file_tracks(messages: Messages, line: np.ndarray, program: np.ndarray) -> tuple[np.ndarray, tuple[Track, ...]]:
    """The index of each note's track, int64 [N], and the tracks, by MIDI track, channel and program.

    line, program: int64 [N], of each note; a line is a channel of a MIDI track. Tracks have the numbers of their marks if all
    of them are marked. Otherwise the tracks of a program are numbered in order. Raises MidiError for more than MOST_TRACKS.
    """
    if not len(line):
        return np.zeros(0, np.int64), ()
    combination = line * (DRUMS + 1) + program
    begins = begins_of_runs(combination)
    found, run = np.unique(combination[begins], return_inverse=True)
    names, marks = _texts(messages)
    sources = [(each % (DRUMS + 1), each // (DRUMS + 1) // CHANNELS) for each in found.tolist()]
    all_marked = all(midi_track in marks for _, midi_track in sources)
    counts = collections.Counter()
    tracks: dict[tuple[int, int], Track] = {}
    places: dict[tuple[int, int], int] = {}  # in `tracks`
    index = []
    for order, (own, midi_track) in enumerate(sources):
        each = own, marks.get(midi_track, ~order)  # without a mark it is a track of its own
        if each not in tracks:
            number = each[1] if all_marked else counts[own]
            counts[own] += 1
            tracks[each] = Track(own, number, names.get(midi_track) or default_name(own, number))
        index.append(places.setdefault(each, len(places)))
    if counts and max(counts.values()) > MOST_TRACKS:
        raise MidiError("too_long", f"it has more than {MOST_TRACKS:,} tracks of one program")
    return np.repeat(np.array(index)[run], np.diff(np.append(begins, len(line)))), tuple(tracks.values())


def _texts(messages: Messages) -> tuple[dict[int, str], dict[int, int]]:
    """The name of each MIDI track that has one, and the number in its mark. The name of a format 0 file is that of the song."""
    names, marks = {}, {}
    midi_track = messages.track[messages.status >= SYSEX].tolist()
    for owner, (kind, content) in zip(midi_track, messages.payloads, strict=True):
        if kind == TRACK_NAME and messages.format:
            names[owner] = names.get(owner) or decode_text(content)
        elif kind == TEXT and (mark := _MARK.fullmatch(content)) and int(mark[1]) < MOST_TRACKS:
            marks.setdefault(owner, int(mark[1]))
    return names, marks


def clean(name: str) -> str:
    """`name` in one line without control characters, "" if nothing else is in it."""
    return " ".join("".join(each if each.isprintable() else " " for each in name).split())


def decode_text(content: bytes) -> str:
    """The text of a meta event, cleaned: UTF-8, or Latin-1 if it is not valid UTF-8."""
    try:
        return clean(content.decode("utf-8"))
    except UnicodeDecodeError:
        return clean(content.decode("latin-1"))
