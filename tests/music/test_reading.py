"""Interpretation of MIDI files: the expected result for each kind of file, equal for all readers."""

import dataclasses
import importlib.util
import time

import numpy as np
import pytest

from sage_jax.corpus.preprocess import READERS, PreprocessConfig, preprocess
from sage_jax.corpus.sources import list_corpus
from sage_jax.errors import UserError
from sage_jax.music.messages import MidiError
from sage_jax.music.midi import BadMidi, read_midi
from sage_jax.music.notes import DRUMS
from sage_jax.music.quantization import to_piece
from sage_jax.music.quantization_stats import QuantizationStats
from sage_jax.music.reading import ParsedMidi, read_bytes
from sage_jax.music.system_events import MICROSECONDS_PER_MINUTE
from sage_jax.tokenizers.note_events import NoteEvents
from tests.music import generated, naive_midi, smf
from tests.music.midi_files import write_pieces
from tests.music.smf import QUARTER, control, meta, meter, note, off, on, program, scale, sysex, tempo, track

HITS = [event for beat in range(4) for event in note(beat * QUARTER, QUARTER, 36, 100, 5)]
GS_DRUMS, GS_NONE, GS_RESET = "4110421240161502 0f f7", "4110421240161500 11 f7", "411042124000 7f 00 41 f7"
TEN_HOURS = 10 * 60 * 120 * QUARTER

# Kind -> (file, expected values of `found`, expected counters of QuantizationStats that are not 0).
KINDS = {
    # Tempos, meters and programs on different tracks
    "tempo and meter on a later track": (
        smf.smf(track(meta(0, 3, b"song")), track(tempo(0, 230), meter(0, 3, 4), scale())),
        dict(tempos=[(0, 230)], meters=[(0, 3, 4)], notes=8), {}),
    "tempo on one track, meter on another": (
        smf.smf(track(tempo(0, 99)), track(meter(QUARTER * 4, 3, 4), scale()), track(tempo(QUARTER, 60))),
        dict(tempos=[(0, 99), (12, 60)], meters=[(0, 4, 4), (48, 3, 4)]), {}),
    "two tempos at one tick: the later track's wins": (
        smf.smf(track(tempo(0, 100)), track(tempo(0, 200), scale())), dict(tempos=[(0, 200)]), dict(tempos_merged=1)),
    "programs on a conductor track": (
        smf.smf(track(program(0, 40), program(0, 32, 1)), track(scale()), track(scale(1))),
        dict(programs=[32, 40], notes=16), {}),
    "a track's own program has priority": (
        smf.smf(track(program(0, 40), scale()), track(program(0, 60), scale(0, 8, 70)), track(scale(0, 8, 50))),
        dict(programs=[40, 60]), {}),
    "a program of another track applies from its tick on": (
        smf.smf(track(program(2 * QUARTER, 40)), track(scale(0, 4))), dict(note_programs=[0, 0, 40, 40]), {}),
    "a program of another port does not apply": (
        smf.smf(track(meta(0, 0x21, b"\1"), program(0, 40)), track(scale())), dict(programs=[0]), {}),
    "a note keeps its initial program": (
        smf.smf(track(program(0, 5), on(0), program(QUARTER, 9), off(2 * QUARTER), note(2 * QUARTER, QUARTER, 62))),
        dict(note_programs=[5, 9], durations=[24, 12]), {}),
    "format 2": (
        smf.smf(track(tempo(0, 60), program(0, 7), scale(), end=8 * QUARTER), track(scale(), end=8 * QUARTER), kind=2),
        dict(onsets=list(range(0, 192, 12)), tempos=[(0, 60), (96, 120)], note_programs=8 * [7] + 8 * [0]),
        dict(patterns_in_a_row=2)),
    # Overlaps
    "overlapping notes end first in, first out": (
        smf.smf(track(on(0), on(QUARTER), off(2 * QUARTER), off(4 * QUARTER))),
        dict(onsets=[0, 12], durations=[24, 36]), dict(notes_overlapping=1)),
    "a note-on before the note-off at the same tick": (
        smf.smf(track(on(0), on(QUARTER), off(QUARTER), off(2 * QUARTER))), dict(durations=[12, 12]), {}),
    "a note-off without a note": (
        smf.smf(track(off(0), note(0, QUARTER), off(QUARTER), note(QUARTER, QUARTER))), dict(durations=[12, 12]), {}),
    "one pitch on two channels and two tracks": (
        smf.smf(
            track(note(0, 2 * QUARTER), note(0, QUARTER, 60, 80, 1), program(0, 9, 1)),
            track(program(0, 3), note(0, 3 * QUARTER))),
        dict(note_programs=[3, 3, 9], durations=[24, 36, 12]), {}),
    # Drums
    "drum notes of length 0": (
        smf.smf(track([row for beat in range(8) for row in (on(beat * QUARTER, 36, 100, 9), off(beat * QUARTER, 36, 9))])),
        dict(onsets=list(range(0, 96, 12)), durations=8 * [1], programs=[DRUMS]), dict(notes_without_length=8)),
    "an XG kit": (smf.smf(track(control(0, 0, 127, 5), program(0, 0, 5), HITS)), dict(programs=[DRUMS]), {}),
    "an XG effects kit": (smf.smf(track(control(0, 0, 126, 5), program(0, 0, 5), HITS)), dict(programs=[DRUMS]), {}),
    "a GM2 kit": (
        smf.smf(track(control(0, 0, 120, 5), control(0, 32, 0, 5), program(0, 0, 5), HITS)), dict(programs=[DRUMS]), {}),
    "a bank on the conductor track": (
        smf.smf(track(control(0, 0, 120, 5)), track(program(0, 0, 5), HITS)), dict(programs=[DRUMS]), {}),
    "a melodic bank in a GS file": (
        smf.smf(track(sysex(0, GS_RESET), control(0, 0, 127, 5), program(0, 3, 5), HITS)), dict(programs=[3]), {}),
    "a bank without a program change": (smf.smf(track(control(0, 0, 120, 5), HITS)), dict(programs=[0]), {}),
    "a melodic bank after a kit": (
        smf.smf(track(control(0, 0, 120, 5), program(0, 0, 5), control(QUARTER, 0, 121, 5), program(QUARTER, 7, 5), HITS)),
        dict(note_programs=[DRUMS, 7, 7, 7]), {}),
    "a GS drum part": (smf.smf(track(sysex(0, GS_DRUMS), program(0, 0, 5), HITS)), dict(programs=[DRUMS]), {}),
    "a GS drum part, switched on and off": (
        smf.smf(track(
            sysex(0, GS_DRUMS), sysex(QUARTER, GS_NONE), sysex(2 * QUARTER, GS_DRUMS), sysex(3 * QUARTER, GS_RESET), HITS)),
        dict(note_programs=[DRUMS, 0, DRUMS, 0]), {}),
    "melodic channel 10": (
        smf.smf(track(sysex(0, "41104212401015001bf7"), program(0, 11, 9), scale(9))), dict(programs=[11]), {}),
    "an XG drum part": (smf.smf(track(sysex(0, "43104c08050701f7"), HITS)), dict(programs=[DRUMS]), {}),
    # Missing and distant ends
    "notes without a note-off": (
        smf.smf(track(on(0), on(QUARTER, 62), end=4 * QUARTER)), dict(durations=[48, 36]), dict(notes_without_end=2)),
    "an end of track after hours": (smf.smf(track(scale(), end=TEN_HOURS), ticks=QUARTER), dict(notes=8, end=96), {}),
    "changes after the last note": (
        smf.smf(track(scale(), tempo(TEN_HOURS, 60), meter(TEN_HOURS, 3, 4))),
        dict(tempos=[(0, 120)], meters=[(0, 4, 4)]), dict(changes_after_the_end=2)),
    "10,080 ticks to a quarter": (
        smf.smf(track([row for bar in range(300) for row in note(bar * 40_320, 10_080)]), ticks=10_080),
        dict(notes=300, end=12 * (4 * 299 + 1)), {}),
    "32,767 ticks to a quarter": (
        smf.smf(track([row for bar in range(180) for row in note(bar * 65_534, 32_767)]), ticks=32_767), dict(notes=180), {}),
    # Irregular but readable files
    "an impossible key": (
        smf.smf(track(meta(0, 0x59, b"\xf8\0"), meta(0, 0x59, b"\0\7"), meta(0, 0x59), scale())),
        dict(notes=8), dict(odd_meta_events=3)),
    "a meter of two bytes": (
        smf.smf(track(meta(0, 0x58, b"\3\2"), scale())), dict(meters=[(0, 3, 4)]), dict(odd_meta_events=1)),
    "a meter with 0 beats, and with beats of a 256th": (
        smf.smf(track(
            meta(0, 0x58, b"\0\2\x18\x08"), meta(0, 0x58, b"\4\x08\x18\x08"), meta(0, 0x58, b"\4\xff\x18\x08"), scale())),
        dict(meters=[(0, 4, 4)], notes=8), dict(odd_meta_events=3)),
    "a tempo of no bytes, of two bytes, and of 0": (
        smf.smf(track(meta(0, 0x51), meta(0, 0x51, b"\1\2"), meta(0, 0x51, b"\0\0\0"), scale())),
        dict(tempos=[(0, 120)], notes=8), dict(odd_meta_events=3)),
    "lyrics that are not text": (
        smf.smf(track(meta(0, 5, b"\xff\xfe\x51\3"), meta(QUARTER, 0x60, b"?"), scale())), dict(notes=8), {}),
    "a volume of 255": (smf.smf(track(control(0, 7, 255), scale())), dict(notes=8), dict(data_bytes_over_127=1)),
    "a system-exclusive message with high bytes": (smf.smf(track(sysex(0, "5053ff0401f7"), scale())), dict(notes=8), {}),
    "a system-exclusive message in packets": (
        smf.smf(track(
            sysex(0, "411042124016"), sysex(QUARTER, "15020ff7", 0xF7), [(tick + QUARTER, row) for tick, row in HITS])),
        dict(programs=[DRUMS], onsets=[12, 24, 36, 48]), dict(system_exclusive_packets=1)),
    "an escape": (
        smf.smf(track(sysex(QUARTER, "f3 01", 0xF7), scale())),
        dict(notes=8, onsets=list(range(0, 96, 12))), dict(system_exclusive_packets=1)),
    "realtime messages": (smf.smf(track((0, b"\xf8"), (0, b"\xf2\1\2"), scale())), dict(notes=8), dict(system_messages=2)),
    "running status after a system-exclusive message": (
        smf.smf(track(
            on(0), off(QUARTER), sysex(QUARTER, "7e7f0601f7"), (QUARTER, bytes([62, 64])), (2 * QUARTER, b"\x90\x40\x50"),
            off(3 * QUARTER, 64))),
        dict(pitches=[60, 64]), dict(running_status_kept=1)),
    "chunks other than tracks": (
        smf.smf(smf.chunk(b"XFIH", b"abc"), track(scale()), smf.chunk(b"XFKM", b"")), dict(notes=8), dict(foreign_chunks=2)),
    "an empty track": (
        smf.smf(track(tempo(0, 90)), smf.chunk(b"MTrk", b""), track(scale())),
        dict(notes=8, tempos=[(0, 90)]), dict(empty_tracks=1, tracks_without_an_end=1)),
    "a RIFF wrapper": (smf.riff(smf.smf(track(scale()))), dict(notes=8), dict(riff_files=1)),
    "no end-of-track event": (smf.smf(track(scale(), ended=False)), dict(notes=8), dict(tracks_without_an_end=1)),
    "more tracks than in the header": (
        smf.smf(track(scale()), track(scale(1)), count=1), dict(tracks=2), dict(tracks_beyond_the_header=1)),
    "a longer header": (
        smf.chunk(b"MThd", b"\0\1\0\1\1\xe0\0\0") + track(scale()), dict(notes=8), {}),
    "bytes after the tracks": (smf.smf(track(scale())) + bytes(100), dict(notes=8), dict(bytes_after_the_tracks=100)),
    "bytes after an end-of-track event": (
        smf.smf(smf.chunk(b"MTrk", track(scale())[8:] + b"\0\x90\x3c\x40")),
        dict(notes=8), dict(bytes_after_an_end_of_track=4)),
    "zeros after an end-of-track event": (
        smf.smf(smf.chunk(b"MTrk", track(scale())[8:] + bytes(9))), dict(notes=8), dict(bytes_after_an_end_of_track=9)),
    "two meters at one tick of the grid": (
        smf.smf(track(meter(QUARTER * 4, 3, 4), meter(QUARTER * 4 + 1, 2, 4), scale())),
        dict(meters=[(0, 4, 4), (48, 2, 4)]), dict(meters_merged=1)),
    "program changes with running status": (
        smf.smf(track(program(0, 5), (0, b"\6"), (0, b"\7"), scale())), dict(programs=[7]), {}),
    "pressures, pedal and bends": (
        smf.smf(track(
            (0, b"\xd0\5"), (0, b"\6"), (0, b"\xa0\x3c\1"), control(0, 64, 127), (0, b"\xe0\0\x50"),
            control(0, 0, 1), scale())),
        dict(notes=8), dict(controls_dropped=5)),
}  # fmt: skip


def found(piece, loss: QuantizationStats) -> dict:
    notes = piece.notes
    return dict(
        notes=len(notes), end=piece.end, tracks=loss.tracks, programs=sorted(set(notes["program"].tolist())),
        note_programs=notes["program"].tolist(), onsets=notes["onset"].tolist(), durations=notes["duration"].tolist(),
        pitches=notes["pitch"].tolist(), tempos=piece.tempos.tolist(), meters=piece.meters.tolist(),
    )  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_reads_each_kind_of_file(kind, reader, tmp_path):
    data, expected, counted = KINDS[kind]
    (tmp_path / "a.mid").write_bytes(data)
    loss = QuantizationStats()
    piece = to_piece(READERS[reader](tmp_path / "a.mid"), loss=loss)
    values = found(piece, loss)
    assert {name: values[name] for name in expected} == expected
    checked = [name for name in vars(loss) if name != "notes" and ("note" in name or "odd" in name or name in counted)]
    assert {name: getattr(loss, name) for name in checked} == {**dict.fromkeys(checked, 0), **counted}


BROKEN = {
    "not MIDI": (b"not MIDI at all", "broken"),
    "RIFF without MIDI": (b"RIFF\0\0\0\0RMIDLIST\0\0\0\0", "broken"),
    "no tracks": (smf.smf(), "broken"),
    "a missing track": (smf.smf(track(scale()), count=2), "broken"),
    "a truncated track": (smf.smf(track(scale()))[:-9], "broken"),
    "a truncated event": (smf.smf(smf.chunk(b"MTrk", b"\0\x90\x3c")), "broken"),
    "data without a status": (smf.smf(smf.chunk(b"MTrk", b"\0\x3c\x40")), "broken"),
    "a program of 200": (smf.smf(track((0, b"\xc0\xc8"), scale())), "broken"),
    "a velocity of 200": (smf.smf(track((0, b"\x90\x3c\xc8"), scale())), "broken"),
    "an endless variable-length quantity": (smf.smf(smf.chunk(b"MTrk", b"\xff\xff\xff\xff\x7f\x90\x3c\x40")), "broken"),
    "format 3": (smf.smf(track(scale()), kind=3), "broken"),
    "SMPTE time": (smf.smf(track(scale()), ticks=-6360), "no_ticks"),
    "a note after days": (smf.smf(track([(tick + 2**27, row) for tick, row in scale()]), ticks=100), "too_long"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_raise_with_reason_and_advice(kind, reader, tmp_path):
    data, reason = BROKEN[kind]
    (tmp_path / "a.mid").write_bytes(data)
    with pytest.raises(BadMidi, match=r"a\.mid can't be read as MIDI: .*; (save it again|split it)") as error:
        READERS[reader](tmp_path / "a.mid")
    assert error.value.reason == reason


def test_adversarial_files_are_read_in_linear_time():
    tracks = {
        "packets": b"\0\xf0\x81\x00" + bytes(128) + b"\0\xf7\1\0" * 300_000,
        "resets": b"\0\xf0\4\x7e\0\x09\xf7" * 25_000 + b"\0\x90\x3c\x40" + b"\0\x3c\x40" * 100_000,
        "meters": b"\1\xff\x58\4\xff\2\x18\x08" * 50_000,
        "runs": b"\0\x90\x3c\x40" + b"\0\xff\1\0\0\x3c\x40" * 50_000,
    }
    for name, data in tracks.items():
        began = time.process_time()
        midi = read_bytes(smf.smf(smf.chunk(b"MTrk", data), ticks=12))
        assert len(midi.meters) < 2 and time.process_time() - began < 15, name


def test_truncated_files_raise_and_corrupted_files_raise_or_give_valid_notes():
    whole = smf.smf(track(tempo(0, 100), program(0, 5), scale()), track(sysex(0, GS_DRUMS), control(0, 7, 100), HITS))
    for length in range(len(whole)):
        with pytest.raises(MidiError):
            read_bytes(whole[:length])
    rng = np.random.default_rng(0)
    for _ in range(3000):
        data = bytearray(whole)
        for place in rng.integers(8, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        try:
            midi = read_bytes(bytes(data))
        except MidiError:
            continue
        assert (midi.end > midi.start).all() and (midi.pitch < 128).all() and (midi.velocity < 128).all()


def columns(midi: ParsedMidi) -> tuple[list, list, list]:
    rows = np.stack([midi.start, midi.end, midi.program, midi.pitch, midi.velocity], axis=1).astype(np.int64)
    microseconds = np.rint(MICROSECONDS_PER_MINUTE / midi.qpm).astype(np.int64)
    tempos = list(zip(midi.tempo_ticks.astype(np.int64).tolist(), microseconds.tolist(), strict=True))
    return sorted(map(tuple, rows.tolist())), tempos, [tuple(map(int, row)) for row in midi.meters]


def before_the_end(reading: tuple[list, list, list]) -> tuple[list, list, list]:
    notes, *changes = reading
    end = max((note[1] for note in notes), default=1)
    return notes, *([row for row in rows if row[0] < end] for rows in changes)


@pytest.mark.parametrize("part", range(10))
def test_random_files_match_the_naive_reader(part, tmp_path):
    for seed in range(250 * part, 250 * (part + 1)):
        data = generated.draw(seed)
        expected = before_the_end(naive_midi.read(data))
        assert columns(read_bytes(data)) == expected, seed
        last = max((note[1] for note in expected[0]), default=0)
        if seed % 5 == 0 and last < 10_000_000:  # pretty_midi allocates memory for each tick
            (tmp_path / "a.mid").write_bytes(data)
            for reader in ("pretty_midi", "symusic"):
                assert columns(READERS[reader](tmp_path / "a.mid")) == expected, (seed, reader)


def test_embedded_corpus_matches_the_naive_reader():
    """Every third file, which are of each of its folders."""
    files = list_corpus("embedded")[::3]
    assert {name.split("/")[0] for name, _ in files} == {name.split("/")[0] for name, _ in list_corpus("embedded")}
    for name, path in files:
        with open(path, "rb") as file:
            data = file.read()
        expected = before_the_end(naive_midi.read(data))
        for reader in READERS:
            assert columns(READERS[reader](path)) == expected, (name, reader)


TRUE_TEMPOS = {
    "freedoom1_d_e1m5": 70, "freedoom1_d_e1m7": 90, "freedoom1_d_e2m4": 70, "freedoom2_d_countd": 90, "freedoom2_d_doom2": 135,
    "freedoom2_d_romero": 105,
}  # fmt: skip


def test_embedded_corpus_has_its_true_tempos():
    paths = {name.rpartition("/")[2].removesuffix(".mid"): path for name, path in list_corpus("embedded")}
    assert {name: read_midi(paths[name]).tempos["qpm"].tolist() for name in TRUE_TEMPOS} == {
        name: [float(qpm)] for name, qpm in TRUE_TEMPOS.items()
    }


@pytest.mark.process
def test_all_readers_give_equal_shards_and_reports(tmp_path):
    midi = tmp_path / "midi"
    midi.mkdir()
    write_pieces(midi, 6)
    for number, (data, _, _) in enumerate(KINDS.values()):
        (midi / f"kind{number:02d}.mid").write_bytes(data)
    reports, shards = [], []
    for reader in READERS:
        config = PreprocessConfig(workers=1, reader=reader)
        reports.append(preprocess(f"folder:{midi}", tmp_path / reader, NoteEvents(), config, show_progress=False))
        shards.append([path.read_bytes() for path in sorted((tmp_path / reader).rglob("*.npy"))])
        for field in ("worker_seconds", "files_per_second_per_core", "parsing_share"):
            reports[-1].pop(field)
    assert reports[0]["dropped"] == {}
    assert all(report == reports[0] for report in reports) and all(each == shards[0] for each in shards)
    again = dataclasses.replace(config, reader="direct")
    assert preprocess(f"folder:{midi}", tmp_path / "symusic", NoteEvents(), again, show_progress=False)["reused"]


def test_unknown_and_missing_readers_raise(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="preprocess.reader is 'mido'; choose one of direct, pretty_midi, symusic"):
        PreprocessConfig(reader="mido")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"'symusic', which is not installed; pip install -e '.\[symusic\]'"):
        preprocess("embedded", tmp_path / "out", NoteEvents(), PreprocessConfig(reader="symusic"))
    assert not (tmp_path / "out").exists()
