"""Files that are replaced whole; claims between processes: one holder at a time, and none after its death."""

import os
import stat
import subprocess
import sys

import pytest

from sage_jax.files import claim, replacing

HOLD = """
import pathlib, sys
from sage_jax.files import claim
with claim(pathlib.Path(sys.argv[1]), wait=False) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_one_process_s_until_it_ends(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "True\n"
    with claim(tmp_path, wait=False) as mine:
        assert not mine
    holder.kill()
    with claim(tmp_path, wait=True) as mine:  # would wait for ever
        assert mine
    holder.communicate()


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_new_file_has_the_rights_that_the_umask_leaves_which_stays_as_it_is(tmp_path, monkeypatch, mask):
    """Other threads may make files at the same time."""
    before = os.umask(mask)
    try:
        with monkeypatch.context() as patch:
            patch.delattr(os, "umask")
            with replacing(tmp_path / "new.txt") as temporary:
                temporary.write_text("new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.txt").stat().st_mode) == 0o666 & ~mask


def test_a_file_is_on_the_disk_before_it_takes_its_name_and_the_name_after(tmp_path, monkeypatch):
    calls, path, fsync, replace = [], tmp_path / "a.txt", os.fsync, os.replace

    def noted_fsync(handle):
        about = os.fstat(handle)
        calls.append("folder" if stat.S_ISDIR(about.st_mode) else f"{about.st_size} bytes")
        fsync(handle)

    def noted_replace(source, target):
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert calls == ["3 bytes", "rename", "folder"]
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_where_the_block_fails_the_old_file_stays_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("new")
        1 / 0
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
