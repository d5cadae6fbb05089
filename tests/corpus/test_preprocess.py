"""Preprocessing: each file is kept or reported, killed runs resume, and mismatched folders raise."""

import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from sage_jax.corpus import runners
from sage_jax.corpus.preprocess import READERS, PreprocessConfig, preprocess
from sage_jax.corpus.report import format_report
from sage_jax.corpus.shards import INDEX, LOCK, SHARDS, VOCABULARY, TokenShards
from sage_jax.corpus.splits import assign_splits, content_hash
from sage_jax.errors import UserError
from sage_jax.music.midi import read_midi, save_midi
from sage_jax.music.notes import TEMPO, Piece
from sage_jax.tokenizers.note_events import NoteEvents
from tests.music.midi_files import NOTE_ON_OFF, midi_bytes, random_piece, write_hostile_files, write_pieces

pytestmark = pytest.mark.process  # preprocessing starts worker processes

SMALL = PreprocessConfig(max_file_mb=1.0, max_events_per_file=2000, workers=1)
TOKENIZER = NoteEvents()


def run(midi, out, tokenizer=TOKENIZER, config=SMALL):
    return preprocess(f"folder:{midi}", out, tokenizer, config, show_progress=False)


def stored(out, tokenizer=TOKENIZER) -> dict[str, np.ndarray]:
    """Name -> events of all pieces in the shards."""
    splits = [TokenShards(out, split, tokenizer) for split in ("train", "valid", "test")]
    return {name: events for shards in splits for name, events in zip(shards.names, shards, strict=True)}


@pytest.fixture
def midi(tmp_path):
    folder = tmp_path / "midi"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The MIDI files and the shards of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    midi = folder / "midi"
    midi.mkdir()
    write_pieces(midi, 3, num_notes=50)
    run(midi, folder / "out")
    return midi, folder / "out"


@pytest.fixture
def finished_copy(finished, tmp_path):
    """As `finished`, with shards that a test may change."""
    midi, out = finished
    return midi, shutil.copytree(out, tmp_path / "out")


def test_shards_hold_the_tokens_of_every_file(midi, tmp_path):
    pieces = write_pieces(midi, 12)
    report = run(midi, tmp_path / "out")
    events = stored(tmp_path / "out")
    assert events.keys() == pieces.keys()
    for name in pieces:
        assert np.array_equal(events[name], TOKENIZER.encode(TOKENIZER.quantize(read_midi(midi / name))))
        assert events[name].dtype == np.int16 and not events[name].flags.writeable
    counts = report["splits"]
    assert [counts[split]["pieces"] for split in ("train", "valid", "test")] == [10, 1, 1]
    assert sum(split["events"] for split in counts.values()) == sum(map(len, events.values()))
    assert sum(split["notes"] for split in counts.values()) == sum(TOKENIZER.is_note(each).sum() for each in events.values())
    assert 0 < report["parsing_share"] < 1 and report["loss"]["notes"] == 12 * 200


@pytest.mark.parametrize("reader", READERS)
def test_broken_files_are_dropped_with_one_line_each(reader, midi, tmp_path):
    good = write_pieces(midi, 3, num_notes=50)
    reasons = write_hostile_files(midi)
    report = run(midi, tmp_path / "out", config=dataclasses.replace(SMALL, reader=reader))
    assert {name: reason for reason, files in report["dropped"].items() for name in files} == reasons
    assert report["kept"] == 3 and stored(tmp_path / "out").keys() == good.keys()
    messages = [message for files in report["dropped"].values() for message in files.values()]
    assert all(message and "\n" not in message and str(midi) not in message for message in messages)
    text = (tmp_path / "out" / "report.txt").read_text()
    assert text == format_report(report) and r"line\nbreak \udcff.mid  broken: " in text
    assert json.loads((tmp_path / "out" / "report.json").read_text()).items() <= report.items()


def test_slow_file_is_dropped(midi, tmp_path):
    write_pieces(midi, 3, num_notes=50)
    (midi / "endless.mid").write_bytes(midi_bytes(NOTE_ON_OFF * 400_000))
    report = run(midi, tmp_path / "out", config=PreprocessConfig(max_seconds_per_file=1.0, workers=1, reader="pretty_midi"))
    assert report["dropped"].keys() == {"timeout"} and report["kept"] == 3


def test_file_that_needs_too_much_memory_is_dropped(midi, tmp_path):
    write_pieces(midi, 3, num_notes=50)
    (midi / "greedy.mid").write_bytes(midi_bytes(NOTE_ON_OFF * 1_100_000))
    report = run(midi, tmp_path / "out", config=PreprocessConfig(max_memory_mb=256, workers=1))
    ((reason, files),) = report["dropped"].items()
    assert reason in ("memory", "too_large", "crashed") and files.keys() == {"greedy.mid"} and report["kept"] == 3


RUN = """
import sys
from sage_jax.corpus import shards
from sage_jax.corpus.preprocess import *
shards.FILES_PER_SHARD = 1
preprocess(sys.argv[1], sys.argv[2], NoteEvents(), show_progress=False)
"""


def test_killed_run_resumes(midi, tmp_path):
    write_pieces(midi, 24, num_notes=800)
    out, config = tmp_path / "out", PreprocessConfig()
    process = subprocess.Popen([sys.executable, "-c", RUN, f"folder:{midi}", str(out)])
    deadline = time.monotonic() + 60
    while len(list((out / SHARDS).glob("[0-9]*.jsonl"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in (out / SHARDS).glob("[0-9]*.jsonl")}
    assert 5 <= len(before) < 24 and not (out / INDEX).exists()
    with pytest.raises(UserError, match="no finished token shards"):
        TokenShards(out, "train", TOKENIZER)
    # As after a kill during writing: a shard without records, and a temporary file.
    (out / SHARDS / "00098.npy").write_bytes(b"half")
    (out / SHARDS / ".00099.jsonl.x.jsonl").write_bytes(b"half")

    report = run(midi, out, config=config)
    assert report["kept"] == 24 and not report["reused"]
    left = {path: path.stat().st_mtime_ns for path in (out / SHARDS).iterdir()}
    assert before.items() <= left.items() and all(path.name[0].isdigit() for path in left) and len(left) % 2 == 0
    whole = run(midi, tmp_path / "whole", config=config)
    expected, got = stored(tmp_path / "whole"), stored(out)
    assert list(got) == list(expected) and all(np.array_equal(got[name], expected[name]) for name in got)
    assert whole["splits"] == report["splits"] and whole["loss"] == pytest.approx(report["loss"])


def test_finished_run_is_reused_and_only_changed_files_are_read(midi, tmp_path, monkeypatch):
    write_pieces(midi, 6, num_notes=50)
    out = tmp_path / "out"
    first = run(midi, out)
    tasks = []
    run_tasks = runners.run_tasks
    monkeypatch.setattr(
        runners, "run_tasks", lambda encode, paths, **limits: tasks.append([*paths]) or run_tasks(encode, paths, **limits)
    )
    assert run(midi, out) == {**first, "reused": True} and not tasks
    save_midi(random_piece(100, 50), midi / "piece00.mid")
    save_midi(random_piece(101, 50), midi / "new.mid")
    (midi / "piece01.mid").unlink()
    second = run(midi, out)
    assert not second["reused"] and tasks == [[str(midi / "new.mid"), str(midi / "piece00.mid")]]
    assert stored(out).keys() == {"new.mid", *(f"piece{number:02d}.mid" for number in (0, 2, 3, 4, 5))}
    run(midi, out, config=dataclasses.replace(SMALL, max_events_per_file=1999))
    assert len(tasks) == 2 and len(tasks[1]) == 6  # with other limits all files are read again
    assert len(list((out / SHARDS).iterdir())) == 2


def test_copies_are_left_out_and_versions_stay_in_one_split(midi, tmp_path):
    write_pieces(midi, 8)
    piece = random_piece(0)
    shutil.copy(midi / "piece00.mid", midi / "copy.mid")
    for semitones in (-3, 1, 4):
        save_midi(piece.transpose(semitones), midi / f"transposed{semitones}.mid")
    slower = Piece(piece.notes, piece.tempos, piece.meters, 24)  # the same ticks on a finer grid: twice the speed
    save_midi(slower, midi / "retimed.mid")
    report = run(midi, tmp_path / "out")
    assert report["identical_copies"] == {"piece00.mid": "copy.mid"} and report["kept"] == 12
    versions = {"copy.mid", "retimed.mid", "transposed-3.mid", "transposed1.mid", "transposed4.mid"}
    assert [set(names) for names in report["versions"]] == [versions]
    splits = [set(TokenShards(tmp_path / "out", split, TOKENIZER).names) & versions for split in ("train", "valid", "test")]
    assert sorted(map(len, splits)) == [0, 0, 5]


def test_near_duplicates_are_never_in_two_splits(midi, tmp_path):
    pieces = write_pieces(midi, 40, num_notes=400)
    for number, (name, piece) in enumerate(pieces.items()):
        save_midi(nearly_equal(piece.transpose(number % 5 - 2)), midi / f"nearly {name}")
    report = run(midi, tmp_path / "out")
    groups = report["near_duplicates"]["groups"]
    assert sorted(map(sorted, groups)) == [[f"nearly {name}", name] for name in pieces]
    splits = [set(TokenShards(tmp_path / "out", split, TOKENIZER).names) for split in ("train", "valid", "test")]
    left_out = report["near_duplicates"]["left_out"]
    assert all(sum(bool(split & set(group)) for split in splits) == 1 for group in groups)
    assert set().union(*splits) | left_out.keys() == {name for group in groups for name in group}
    assert left_out and len(left_out) + report["kept"] == 80
    for place in left_out.values():
        assert place["like"] in splits[("train", "valid", "test").index(place["split"]) - 1] | splits[0]
    # A kept piece is in the split of its own content hash.
    hashes = {name: content_hash(read_midi(midi / name)) for group in groups for name in group}
    split_of = assign_splits(hashes.values())
    place = {name: ("train", "valid", "test").index(split_of[hashes[name]]) for name in hashes.keys() - left_out.keys()}
    assert all(name in splits[split] for name, split in place.items())
    text = format_report(report)
    assert "80 near-duplicates (pieces with much the same melody) in 40 groups of up to 2;" in text
    assert "Near-duplicates left out\n" in text
    assert all(f"{name}  from {each['split']}, similar to {each['like']}" in text for name, each in left_out.items())


def nearly_equal(piece: Piece) -> Piece:
    """The piece slower and louder, without two of its notes."""
    notes = np.delete(piece.notes, [100, 200])
    notes["velocity"] = np.minimum(notes["velocity"] + 20, 127)
    return Piece(notes, np.array([(0, 90)], TEMPO), piece.meters)


def test_embedded_corpus_has_no_near_duplicates(tmp_path):
    report = preprocess("embedded", tmp_path / "out", TOKENIZER, show_progress=False)
    assert report["near_duplicates"] == {"groups": [], "left_out": {}}
    assert [split["pieces"] for split in report["splits"].values()] == [64, 3, 6]


@pytest.mark.parametrize(("count", "empty"), [(1, "valid and test"), (2, "test")])
def test_report_names_empty_splits(midi, tmp_path, count, empty):
    write_pieces(midi, count)
    report = run(midi, tmp_path / "out")
    assert f"No piece in {empty}:" in format_report(report) and report["splits"]["train"]["pieces"] == 1


def test_corpus_without_usable_files_raises(midi, tmp_path):
    (midi / "bad.mid").write_bytes(b"bad")
    with pytest.raises(UserError, match="no file of .* can be used; .*report.txt lists the reasons"):
        run(midi, tmp_path / "out")
    assert "bad.mid  broken" in (tmp_path / "out" / "report.txt").read_text()


def test_unusable_folders_raise(midi, tmp_path):
    write_pieces(midi, 3, num_notes=50)
    out = tmp_path / "out"
    run(midi, out)
    with pytest.raises(UserError, match=r"tokenizer.ticks_per_quarter 12, not 24; choose another --workdir"):
        run(midi, out, NoteEvents(ticks_per_quarter=24))
    with pytest.raises(UserError, match="another vocabulary.*ticks_per_quarter 12, not 24"):
        TokenShards(out, "train", NoteEvents(ticks_per_quarter=24))
    with pytest.raises(UserError, match="has no split 'validation'"):
        TokenShards(out, "validation", TOKENIZER)
    with pytest.raises(UserError, match="corpus folder:.*midi, not folder:.*pieces"):
        run(shutil.copytree(midi, tmp_path / "pieces"), out)
    with pytest.raises(UserError, match="holds files other than token shards"):
        run(midi, midi)
    with pytest.raises(UserError, match="can't write to .*Not a directory"):
        run(midi, midi / "piece00.mid" / "out")
    with open(out / LOCK) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another preprocess"):
            run(midi, out)
    (out / VOCABULARY).write_text("{")
    with pytest.raises(UserError, match="vocabulary.json can't be read"):
        run(midi, out)


def test_folder_without_write_permission_raises(midi, tmp_path, monkeypatch):
    write_pieces(midi, 1)
    monkeypatch.setattr(os, "mkdir", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(UserError, match="can't write to .*Permission denied"):
        run(midi, tmp_path / "out")


def test_damaged_shard_raises(finished_copy):
    _, out = finished_copy
    shards = TokenShards(out, "train", TOKENIZER)
    (out / SHARDS / "00000.npy").write_bytes(b"gone")
    with pytest.raises(UserError, match="00000.npy can't be read"):
        shards[0]  # damaged after the check of the index


def rewrite_header(path, **fields):
    header, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps({**json.loads(header), **fields}) + "\n" + rest)


FAULTS = {
    "events missing": (lambda shards: (shards / "00000.npy").unlink(), "00000.npy is missing"),
    "a shard missing": (lambda shards: [path.unlink() for path in shards.iterdir()], r"00000.jsonl is missing \(and 1 more\)"),
    "the folder missing": (shutil.rmtree, r"00000.jsonl is missing \(and 1 more\)"),
    "an extra shard": (lambda shards: (shards / "00007.npy").write_bytes(b""), "00007.npy is not in its index.json"),
    "a truncated shard": (lambda shards: os.truncate(shards / "00000.npy", 1000), "00000.npy can't be read"),
    "fewer events": (
        lambda shards: np.save(shards / "00000.npy", np.load(shards / "00000.npy")[:-1]), "00000.npy has .* events, not .*"
    ),
    "another header": (lambda shards: rewrite_header(shards / "00000.jsonl", rows=7), "00000.jsonl states 7 events, not"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "fault"), FAULTS.values(), ids=FAULTS)
def test_shards_that_do_not_match_the_index_raise_and_are_repaired(damage, fault, finished_copy):
    midi, out = finished_copy
    before = {name: events.copy() for name, events in stored(out).items()}
    damage(out / SHARDS)
    with pytest.raises(UserError, match=f"{SHARDS}/{fault}.*; then run launch.preprocess with the same --workdir"):
        TokenShards(out, "train", TOKENIZER)
    assert not run(midi, out)["reused"]
    after = stored(out)
    assert after.keys() == before.keys() and all(np.array_equal(after[name], before[name]) for name in after)
    assert run(midi, out)["reused"]


def test_shard_of_another_tokenizer_raises(finished_copy):
    midi, out = finished_copy
    path = out / SHARDS / "00000.jsonl"
    rewrite_header(path, fingerprint="0123456789ab")
    fault = "00000.npy was written by another tokenizer .0123456789ab, not .*: delete it and its .jsonl; then"
    with pytest.raises(UserError, match=fault):
        TokenShards(out, "train", TOKENIZER)
    with pytest.raises(UserError, match=fault):
        run(midi, out)
    path.unlink()
    path.with_suffix(".npy").unlink()
    assert run(midi, out)["kept"] == 3 == len(stored(out))


@pytest.mark.parametrize(("field", "value"), [("max_file_mb", 0), ("max_seconds_per_file", -1), ("workers", -1)])
def test_invalid_limits_raise(field, value):
    with pytest.raises(UserError, match=f"preprocess.{field} is"):
        PreprocessConfig(**{field: value})


def test_preprocessing_does_not_import_jax():
    code = "import sys, sage_jax.corpus.preprocess; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_script_prints_the_report_or_one_line_of_error(midi, tmp_path):
    write_pieces(midi, 3, num_notes=50)
    command = [sys.executable, "-m", "launch.preprocess", "--config=configs/sage.py:debug", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run([*command, f"--config.data.corpus=folder:{midi}"], capture_output=True, text=True)
    assert done.returncode == 0 and "3 found, 3 kept" in done.stdout and (tmp_path / "run" / "data" / INDEX).exists()
    failed = subprocess.run([*command, "--config.data.corpus=folder:/nowhere"], capture_output=True, text=True)
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1 and "/nowhere is not a folder" in failed.stderr
