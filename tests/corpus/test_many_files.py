"""Preprocessing of tens of thousands of files: memory per file of the main process, and complete results."""

import json
import subprocess
import sys

import numpy as np
import pytest

from sage_jax.corpus.preprocess import BYTES_PER_FILE
from sage_jax.corpus.report import format_report
from sage_jax.corpus.shards import FILES_PER_SHARD, MAX_OPEN_SHARDS, SHARDS, TokenShards
from sage_jax.tokenizers.note_events import NoteEvents
from tests.corpus.many_files import EVENTS

COUNT = 25_000


@pytest.mark.process
def test_memory_per_file_is_bounded_and_all_files_are_reported(tmp_path):
    command = [sys.executable, "-m", "tests.corpus.many_files", str(tmp_path / "out"), str(COUNT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < BYTES_PER_FILE

    report = json.loads((tmp_path / "out" / "report.json").read_text())
    left_out = report["near_duplicates"]["left_out"]
    assert report["files"] == COUNT and len(report["dropped"]["broken"]) == 3 * COUNT // 100
    assert report["identical_copies"]["folder/000010.mid"] == "folder/000009.mid"
    assert len(report["identical_copies"]) == COUNT // 100 and len(report["near_duplicates"]["groups"]) == 2 * COUNT // 100
    assert 0 < len(left_out) < 2 * COUNT // 100 and report["kept"] == COUNT * 96 // 100 - len(left_out)
    assert report["loss"]["notes"] == 2 * COUNT * 97 // 100 and f"{COUNT:,} found" in format_report(report)

    splits = [TokenShards(tmp_path / "out", split, NoteEvents()) for split in ("train", "valid", "test")]
    names = [name for shards in splits for name in shards.names]
    assert len(set(names)) == len(names) == report["kept"] and not left_out.keys() & set(names)
    train = splits[0]
    assert len(list((tmp_path / "out" / SHARDS).iterdir())) == 2 * -(-COUNT // FILES_PER_SHARD) > 2 * MAX_OPEN_SHARDS
    held = [train[piece] for piece in range(0, len(train), 100)]
    assert all(np.array_equal(piece, EVENTS) for piece in held) and len(train._opened) <= MAX_OPEN_SHARDS
