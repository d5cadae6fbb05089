"""Shortcuts of reading and writing against plain versions: note-offs, programs, voices and the order of notes."""

import collections
import itertools

import numpy as np
import pytest

from sage_jax.corpus.near_duplicates import minhash
from sage_jax.music.note_programs import NotePrograms
from sage_jax.music.notes import Piece, canonical, note_array
from sage_jax.music.reading import _match_note_offs, read_bytes
from sage_jax.music.writing import _stable_order, voices
from tests.music.smf import QUARTER, note, off, on, program, scale, smf, sysex, track


@pytest.mark.parametrize("overlapping", [False, True])
def test_note_offs_are_matched_first_in_first_out(overlapping):
    rng = np.random.default_rng(0)
    for _ in range(200):
        rows = np.flatnonzero(rng.random(60) < 0.7)
        key, is_off = rng.integers(0, 5, len(rows)), rng.random(60) < 0.5
        if not overlapping:  # each key begins and ends in turn
            for number in range(5):
                mine = rows[key == number]
                is_off[mine] = np.arange(len(mine)) % 2 == 1
                key[rows == (mine[-1] if len(mine) % 2 else -1)] = 5
            rows, key = rows[key < 5], key[key < 5]
        sounding, ends = collections.defaultdict(list), {}
        for number, row in zip(key.tolist(), rows.tolist(), strict=True):
            if not is_off[row]:
                sounding[number].append(row)
                ends[row] = (-1, number)
            elif sounding[number]:
                ends[sounding[number].pop(0)] = (row, number)
        found = (each.tolist() for each in _match_note_offs(key, rows, is_off))
        on_rows, off_rows, keys = found
        assert dict(zip(on_rows, zip(off_rows, keys, strict=True), strict=True)) == ends
        assert keys == sorted(keys)


LATE_PROGRAMS = {
    "before the notes": [],
    "on the notes' line": [program(QUARTER, 9)],
    "at the first note's tick, after it": [on(0, 40), program(0, 9), off(QUARTER, 40)],
    "on another track": [program(QUARTER, 9, 1)],
    "a drum part": [sysex(QUARTER, "4110421240111502 0f f7")],
}


@pytest.mark.parametrize("kind", LATE_PROGRAMS)
def test_a_program_for_each_line_is_chosen_only_if_it_holds_for_every_note(kind, monkeypatch):
    data = smf(track(program(0, 5), scale(), LATE_PROGRAMS[kind]), track(note(QUARTER, QUARTER, 62, 80, 1)))
    expected = read_bytes(data)
    sizes = []
    each_note = NotePrograms._of
    monkeypatch.setattr(NotePrograms, "_of", lambda self, rows: sizes.append(len(rows)) or each_note(self, rows))
    assert read_bytes(data).program.tolist() == expected.program.tolist()
    assert sizes == [2 if kind == "before the notes" else len(expected.start)]
    monkeypatch.setattr(NotePrograms, "of_notes", lambda self, rows, line: each_note(self, rows))
    assert read_bytes(data).program.tolist() == expected.program.tolist()


def test_voices_are_the_lowest_free_ones():
    rng = np.random.default_rng(1)
    for _ in range(200):
        start, length, key = rng.integers(0, 60, 40), rng.integers(1, 12, 40), rng.integers(0, 3, 40)
        end = start + length
        voice = voices(start, end, key)
        order = np.lexsort((end, start, key)).tolist()
        expected = dict.fromkeys(order, -1)
        for number, index in enumerate(order):
            taken = {expected[each] for each in order[:number] if key[each] == key[index] and end[each] > start[index]}
            expected[index] = next(free for free in itertools.count() if free not in taken)
        rows = collections.Counter(zip(key.tolist(), start.tolist(), end.tolist(), voice.tolist(), strict=True))
        assert rows == collections.Counter((key[i], start[i], end[i], expected[i]) for i in order)


def test_events_keep_their_order_at_one_tick_for_keys_of_every_size():
    rng = np.random.default_rng(2)
    for largest in (10, 2**40, 2**62):
        keys = rng.integers(0, 5, 1000) * (largest // 4)
        assert _stable_order(keys).tolist() == np.argsort(keys, kind="stable").tolist()


def test_canonical_order_is_by_all_fields():
    rng = np.random.default_rng(3)
    for size, largest in itertools.product((0, 1, 2, 50), (2, 100)):
        notes = note_array(rng.integers(1, largest, (size, 6)).tolist())
        before = notes.copy()
        expected = np.sort(notes, order=["onset", "program", "track", "pitch", "duration", "velocity"]).tolist()
        assert canonical(notes).tolist() == expected
        assert (notes == before).all()
        assert canonical(canonical(notes)).tolist() == expected


def test_signatures_do_not_change_between_versions():
    """Shards store them, and a later run compares them with new ones."""
    pitches = 60 + np.random.default_rng(4).integers(0, 24, 60)
    piece = Piece.from_notes([(tick, 0, pitch, 1, 64) for tick, pitch in enumerate(pitches.tolist())])
    assert minhash(piece)[:24] == "goCO02Oeg3WdH4jfUUGQn1kB"
