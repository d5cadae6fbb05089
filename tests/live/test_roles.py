"""Live play with a model that has roles: what the player does is given, and what the model plays is its own."""

import numpy as np

from sage_jax.decoding.session import Session
from sage_jax.music.notes import DRUMS
from sage_jax.tasks.role_session import RoleSession
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.leads import LATE, LEADS, Lead
from tests.live.small import BEGAN, Stage
from tests.tasks.small import ROLES, engine_of

BAND = (33, 40, DRUMS)


def staged(**options) -> Stage:
    """A stage with a tiny model that has roles."""
    return Stage(engine=engine_of(1), **options)


def phrase(first: float, notes: int, seed: int = 0, each: float = 0.5) -> list[tuple[float, int, float]]:
    """Notes of the player as (quarters, pitch, length in quarters), one in `each` quarters."""
    rng = np.random.default_rng(seed)
    return [(first + number * each, int(60 + rng.integers(12)), float(rng.uniform(0.1, 1.5))) for number in range(notes)]


def read(session) -> list[tuple]:
    """The notes that the decoding session has, as (tick, program, pitch)."""
    notes = session.seat.decoding.piece.notes
    return sorted(notes[["onset", "program", "pitch"]].tolist())


def lead_of(decoding: RoleSession) -> Lead:
    """The lead that the header of what the model reads has."""
    _, instrument, pitch, *_ = decoding.window.events[ROLES.HEAD].tolist()
    assert instrument == ROLES.lead_event
    return LEADS[pitch - ROLES.first_lead]


def in_context(session) -> list[tuple]:
    return [entry.note[:3] for entry in session.seat.context.entries(0)]


def test_the_model_is_given_what_the_player_plays():
    """Over many windows; what sounded is what the model wrote, and the two roles are apart."""
    stage = staged()
    session = stage.open(mode="accompany", lead=1.0, qpm=240, instruments=BAND)
    stage.play(session, phrase(0, 440, each=0.25), 0.25)
    decoding = session.seat.decoding
    assert isinstance(decoding, RoleSession) and decoding.window.bar > 0
    assert session.seat.context.dirty is not None or read(session) == in_context(session)
    own, given = ROLES.split(decoding.window.events)
    assert set(ROLES.decode(own).notes["program"]) <= set(BAND) and set(ROLES.decode(given).notes["program"]) == {0}
    assert lead_of(decoding) == LATE[2]
    played = session.piece().notes
    assert (played["program"] != 0).sum() > 20 and session.statistics().late == 0
    stage.close()


def test_modes_and_leads_change_while_both_play():
    """The model goes on with what it remembers, in one stream or in two."""
    stage = staged()
    session = stage.open(mode="answer", pause=0.5, qpm=240)
    leads = []
    turns = [("answer", 1.0), ("accompany", 1.0), ("accompany", 2.0), ("trade", 2.0), ("accompany", 0.5)]
    for turn, (mode, lead) in enumerate(turns):
        session.change(mode=mode, lead=lead, instruments=BAND if mode == "accompany" else None)
        stage.play(session, phrase(16 * turn, 20, turn), 0.25)
        stage.run(4.0 * (turn + 1))
        decoding = session.seat.decoding
        assert isinstance(decoding, RoleSession if mode == "accompany" else Session)
        if session.seat.context.dirty is None:
            assert read(session) == in_context(session)
        if isinstance(decoding, RoleSession):
            leads.append(lead_of(decoding).name)
    assert leads == ["-1", "-2", "-0.5"]
    assert session.statistics().late == 0 and len(session.piece().notes) > 100
    stage.close()


def test_a_new_tempo_and_meter_reach_the_model():
    stage = staged()
    session = stage.open(mode="accompany", lead=0.5, instruments=BAND)
    stage.play(session, phrase(0, 8))
    session.change(qpm=91.5)
    stage.run(5)
    session.change(meter=(3, 4))
    stage.run(5.05)
    session.change(qpm=60)  # before the bar line at which the meter changes
    stage.play(session, phrase(12, 8, 1))
    stage.run(12)
    written, played = session.seat.decoding.piece, session.piece()
    assert written.tempos["tick"].tolist() == played.tempos["tick"].tolist()
    assert written.meters.tolist() == played.meters.tolist() and len(written.meters) == 2
    assert stage.time.now >= BEGAN + 12 and session.statistics().player_notes == 16
    stage.close()


def test_an_accompaniment_that_begins_late_reads_the_meters_before_it():
    """The model has been silent since an old meter. It goes on at once, and no bar is over that is still to come."""
    stage = staged()
    session = stage.open(mode="answer", pause=8.0, lead=1.0, meter=(2, 4), instruments=(33, DRUMS))
    stage.play(session, phrase(0, 8))
    session.change(meter=(4, 4))
    stage.play(session, phrase(4.5, 55))
    session.change(mode="accompany")
    stage.play(session, phrase(32.5, 40))
    assert sum(session.meters.values("missed")) == 0
    assert session.seat.decoding.piece.meters.tolist() == session.piece().meters.tolist()
    assert session.seat.decoding.tick > session.seat.clock.tick(stage.time.now) - 48
    stage.close()


def test_what_the_model_has_read_of_a_player_never_changes():
    """A note has no length when the model learns of it, so that nothing is read again when its key goes up."""
    stage = staged()
    session = stage.open(mode="accompany", lead=1.0, instruments=BAND)
    keys = [(0.3, True, 60), (0.5, False, 60), (1.3, True, 64), (4.9, False, 64), (5.1, True, 67), (5.65, False, 67)]
    lengths, changes = {}, []
    touch = session.seat.context.touch
    session.seat.context.touch = lambda tick: (changes.append(tick), touch(tick))
    for at in np.arange(0.1, 8, 0.05).tolist():
        stage.run(at)
        while keys and keys[0][0] <= at:
            when, is_on, pitch = keys.pop(0)
            session.note_on(pitch, 80, at=BEGAN + when) if is_on else session.note_off(pitch, at=BEGAN + when)
        for event in session.seat.decoding.window.events:
            if ROLES.is_given(event) and event[ev.VELOCITY] >= ev.FIRST:
                lengths.setdefault(int(event[ev.PITCH]) - ev.FIRST_PITCH, set()).add(int(event[ev.DURATION]))
    assert lengths == {60: {ev.NONE}, 64: {ev.NONE}, 67: {ev.NONE}}
    assert changes.count(7) == changes.count(31) == changes.count(122) == 1  # as each of the keys goes down
    played = session.piece().notes
    assert played["duration"][played["pitch"] == 64].tolist() == [86]  # 3.6 seconds
    stage.close()
