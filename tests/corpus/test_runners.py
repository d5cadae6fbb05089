"""The Beam runner writes the same shards as the local runner. Tested with a stand-in, and with Beam if it is installed."""

import importlib.util
import sys

import pytest

from sage_jax.corpus import runners, shards
from sage_jax.corpus.preprocess import PreprocessConfig, preprocess
from sage_jax.corpus.shards import LOCK, SHARDS
from sage_jax.errors import UserError
from sage_jax.tokenizers.note_events import NoteEvents
from tests.corpus import stand_in_beam
from tests.music.midi_files import random_piece, save_midi, write_hostile_files, write_pieces

pytestmark = pytest.mark.process  # preprocessing starts worker processes

BEAMS = ["stand-in"] + ["installed"] * (importlib.util.find_spec("apache_beam") is not None)
TIMES = ("worker_seconds", "files_per_second_per_core", "parsing_share")


@pytest.fixture(params=BEAMS)
def beam(request, monkeypatch):
    """The config of a run on Beam."""
    if request.param == "stand-in":
        stand_in_beam.install(monkeypatch)
    return PreprocessConfig(max_file_mb=1.0, max_events_per_file=2000, runner="beam")


@pytest.fixture
def midi(tmp_path, monkeypatch):
    """A folder of valid and broken files that give several shards."""
    monkeypatch.setattr(shards, "FILES_PER_SHARD", 8)
    monkeypatch.setattr(runners, "FILES_PER_SHARD", 8)
    folder = tmp_path / "midi"
    folder.mkdir()
    write_pieces(folder, 8)
    write_hostile_files(folder)
    return folder


def run(midi, out, config):
    report = preprocess(f"folder:{midi}", out, NoteEvents(), config, show_progress=False)
    return {field: value for field, value in report.items() if field not in TIMES}


def contents(folder) -> dict[str, bytes]:
    """The contents of all files except reports, without the times in the records."""
    files = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in (LOCK, "report.json", "report.txt"):
            data = path.read_bytes()
            files[str(path.relative_to(folder))] = data.partition(b'"parse_seconds"')[0] if path.suffix == ".jsonl" else data
    return files


def test_beam_and_local_runner_write_equal_shards(beam, midi, tmp_path):
    local = PreprocessConfig(max_file_mb=1.0, max_events_per_file=2000, workers=2)
    assert run(midi, tmp_path / "local", local) == run(midi, tmp_path / "beam", beam)
    files = contents(tmp_path / "local")
    assert files == contents(tmp_path / "beam") and sum(name.startswith(SHARDS) for name in files) > 4


def test_each_runner_resumes_the_other(beam, midi, tmp_path):
    local = PreprocessConfig(max_file_mb=1.0, max_events_per_file=2000)
    first = run(midi, tmp_path / "out", local)
    assert run(midi, tmp_path / "out", beam) == {**first, "reused": True}
    save_midi(random_piece(100, 50), midi / "new.mid")
    second = run(midi, tmp_path / "out", beam)
    assert second["kept"] == first["kept"] + 1 and not second["reused"]
    assert run(midi, tmp_path / "out", local)["reused"]


def test_failed_pipeline_raises_and_keeps_finished_shards(beam, midi, tmp_path, monkeypatch):
    write_shard = runners.write_shard

    def fail_at_two(folder, number, *answers):
        if number == 2:
            raise ValueError("the disk\nis full")
        write_shard(folder, number, *answers)

    monkeypatch.setattr(runners, "write_shard", fail_at_two)
    with pytest.raises(UserError, match=r"the pipeline failed \(.*the disk is full.*\); run the same command again"):
        run(midi, tmp_path / "out", beam)
    monkeypatch.undo()
    before = list((tmp_path / "out" / SHARDS).glob("*.jsonl"))
    assert len(before) < 4
    run(midi, tmp_path / "out", PreprocessConfig(max_file_mb=1.0, max_events_per_file=2000))
    assert not (tmp_path / "out" / runners.WORK_FOLDER).exists()


def test_workers_without_access_to_the_folder_raise(beam, midi, tmp_path, monkeypatch):
    monkeypatch.setattr(runners, "write_shard", lambda *_: None)
    with pytest.raises(UserError, match="25 files are in no shard of .*; all workers must access this path"):
        run(midi, tmp_path / "out", beam)


def test_missing_beam_and_invalid_runners_raise(midi, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"'beam', which can't be imported \(.*\); pip install -e '.\[beam\]'"):
        run(midi, tmp_path / "out", PreprocessConfig(runner="beam"))
    with pytest.raises(UserError, match="preprocess.runner is 'spark'; choose one of local, beam"):
        PreprocessConfig(runner="spark")
    with pytest.raises(UserError, match="beam_options are for preprocess.runner=beam"):
        PreprocessConfig(beam_options="--runner=FlinkRunner")
