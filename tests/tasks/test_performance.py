"""Assignments with an engine: own notes only where they belong, read and drawn in the order of the training sequences."""

import dataclasses

import numpy as np
import pytest

from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.music.notes import Piece
from sage_jax.tasks.assignment import Assignment
from sage_jax.tasks.crop_items import CropItems
from sage_jax.tasks.performance import Performance, perform
from sage_jax.tasks.weave import Part, weave
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.leads import AT_ONCE, BAR_AHEAD, LATE, LEADS, SPAN
from tests.tasks.small import BASS, DRUM_SET, PIANO, PIANO_2, ROLES, engine_of, song

WILD = SamplingConfig(temperature=2.0)


def assignment(lead, own=(BASS,), bars=(4, 9), **fields):
    return Assignment(song(**fields), ROLES, own, bars[0] * 48, bars[1] * 48, lead)


@pytest.fixture
def performances(monkeypatch):
    """The Performance objects that `perform` makes, in the order of their numbers."""
    made = []
    created = Performance.__init__
    monkeypatch.setattr(Performance, "__init__", lambda self, *args: (made.append(self), created(self, *args))[1])
    return made


@pytest.mark.parametrize("lead", LEADS, ids=lambda lead: lead.name)
def test_own_notes_are_where_they_belong_and_the_events_are_those_of_training(lead, performances):
    """What a row has read and drawn is the sequence that `weave` makes of the result."""
    jobs = [assignment(lead, own, seed=seed) for seed, own in enumerate([(BASS,), (PIANO_2,), (BASS, DRUM_SET)])]
    if lead is SPAN:
        jobs.append(assignment(lead, (PIANO, PIANO_2, BASS, DRUM_SET), seed=7))
    found = perform(engine_of(2), jobs, sampling=WILD)
    assert sum(len(each.notes) for each in found) > 4
    for job, each, performance in zip(jobs, found, performances, strict=True):
        notes = performance.written
        assert set(ROLES.note_ids(notes)[:, 0]) <= set(job.instruments) and not each.is_cut
        assert ((notes["onset"] >= job.start) & (notes["onset"] < job.stop)).all()
        assert (each.notes["onset"] + each.notes["duration"] <= job.stop).all()
        window = performance._window
        assert window.offset == 0  # all of it fits
        whole = job.context(notes)
        items = CropItems.of(ROLES.encode(whole), ROLES)
        own = np.isin(items.rows[:, ev.INSTRUMENT], job.instruments)
        known = job.context(notes[:0])
        until = known.bar_start(known.num_bars) if lead is SPAN else job.stop
        woven = weave(items, Part(own, lead, job.start, job.stop, until), ROLES, job.instruments)
        assert np.array_equal(performance.events, woven.events[:-1])


def test_what_a_row_becomes_does_not_depend_on_the_others():
    jobs = [assignment(lead, seed=seed) for seed, lead in enumerate([AT_ONCE, SPAN, BAR_AHEAD, LATE[0]])]
    together = perform(engine_of(2), jobs, sampling=WILD, seed=3)
    for number in (0, 2):
        alone = perform(engine_of(1), jobs[: number + 1], sampling=WILD, seed=3)[number]
        assert np.array_equal(alone.notes, together[number].notes)


@pytest.mark.parametrize("architecture", ["nested", "flat"])
def test_reading_ahead_of_a_draw_changes_nothing(architecture, monkeypatch):
    """The same notes are written whether a row is offered what comes later or comes to each of it by a draw."""
    jobs = [assignment(lead, seed=seed, bars=(2, 9)) for seed, lead in enumerate([AT_ONCE, BAR_AHEAD, LATE[0], LATE[3]])]
    offers = []
    accept = Performance.accept

    def counted(self, count):
        offers.append((len(self.keys), count))
        accept(self, count)

    monkeypatch.setattr(Performance, "accept", counted)
    ahead = perform(engine_of(2, architecture), jobs, sampling=WILD, seed=1)
    assert len(offers) > 8 and {count < most for most, count in offers} == {True, False}
    go_on = Performance.go_on
    monkeypatch.setattr(Performance, "go_on", lambda self, most: go_on(self))
    one_by_one = perform(engine_of(2, architecture), jobs, sampling=WILD, seed=1)
    for left, right in zip(ahead, one_by_one, strict=True):
        assert np.array_equal(left.notes, right.notes) and left.events == right.events


@pytest.mark.parametrize("lead", [AT_ONCE, BAR_AHEAD, SPAN], ids=lambda lead: lead.name)
def test_changes_of_tempo_and_meter_come_at_their_time(lead, performances):
    job = Assignment(song(changes=True), ROLES, (BASS,), 3 * 48, 10 * 48 - 12, lead)
    (found,) = perform(engine_of(1), [job], sampling=WILD)
    decoded = ROLES.decode(performances[0].events)
    offset = performances[0]._window.offset
    inside = lambda changes: changes[(changes["tick"] > job.start) & (changes["tick"] < job.stop)]
    for name in ("tempos", "meters"):
        moved = getattr(decoded, name).copy()
        moved["tick"] += offset
        assert np.array_equal(inside(moved), inside(getattr(job.piece, name)))
    assert ((found.notes["onset"] >= job.start) & (found.notes["onset"] < job.stop)).all()


@pytest.mark.parametrize("lead", [AT_ONCE, BAR_AHEAD, LATE[1]], ids=lambda lead: lead.name)
def test_a_long_piece_goes_on_in_new_windows(lead, performances):
    job = assignment(lead, bars=(2, 56), own=(DRUM_SET,), seed=5)
    job = dataclasses.replace(job, piece=song(60, seed=5))
    engine = engine_of(1)
    (found,) = perform(engine, [job], sampling=WILD)
    assert performances[0]._windows > 1
    onsets = found.notes["onset"]
    assert (np.diff(onsets) >= 0).all() and onsets[-1] > job.stop - 8 * 48 and onsets[0] < job.start + 8 * 48
    assert len({tuple(note) for note in found.notes[["onset", "program", "pitch"]].tolist()}) == len(found.notes)


@pytest.mark.parametrize("lead", [SPAN, BAR_AHEAD], ids=lambda lead: lead.name)
def test_dense_music_leaves_space_for_what_is_drawn(lead, performances):
    """A prompt never fills the context, and what cannot be read at once is an error rather than a loop."""
    piece = song(16, seed=2)
    notes = np.concatenate([piece.notes] * 6)
    notes["pitch"] = np.arange(len(notes)) % 60 + 30
    dense = ROLES.quantize(piece.with_notes(notes))
    job = Assignment(dense, ROLES, (BASS,), 8 * 48, 11 * 48, lead)
    (found,) = perform(engine_of(1), [job], sampling=WILD)
    assert found.notes["onset"].min() >= job.start and len(performances[0]._window.prompt) <= 0.7 * 511
    with pytest.raises(UserError, match="given events, and the model reads at most 357 at once; give fewer bars"):
        perform(engine_of(1), [Assignment(dense, ROLES, (BASS,), 0, 16 * 48, SPAN)])
    crowd = np.repeat(piece.notes[:1], 520)
    crowd["onset"], crowd["pitch"], crowd["program"] = 9 * 48, np.arange(520) % 128, 1 + np.arange(520) // 128
    crowded = ROLES.quantize(piece.with_notes(np.concatenate([piece.notes, crowd])))
    with pytest.raises(UserError, match="more notes are given at one time than the model's context holds"):
        perform(engine_of(1), [Assignment(crowded, ROLES, (BASS,), 7 * 48, 12 * 48, AT_ONCE)], sampling=WILD)


def test_what_follows_a_span_makes_way_for_it():
    """Notes of the own track after the span are given ones. The span is read, whatever follows it."""
    notes = [(tick, 0, pitch, 6, 65) for tick in range(0, 48 * 12, 3) for pitch in (60, 64, 67)]
    job = Assignment(ROLES.quantize(Piece.from_notes(notes)), ROLES, (PIANO,), 96, 192, SPAN)
    prompt = job.window(job.piece.notes[:0], 96, 511).prompt
    assert 192 < len(prompt) <= 357


def test_the_most_events_are_a_bound():
    (found,) = perform(engine_of(1), [assignment(AT_ONCE, bars=(0, 12), own=(BASS, DRUM_SET))], max_events=3)
    assert found.is_cut and found.events == 3


@pytest.mark.parametrize(
    ("own", "bars", "lead", "message"),
    [
        ((), (0, 4), BAR_AHEAD, "own is empty"),
        ((PIANO, PIANO_2, BASS, DRUM_SET), (0, 13), BAR_AHEAD, "nothing is given"),
        ((BASS,), (5, 5), SPAN, "start is tick 240 and stop 240"),
    ],
)
def test_an_assignment_that_cannot_be(own, bars, lead, message):
    with pytest.raises(UserError, match=message):
        assignment(lead, own, bars)
