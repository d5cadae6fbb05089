"""A player and a model with roles at once: the model reads and draws the sequences of training."""

import numpy as np
import pytest

from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.scheduler import Scheduler
from sage_jax.errors import UserError
from sage_jax.live.queue import PlannedNote
from sage_jax.music.notes import DRUMS
from sage_jax.tasks.crop_items import CropItems
from sage_jax.tasks.role_session import RoleSession, late_lead
from sage_jax.tasks.weave import Part, weave
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.leads import BAR_AHEAD, LATE
from tests.decoding.small import FLAT
from tests.decoding.small import engine_of as engine_without_roles
from tests.tasks.small import ROLES, engine_of

WILD = SamplingConfig(temperature=2.0)
PLAYS = (33, DRUMS)  # the model


class Duet:
    """A session, and what both have played."""

    def __init__(self, engine, lead, seed=0, **fields):
        self.now, self.lead = 0, round(lead.quarters_late * 12)
        self.engine, scheduler = engine, Scheduler(engine, interleaved=True, window_length=int(0.4 * engine.limit))
        self.session = RoleSession(scheduler, lead, lambda: self.now, sampling=WILD, seed=seed, **fields)
        self.notes: dict[tuple[int, int, int], tuple[PlannedNote, bool]] = {}
        self.changes: dict[str, list] = dict(tempos=[], meters=[])

    def sync(self, start: int) -> None:
        chosen = [self.notes[key] for key in sorted(self.notes) if key[0] >= start]
        changes = {name: [each for each in values if each[0] >= start] for name, values in self.changes.items()}
        self.session.replace(start, [note for note, _ in chosen], own=[is_own for _, is_own in chosen], **changes)

    def draw(self, stop: int, start: int | None = None, programs=PLAYS) -> None:
        start = self.now + self.lead if start is None else start
        for decoded in self.session.draw(until_tick=stop, not_before=start, programs=programs):
            assert start <= decoded.tick < stop
            if decoded.note is not None:
                note = PlannedNote(*decoded.note[:5])
                assert note[:3] not in self.notes and note.program in programs
                self.notes[note[:3]] = note, True

    def play(self, *notes: PlannedNote) -> None:
        """The player's notes, and then the model's from the lead on."""
        for note in notes:
            self.notes[note[:3]] = note, False
        dropped = [key for key, (_, is_own) in self.notes.items() if is_own and key[0] >= self.now + self.lead]
        for key in dropped:
            del self.notes[key]
        self.sync(min([note.tick for note in notes] + [key[0] for key in dropped], default=self.now))

    @property
    def expected(self) -> np.ndarray:
        """What training makes of the notes of both, from the first bar of the window on, up to what is known now."""
        window = self.session.window
        piece = self.session.piece
        mine = {(note.tick - window.offset, note.program, note.pitch) for note, is_own in self.notes.values() if is_own}
        cut = piece.slice_bars(window.bar, piece.num_bars + 2)
        items = CropItems.of(ROLES.encode(ROLES.quantize(cut)), ROLES)
        own = np.isin(items.rows[:, ev.INSTRUMENT], [ROLES.instrument_of(program, 0) for program in PLAYS])
        assert len(mine) >= own.sum()
        last = items.bars.start(np.array([items.num_bars]))[0]
        lead = late_lead(self.lead / 12)
        instruments = np.array(sorted(ROLES.instrument_of(program, 0) for program in PLAYS))
        woven = weave(items, Part(own, lead, 0, int(last), int(last)), ROLES, instruments)
        events, keys = woven.events[:-1], woven.keys[:-1] + window.offset
        is_rest = ROLES.is_given(events) & (events[:, ev.INSTRUMENT] == ROLES.to_given + ev.REST)
        ends = [piece.bar_start(piece.bar_of(int(start)) + 1) for start in np.maximum(keys - self.lead, 0)]
        is_over = np.array(ends) <= self.now  # the bar whose rest it is
        return events[(keys < self.now + self.lead) & (~is_rest | is_over)]


@pytest.mark.parametrize("lead", [LATE[0], LATE[2], LATE[-1]], ids=lambda lead: lead.name)
def test_what_is_read_and_drawn_is_what_training_has(lead):
    """While the player plays, holds notes longer than was thought, pauses for bars, and changes the tempo and the meter."""
    rng = np.random.default_rng(3)
    duet = Duet(engine_of(1), lead)
    compared = moves = bar = 0
    for turn in range(160):
        duet.now += int(rng.integers(1, 10)) if turn % 20 < 14 else int(rng.integers(20, 70))
        if turn == 22:
            duet.changes["tempos"].append((duet.now, 90.0))
        if turn in (80, 120):
            piece = duet.session.piece
            line = piece.bar_start(piece.bar_of(duet.now) + 1)
            duet.changes["meters"].append((line, (3, 4) if turn == 80 else (4, 4)))
            duet.sync(line)
        notes = []
        if turn % 20 < 14:
            for pitch in rng.choice(np.arange(60, 80), rng.integers(2, 6), replace=False).tolist():
                notes.append(PlannedNote(duet.now - 1, 0, pitch, 6, 65))
        held = [key for key, (note, is_own) in duet.notes.items() if not is_own and key[0] > duet.now - 24]
        if held and turn % 5 == 0:
            notes.append(duet.notes[held[0]][0]._replace(duration=24))
        given = [note for note, is_own in duet.notes.values() if not is_own]
        if turn % 40 == 39:  # a length of long ago, so that much is read again
            notes.append(given[-100 if len(given) > 100 else 0]._replace(duration=36))
        duet.play(*notes)
        duet.draw(duet.now + duet.lead + 48)
        events = duet.session.window.events
        known, piece = duet.expected, duet.session.piece
        compared += len(known)
        np.testing.assert_array_equal(events[: len(known)], known, err_msg=str(turn))
        np.testing.assert_array_equal(duet.engine.events(0, len(events)), events)  # so has the row
        assert len(piece.notes) == len(duet.notes)
        moves += duet.session.window.bar > bar
        bar = duet.session.window.bar
    assert compared > 2000 and moves >= 1
    assert [round(qpm) for qpm in piece.tempos["qpm"]] == [120, 90] and len(piece.meters) == 3
    duet.session.close()


@pytest.mark.parametrize(
    ("lead", "quarters"), [(LATE[0], 0.1), (LATE[0], 0.25), (LATE[2], 1.4), (LATE[-1], 4.0), (LATE[-1], 9.0)]
)
def test_the_lead_is_one_that_was_trained(lead, quarters):
    assert late_lead(quarters) == lead


def test_what_a_player_does_is_read_at_the_end():
    """A note leaves the model's notes up to the lead as they are, and they are not read again."""
    duet = Duet(engine_of(1), LATE[2])
    duet.now = 12
    duet.play(PlannedNote(2, 0, 60, 6, 65))
    for duet.now in range(12, 170, 12):
        duet.draw(duet.now + 96, start=max(duet.now + 12, duet.session.tick))
    before = duet.session.window
    duet.play(PlannedNote(169, 0, 64, 6, 65))
    own, _ = ROLES.split(before.events[: duet.session.window.common(before)])
    ticks = [key[0] for key, (_, is_own) in duet.notes.items() if is_own]  # those that are left
    assert len(ROLES.decode(own).notes) == len(ticks) > 1 and max(ticks) < 182


def test_a_model_and_a_player_share_an_instrument():
    """In two tracks; the piece has both."""
    duet = Duet(engine_of(1), LATE[1])
    for _ in range(8):
        duet.now += 12
        duet.play(PlannedNote(duet.now - 2, 33, 40, 6, 65))
        duet.draw(duet.now + 48, programs=(33,))
    tracks = duet.session.piece.notes["track"]
    assert set(tracks) == {0, 1} and (tracks == 0).sum() == 8


def test_every_instrument_of_the_model_is_declared():
    """Also those that it played before, in a window that is read anew because the header has changed."""
    duet = Duet(engine_of(1), LATE[2])
    while len(duet.session.window.events) < 300:
        duet.now += 6
        duet.play(*(PlannedNote(duet.now - 1, 0, pitch, 6, 65) for pitch in (60, 64, 67, 72)))
        duet.draw(duet.now + duet.lead + 48)
    duet.now += 6
    duet.play(PlannedNote(duet.now - 1, 0, 60, 6, 65))
    duet.draw(duet.now + duet.lead + 48, programs=(40,))
    window = duet.session.window
    np.testing.assert_array_equal(duet.engine.events(0, len(window.events)), window.events)
    header = window.events[3 : window.heads]
    assert header[1:, ev.INSTRUMENT].tolist() == [ROLES.instrument_of(program, 0) for program in (33, 40, DRUMS)]


def test_a_window_that_is_full_skips_no_tick(monkeypatch):
    """Where the model is about to learn of more, too: it goes on from where it has come to."""
    read, starts = RoleSession._read, []

    def noted(session, limits):
        if len(session.window.events) >= session._full:
            starts.append((limits.first_tick, session.tick))
        read(session, limits)

    monkeypatch.setattr(RoleSession, "_read", noted)
    duet = Duet(engine_of(1), LATE[0])
    duet.play(*(PlannedNote(tick, 0, 60, 6, 65) for tick in range(0, 9600, 24)))
    duet.draw(9600, start=0)
    assert starts and all(first <= tick for first, tick in starts)


def test_a_change_to_what_is_in_force_adds_nothing():
    duet = Duet(engine_of(1), LATE[2])
    for meter in ((3, 4), (4, 4)):
        duet.changes["meters"] = [(96, meter)]
        duet.sync(0)
    assert duet.session.piece.meters.tolist() == [(0, 4, 4)]


def test_a_meter_that_is_read_late_counts_its_bars_anew():
    """Both have been silent for 17 bars of 2/4, and then it turns out that a bar of 12/8 began after the twelfth."""
    duet = Duet(engine_of(1), LATE[2], meter=(2, 4))
    duet.now = 430
    duet.draw(436, start=435)
    duet.notes.clear()
    duet.changes["meters"] = [(288, (12, 8))]
    duet.sync(288)
    duet.draw(700, start=440)
    known = duet.expected
    np.testing.assert_array_equal(duet.session.window.events[: len(known)], known)


def test_a_bar_of_more_notes_than_a_window_is_cut_short():
    duet = Duet(engine_of(1), LATE[1])
    for _ in range(3):
        duet.now += 16
        duet.play(*(PlannedNote(duet.now - 1 - at, 0, pitch, 6, 65) for at in range(3) for pitch in range(30, 100)))
        duet.draw(duet.now + 48)
        assert len(duet.session.window.events) < 511
    assert len(duet.session.piece.notes) == len(duet.notes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda engine: RoleSession(Scheduler(engine), BAR_AHEAD, int), "lead is 1bar; what a player does is known late"),
        (lambda engine: Duet(engine, LATE[0], meter=(17, 4)), "meter is .17, 4., which the vocabulary lacks"),
        (lambda engine: Duet(engine, LATE[0]).session.replace(-1, []), "start is -1; give a tick of at least 0"),
        (lambda engine: RoleSession(Scheduler(engine_without_roles(1, **FLAT)), LATE[0], int), "the model has no roles"),
    ],
)
def test_mistakes_are_one_line(call, message):
    with pytest.raises(UserError, match=message):
        call(engine_of(1))
