"""Atomic file replacement; locks between processes that end with their holder."""

import os
import stat
import subprocess
import sys

import pytest

from sage_jax.files import claim, evict, replacing

HOLD = """
import pathlib, sys
from sage_jax.files import claim
with claim(pathlib.Path(sys.argv[1]), wait=False) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


@pytest.mark.process
def test_a_claim_lasts_until_its_process_ends(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "True\n"
    with claim(tmp_path, wait=False) as mine:
        assert not mine
    holder.kill()
    with claim(tmp_path, wait=True) as mine:  # waits forever if the lock is still held
        assert mine
    holder.communicate()


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_new_file_follows_the_umask_which_is_never_changed(tmp_path, monkeypatch, mask):
    """Other threads may create files at the same time."""
    before = os.umask(mask)
    try:
        with monkeypatch.context() as patch:
            patch.delattr(os, "umask")
            with replacing(tmp_path / "new.txt") as temporary:
                temporary.write_text("new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.txt").stat().st_mode) == 0o666 & ~mask


def test_the_file_is_synced_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    calls, path, fsync, replace = [], tmp_path / "a.txt", os.fsync, os.replace

    def recorded_fsync(handle):
        about = os.fstat(handle)
        calls.append("folder" if stat.S_ISDIR(about.st_mode) else f"{about.st_size} bytes")
        fsync(handle)

    def recorded_replace(source, target):
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert calls == ["3 bytes", "rename", "folder"]
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_if_the_block_fails_the_old_file_stays(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_files_of_a_cache_that_were_used_least_recently_go_first(tmp_path):
    for name, times in {"read": (90, 10), "old": (30, 30), "older": (20, 20), "new": (80, 80), ".lock": (1, 1)}.items():
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, times)  # seconds of the last access and of the last change
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "oldest").write_bytes(bytes(1000))
    names = lambda: {path.name for path in tmp_path.rglob("*")} - {"folder", "oldest", ".lock"}
    evict(tmp_path, 400)
    assert names() == {"read", "old", "older", "new"}
    evict(tmp_path, 250)
    assert names() == {"read", "new"} and (tmp_path / "folder" / "oldest").exists() and (tmp_path / ".lock").exists()
    evict(tmp_path / "missing", 0)
