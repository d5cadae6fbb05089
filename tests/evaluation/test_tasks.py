"""The evaluation of tasks: scores of notes by hand, floors, and bits of the same own notes in every case."""

import json

import numpy as np
import pytest

from sage_jax.benchmark.tasks import task_speeds
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.evaluation.task_bits import ALONE, CASES, OTHER, task_bits
from sage_jax.evaluation.task_scores import SYSTEMS, copied, in_harmony, make_cases, note_f1, score_tasks
from sage_jax.evaluation.tasks import report
from sage_jax.music.notes import DRUMS, note_array
from sage_jax.tokenizers.leads import AT_ONCE, BAR_AHEAD, SPAN
from tests.models.small import parameters
from tests.tasks.small import ROLES, engine_of, role_config, song

PIECES = [song(20, seed) for seed in range(4)]


def notes(*rows):
    return note_array(list(rows))


def test_f1_counts_notes_of_equal_onset_program_and_pitch():
    truth = notes((0, 0, 60, 4, 64), (12, 0, 62, 4, 64), (24, 33, 40, 4, 64))
    written = notes((0, 0, 60, 9, 100), (12, 1, 62, 4, 64))
    assert note_f1(truth, written) == pytest.approx(2 * 1 / 5)
    assert note_f1(truth, truth) == 1 and np.isnan(note_f1(truth[:0], truth[:0])) and note_f1(truth, truth[:0]) == 0


def test_a_note_is_in_harmony_if_its_pitch_class_sounds_among_the_given():
    given = notes((0, 0, 60, 24, 64), (0, 0, 64, 12, 64), (0, DRUMS, 36, 12, 64))
    written = notes((6, 33, 36, 6, 64), (6, 33, 40, 6, 64), (12, 33, 40, 6, 64), (30, 33, 41, 6, 64), (6, DRUMS, 36, 6, 64))
    assert in_harmony(given, written) == pytest.approx(2 / 3)  # c and e, then e after the given e; the last is alone
    assert np.isnan(in_harmony(given, written[3:]))


@pytest.mark.parametrize("one_track", [True, False])
def test_floors_have_the_notes_that_they_say(one_track):
    cases = make_cases(PIECES, ROLES, SPAN, bars=4, one_track=one_track, most=3)
    assert len(cases) == 3 and cases[0].bars == 4
    for case in cases:
        job = case.assignment
        moved = copied(case)
        moved["onset"] -= job.stop - job.start
        mine = np.isin(ROLES.note_ids(job.piece.notes)[:, 0], job.instruments)
        before = (job.piece.notes["onset"] >= 2 * job.start - job.stop) & (job.piece.notes["onset"] < job.start)
        assert moved.tolist() == job.piece.notes[mine & before].tolist()
    scores = score_tasks(engine_of(2), cases, PIECES[3:], SamplingConfig())
    assert set(scores.values) == set(SYSTEMS)
    assert (scores.values["truth"]["note_f1"] == 1).all() and (scores.values["truth"]["nmsi"] == 100).all()
    assert scores.difference("note_f1", "truth", "model").mean > 0.5


def test_each_case_has_the_same_own_notes_and_its_bits_are_finite():
    found = task_bits(role_config(), parameters(role_config()), ROLES, PIECES, 256, 4)
    assert list(found) == list(CASES)
    for case, each in found.items():
        assert np.isfinite(each.bits).all() and (each.bits >= 0).all()
        if not case.startswith("span"):
            assert each.notes.tolist() == found[ALONE].notes.tolist() and each.pieces.tolist() == [0, 1, 2, 3]
    again = task_bits(role_config(), parameters(role_config()), ROLES, PIECES, 256, 3)
    assert all(np.allclose(again[case].bits, found[case].bits, rtol=1e-4) for case in CASES)  # whatever the batch
    saved = found[AT_ONCE.name].less_than(found[ALONE])
    expected = (found[ALONE].bits - found[AT_ONCE.name].bits).sum() / found[ALONE].notes.sum()
    assert saved.mean == pytest.approx(expected)
    assert not np.allclose(found[OTHER].bits, found[AT_ONCE.name].bits) and BAR_AHEAD.name in found


def test_the_report_has_a_row_for_each_case_and_system():
    row = dict(mean=1.0, low=0.5, high=1.5, count=3, clusters=3)
    metrics = dict.fromkeys(("note_f1", "nmsi", "in_harmony", "notes_per_bar"), row)
    bits = {"1bar": dict(bits_per_note=row, less_than_alone=row, notes=9), "span 1": dict(bits_per_note=row, notes=9)}
    bits["span 1"]["less_than_alone"] = None
    speed = dict(notes_per_second=1234.5, notes=70, over_continuation=dict(value=0.5, low=0.4, high=0.6, turns=20))
    slow = dict(notes_per_second=7.0, notes=70, over_continuation=None)
    speeds = dict(infill=speed, other=slow)
    found = dict(command="python", step=5, bits=bits, written={"infill": {"model": metrics}}, speed=speeds)
    text = report(json.loads(json.dumps(found)))
    assert "| 1bar | 1.00 (0.50 to 1.50) | +1.00 (+0.50 to +1.50) | 9 |" in text
    assert "| span 1 | 1.00 (0.50 to 1.50) | - | 9 |" in text
    assert "| infill | model | 1.000 (0.500 to 1.500) | 1.0 (0.5 to 1.5) | 1.000 (0.500 to 1.500) | 1.0 (0.5 to 1.5) |" in text
    assert "| infill | 1,234 | 0.50 (0.40 to 0.60) | 70 |" in text and "| other | 7 | - | 70 |" in text


def test_speeds_are_of_the_same_turns():
    """The continuation twice, and each task, with the notes that they write."""
    jobs = [case.assignment for case in make_cases(PIECES, ROLES, SPAN, bars=4, one_track=False, most=2)]
    said = []
    found = task_speeds(engine_of(2), {"infill": jobs}, jobs, SamplingConfig(), 2, said.append)
    assert list(found) == ["continue", "continue (A/A)", "infill"] and said == ["turn 1 of 2", "turn 2 of 2"]
    assert found["continue"].notes == found["continue (A/A)"].notes > 0 and found["infill"].notes > 0
    assert all(each.notes_per_second > 0 and each.over_continuation is None for each in found.values())
