"""Tens of thousands of files: the process that leads takes a number of bytes for each, and nothing is lost or mixed up."""

import json
import subprocess
import sys

import numpy as np

from sage_jax.music.events import NoteEvents
from sage_jax.music.preprocess import BYTES_PER_FILE
from sage_jax.music.report import format_report
from sage_jax.music.shards import FILES_PER_SHARD, MAPS_OPEN, SHARDS, TokenShards
from tests.music.many_files import EVENTS

COUNT = 50_000


def test_memory_grows_by_so_many_bytes_per_file_and_all_are_told(tmp_path):
    command = [sys.executable, "-m", "tests.music.many_files", str(tmp_path / "out"), str(COUNT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < BYTES_PER_FILE

    report = json.loads((tmp_path / "out" / "report.json").read_text())
    left_out = report["near_duplicates"]["left_out"]
    assert report["files"] == COUNT and len(report["dropped"]["broken"]) == 3 * COUNT // 100
    assert report["identical_copies"]["folder/000010.mid"] == "folder/000009.mid"
    assert len(report["identical_copies"]) == COUNT // 100 and len(report["near_duplicates"]["groups"]) == 2 * COUNT // 100
    assert 0 < len(left_out) < 2 * COUNT // 100 and report["kept"] == COUNT * 96 // 100 - len(left_out)
    assert report["loss"]["notes"] == 2 * COUNT * 97 // 100 and f"{COUNT:,}, of them" in format_report(report)

    splits = [TokenShards(tmp_path / "out", split, NoteEvents()) for split in ("train", "valid", "test")]
    names = [name for shards in splits for name in shards.names]
    assert len(set(names)) == len(names) == report["kept"] and not left_out.keys() & set(names)
    train = splits[0]
    assert len(list((tmp_path / "out" / SHARDS).iterdir())) == 2 * -(-COUNT // FILES_PER_SHARD) > 2 * MAPS_OPEN
    held = [train[piece] for piece in range(0, len(train), 100)]
    assert all(np.array_equal(piece, EVENTS) for piece in held) and len(train._opened) <= MAPS_OPEN
