"""Pieces: bars, tempo, slices. MIDI files: round trips and errors."""

import dataclasses
import io
import itertools
import subprocess
import sys

import mido
import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_jax.errors import UserError
from sage_jax.music.file_tracks import clean
from sage_jax.music.midi import BadMidi, from_midi, read_midi, save_midi, to_midi
from sage_jax.music.notes import DRUMS, METER, NOTE, TEMPO, Piece, note_array
from sage_jax.music.quantization_stats import QuantizationStats
from sage_jax.music.tracks import default_name, numbered
from sage_jax.tokenizers.note_events import NoteEvents
from tests.music.pieces import pieces


@settings(max_examples=60)
@given(pieces(), st.integers(1, 40), st.randoms(), st.lists(st.text(max_size=200), min_size=1))
def test_written_piece_reads_back_equal(tmp_path_factory, piece, programs, random, names):
    """Holds for 1 to 40 programs, overlaps, equal notes, and tracks in any order with any names.

    Reading drops changes after the last note, so they are removed. Names lose control characters and repeated spaces.
    """
    notes = piece.notes.copy()
    notes["program"] = np.arange(len(notes)) % programs * 3
    notes["program"][notes["program"] == 39] = DRUMS
    tempos = piece.tempos[piece.tempos["tick"] < max(piece.end, 1)]
    tempos["qpm"] = tempos["qpm"].round(1)
    tempos = tempos[np.append(True, np.diff(tempos["qpm"]) != 0)]
    meters = np.array([(0, 3, 4), (40, 6, 8)], METER)[: 2 if piece.end > 40 else 1]
    piece = Piece(notes, tempos, meters)
    tracks = [track._replace(name=names[index % len(names)]) for index, track in enumerate(piece.tracks)]
    random.shuffle(tracks)
    piece = dataclasses.replace(piece, tracks=tuple(tracks))
    path = tmp_path_factory.getbasetemp() / "written.mid"
    save_midi(piece, path)
    found = read_midi(path)
    assert found == piece
    assert found.tracks == tuple(track._replace(name=clean(track.name) or default_name(*track[:2])) for track in tracks)
    # An object of pretty_midi has no numbers of tracks: they are counted.
    counted = numbered((track.program, clean(track.name)) for track in tracks)
    number_of = {track[:2]: counted[place].track for place, track in enumerate(tracks)}
    notes = piece.notes.copy()
    notes["track"] = [number_of[each] for each in notes[["program", "track"]].tolist()]
    from_objects = from_midi(to_midi(piece))
    assert from_objects == Piece(notes, tempos, meters) and from_objects.tracks == counted


@settings(max_examples=60)
@given(pieces())
def test_midi_round_trip(tmp_path_factory, piece):
    """A quantized piece is equal after writing and reading, except for regrouped one-beat bars."""
    tokenizer = NoteEvents()
    piece = tokenizer.quantize(piece)
    path = tmp_path_factory.getbasetemp() / "round.mid"
    save_midi(piece, path)
    again = tokenizer.quantize(read_midi(path))
    assert np.array_equal(again.notes, piece.notes)
    assert np.array_equal(again.tempos, piece.tempos)
    if (piece.meters["numerator"] > 1).all():
        assert np.array_equal(again.meters, piece.meters)


def test_bars_pickups_and_seconds():
    meters = np.array([(0, 1, 4), (12, 4, 4), (100, 6, 8)], METER)  # the 4/4 bars end at tick 100, within a bar
    tempos = np.array([(0, 60), (12, 120)], TEMPO)
    piece = Piece(note_array([(0, 0, 60, 12, 64), (130, 0, 60, 12, 64)]), tempos, meters)
    assert piece.bar_lines().tolist() == [0, 12, 60, 100, 136]
    assert piece.num_bars == 5
    assert piece.seconds([0, 12, 24, 36]).tolist() == [0.0, 1.0, 1.5, 2.0]
    bars = piece.slice_bars(2, 4)
    assert bars.notes["onset"].tolist() == [70] and bars.bar_lines(76).tolist() == [0, 40]
    assert bars.meters.tolist() == [(0, 4, 4), (40, 6, 8)] and bars.tempos.tolist() == [(0, 120.0)]


@given(pieces(), st.integers(0, 20), st.integers(0, 20))
def test_slices_partition_the_notes(piece, first, second):
    cuts = sorted({0, first, second, 10**6})
    parts = [piece.slice_bars(low, high) for low, high in itertools.pairwise(cuts)]
    assert sum(len(part.notes) for part in parts) == len(piece.notes)
    lines = piece.bars.start(np.array(cuts[:-1]))
    onsets = [part.notes["onset"] + line for part, line in zip(parts, lines, strict=True)]
    assert np.array_equal(np.concatenate(onsets), piece.notes["onset"])


def test_transpose_skips_drums_and_checks_the_range():
    piece = Piece.from_notes([(0, 0, 120, 1, 64), (0, DRUMS, 36, 1, 64)])
    assert piece.transpose(5).notes["pitch"].tolist() == [125, 36]
    with pytest.raises(ValueError, match="pitch"):
        piece.transpose(9)


@pytest.mark.parametrize(
    ("notes", "tempos", "meters", "message"),
    [
        ([(0, 129, 60, 1, 64)], [(0, 120)], [(0, 4, 4)], "program"),
        ([(0, 0, 128, 1, 64)], [(0, 120)], [(0, 4, 4)], "pitch"),
        ([(-1, 0, 60, 1, 64)], [(0, 120)], [(0, 4, 4)], "tick 0"),
        ([], [(1, 120)], [(0, 4, 4)], "tempos"),
        ([], [(0, 120)], [(0, 4, 4), (0, 3, 4)], "meters"),
        ([], [(0, 0)], [(0, 4, 4)], "quarters per minute"),
        ([], [(0, 120)], [(0, 1, 64)], "whole number of ticks"),
    ],
)
def test_invalid_pieces_raise(notes, tempos, meters, message):
    with pytest.raises(ValueError, match=message):
        Piece(note_array(notes), np.array(tempos, TEMPO), np.array(meters, METER))


def test_one_beat_bars_are_regrouped_and_pickups_kept():
    midi = pretty_midi.PrettyMIDI()
    track = pretty_midi.Instrument(0)
    track.notes = [pretty_midi.Note(64, 60, 0.5 * beat, 0.5 * beat + 0.25) for beat in range(20)]
    midi.instruments.append(track)
    midi.time_signature_changes = [pretty_midi.TimeSignature(1, 4, 0.0)]
    loss = QuantizationStats()
    assert from_midi(midi, loss=loss).meters.tolist() == [(0, 4, 4)] and loss.meters_regrouped == 1
    midi.time_signature_changes.append(pretty_midi.TimeSignature(3, 4, 0.5))
    assert from_midi(midi).meters.tolist() == [(0, 1, 4), (12, 3, 4)]


def test_quantization_stats_are_counted():
    midi = pretty_midi.PrettyMIDI(initial_tempo=60)
    midi.instruments = [pretty_midi.Instrument(0), pretty_midi.Instrument(0), pretty_midi.Instrument(5, is_drum=True)]
    for track in midi.instruments:
        track.notes = [pretty_midi.Note(64, 60, 1 + 0.25 / 12, 2)]
    midi.instruments[0].control_changes = [pretty_midi.ControlChange(64, 127, 0.0)]
    loss = QuantizationStats()
    piece = NoteEvents().quantize(from_midi(midi, loss=loss), loss)
    assert piece.notes["program"].tolist() == [0, DRUMS] and piece.notes["onset"].tolist() == [12, 12]
    assert [track[:2] for track in from_midi(midi).tracks] == [(0, 0), (0, 1), (DRUMS, 0)]
    assert (loss.notes, loss.tracks, loss.tracks_merged, loss.duplicate_notes, loss.controls_dropped) == (3, 3, 1, 1, 1)
    assert loss.onset_error_ticks_max == pytest.approx(0.25) and loss.onset_error_ms_max == pytest.approx(250 / 12)
    assert loss.to_dict()["onset_error_ticks_mean"] == pytest.approx(0.25)


def _bytes(**header) -> bytes:
    file = mido.MidiFile(**header)
    file.tracks.append(mido.MidiTrack([mido.Message("note_on", note=60), mido.Message("note_off", note=60, time=480)]))
    buffer = io.BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"RIFF not midi at all", "broken"),
        (_bytes()[:-9], "broken"),
        (_bytes()[:12] + b"\0\0" + _bytes()[14:], "no_ticks"),
        (_bytes()[:12] + b"\xe7\x28" + _bytes()[14:], "no_ticks"),
        (_bytes().replace(b"\x90\x3c\x40", b"\xc0\xff\x90"), "broken"),
        (_bytes() + b"\0" * (9 << 20), "too_large"),
    ],
)
def test_bad_files_raise_one_line_with_the_path(tmp_path, content, reason):
    path = tmp_path / "bad.mid"
    path.write_bytes(content)
    with pytest.raises(BadMidi) as error:
        read_midi(path)
    assert error.value.reason == reason
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_files_and_folders_raise(tmp_path):
    for path in (tmp_path / "none.mid", tmp_path):
        with pytest.raises(BadMidi, match="give the path of a MIDI file"):
            read_midi(path)


def test_saving_to_an_unwritable_path_raises(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        save_midi(Piece.from_notes([]), tmp_path / "file" / "piece.mid")


def test_each_program_has_its_own_channel_and_port(tmp_path):
    notes = [(12 * (program % 5), program, 60, 12, 65) for program in range(40)] + [(0, DRUMS, 36, 12, 65), (1, 3, 60, 12, 65)]
    save_midi(Piece.from_notes(notes), tmp_path / "a.mid")
    places = {}
    for track in mido.MidiFile(tmp_path / "a.mid").tracks:
        port = next((message.port for message in track if message.type == "midi_port"), 0)
        for message in track:
            if message.type == "program_change":
                places.setdefault((port, message.channel), set()).add(message.program)
    assert len(places) == 41 and all(len(programs) == 1 for programs in places.values())
    assert {channel for _, channel in places} == set(range(16)) and {port for port, _ in places} == {0, 1, 2}
    assert {track.program for track in to_midi(Piece.from_notes(notes)).instruments if not track.is_drum} == set(range(40))


def test_too_many_voices_raise(tmp_path):
    notes = np.zeros(70_000, NOTE)
    notes["pitch"], notes["duration"], notes["velocity"] = 60, np.arange(1, 70_001), 64
    with pytest.raises(UserError, match="cannot write .*a.mid: 70,000 voices are too many"):
        save_midi(Piece.from_notes(notes), tmp_path / "a.mid")


@pytest.mark.parametrize(
    ("qpm", "meter", "message"),
    [
        (3.5, (4, 4), "tempos from 3.576 to 60,000,000 quarters per minute, and one is 3.5"),
        (float("inf"), (4, 4), "and one is inf"),
        (120, (4, 12), "a power of two as denominator, and one is 4/12"),
        (120, (256, 4), "a numerator up to 255"),
    ],
)
def test_a_tempo_or_meter_that_midi_cannot_hold_raises(qpm, meter, message, tmp_path):
    with pytest.raises(UserError, match=f"cannot write .*a.mid: .*{message}"):
        save_midi(Piece.from_notes([(0, 0, 60, 1, 64)], qpm=qpm, meter=meter), tmp_path / "a.mid")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("qpm", [3.58, 60_000_000])
def test_the_slowest_and_the_fastest_tempo_come_back(qpm, tmp_path):
    save_midi(Piece.from_notes([(0, 0, 60, 1, 64)], qpm=qpm), tmp_path / "a.mid")
    assert read_midi(tmp_path / "a.mid").tempos["qpm"].tolist() == [qpm]


def test_too_long_rest_raises(tmp_path):
    with pytest.raises(UserError, match="cannot write .*a.mid: a rest of .* ticks is too long"):
        save_midi(Piece.from_notes([(2**28, 0, 60, 1, 64)]), tmp_path / "a.mid")
    assert not (tmp_path / "a.mid").exists()


@pytest.mark.process
def test_music_does_not_import_jax():
    code = "import sys, sage_jax.music.midi, sage_jax.tokenizers.note_events; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
