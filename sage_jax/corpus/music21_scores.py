"""Converts the chorales and quartets of the music21 package to MIDI files in the user's cache."""

import fnmatch
import functools
import importlib.metadata
import importlib.util
import pathlib

import numpy as np
from rich.progress import track

from sage_jax.corpus.workers import Failure, run_tasks
from sage_jax.errors import UserError
from sage_jax.files import replacing, user_cache
from sage_jax.music.file_tracks import clean
from sage_jax.music.midi import save_midi
from sage_jax.music.notes import DEFAULT_METER, METER, TEMPO, Piece, note_array
from sage_jax.music.tracks import numbered

TICKS_PER_QUARTER = 480
VELOCITY = 80
DEFAULT_QPM = 96.0
SCORES = ("bach/bwv*", "haydn/opus*/*", "mozart/k*/*", "beethoven/opus*", "schumann_robert/opus41no1/*")
EXCLUDED = ("bach/bwv846.*", "mozart/k545/*")  # piano music

# Programs by a substring of the part's name. The four voices have distinct programs, so a chorale's parts are not merged.
VOICES = {"soprano": 52, "alto": 53, "tenor": 54, "bass": 91}
PROGRAMS = {
    **VOICES,
    "violoncello": 42, "cello": 42, "viola": 41, "violin": 40, "continuo": 19, "organ": 19, "recorder": 74, "flute": 73,
    "oboe": 68, "trumpet": 56, "cornet": 56, "horn": 60, "timpani": 47,
}  # fmt: skip
STRINGS = 48


def write_scores() -> pathlib.Path:
    """The folder with the scores as MIDI files. Converts missing scores, on all cores.

    Raises UserError if music21 is not installed or the cache cannot be written.
    """
    spec = importlib.util.find_spec("music21")
    if spec is None or spec.origin is None:
        raise UserError("data.corpus music21 needs the package music21; install it with pip install -e '.[music21]'")
    folder = user_cache() / "sage_jax" / f"music21-tracks-{importlib.metadata.version('music21')}"
    complete = folder / "complete"
    if not complete.exists():
        source = pathlib.Path(spec.origin).parent / "corpus"
        names = find_scores(source)
        tasks = [name for name in names if not _midi_path(folder, name).exists()]
        written = run_tasks(functools.partial(write_score, source, folder), tasks)
        failed = [
            f"{tasks[index]}: {answer.message}"
            for index, answer in track(written, "music21 scores to MIDI", len(tasks))
            if isinstance(answer, Failure)
        ]
        with replacing(complete) as temporary:
            temporary.write_text("".join(f"left out: {line}\n" for line in sorted(failed)))
    return folder


def find_scores(source: pathlib.Path) -> list[str]:
    """The scores to convert, as sorted paths relative to music21's corpus folder `source`."""
    found = (path.relative_to(source).as_posix() for path in source.rglob("*.*") if path.suffix in (".mxl", ".xml"))
    return sorted(name for name in found if _matches(name, SCORES) and not _matches(name, EXCLUDED))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def write_score(source: pathlib.Path, folder: pathlib.Path, name: str) -> None:
    """Converts one score of music21's corpus to a MIDI file in `folder`. name: as from `find_scores`."""
    from music21 import converter

    score = converter.parse(source / name, forceSource=True, storePickle=False)
    save_midi(score_to_piece(score), _midi_path(folder, name))


def _midi_path(folder: pathlib.Path, name: str) -> pathlib.Path:
    return folder / f"{name.rpartition('.')[0]}.mid"


def score_to_piece(score) -> Piece:
    """The piece in a music21 score. Ties are joined, repeats are not expanded, grace notes are dropped, velocities are equal.

    After a measure of the first part with less than full length, such as a pickup, the meter is repeated.
    """
    names = [clean(part.partName or "") for part in score.parts]
    tracks = numbered(zip(_programs(names), names, strict=True))
    notes = [
        (onset, program, pitch, duration, VELOCITY, track)
        for part, (program, track, _) in zip(score.parts, tracks, strict=True)
        for onset, pitch, duration in _notes(part)
    ]
    marks = score.flatten().getElementsByClass("MetronomeMark")
    tempos = {_ticks(mark.offset): qpm for mark in marks if (qpm := mark.getQuarterBPM())}
    tempos = {0: DEFAULT_QPM, **tempos}
    return Piece(
        note_array(notes),
        np.array(sorted(tempos.items()), TEMPO),
        np.array(_meters(score.parts[0]), METER),
        TICKS_PER_QUARTER,
        tracks,
    )


def _notes(part) -> list[list[int]]:
    """[onset, pitch, duration] of the notes of a part, with ties joined."""
    # music21's stripTies takes minutes for a quartet.
    rows: list[list[int]] = []
    tied: dict[int, list[int]] = {}  # pitch -> note that a tie extends
    for element in part.flatten().notes:
        onset, duration = _ticks(element.offset), _ticks(element.quarterLength)
        for note in element.notes if element.isChord else [element]:
            if not duration or not note.isNote:
                continue
            tie = note.tie.type if note.tie else None
            row = tied.pop(note.pitch.midi, None)
            if row and tie in ("stop", "continue") and row[0] + row[2] == onset:
                row[2] += duration
            else:
                row = [onset, note.pitch.midi, duration]
                rows.append(row)
            if tie in ("start", "continue"):
                tied[note.pitch.midi] = row
    return rows


def _programs(names: list[str]) -> list[int]:
    if len(names) == 4 and not any(names):
        return list(VOICES.values())
    return [next((program for key, program in PROGRAMS.items() if key in name.lower()), STRINGS) for name in names]


def _meters(part) -> list[tuple[int, int, int]]:
    rows, meter, expected = [], DEFAULT_METER, 0
    for measure in part.getElementsByClass("Measure"):
        tick = _ticks(measure.offset)
        new = measure.timeSignature
        meter_here = (new.numerator, new.denominator) if new else meter
        if not rows or meter_here != meter or tick != expected:
            rows.append((tick if rows else 0, *meter_here))
        meter, expected = meter_here, tick + _ticks(measure.barDuration.quarterLength)
    return rows or [(0, *DEFAULT_METER)]


def _ticks(quarters) -> int:
    return round(quarters * TICKS_PER_QUARTER)
