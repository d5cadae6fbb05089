"""Live play with a tiny model, in real time and in its own thread."""

import threading
import time

import numpy as np
import pytest

from sage_jax.api import Model
from sage_jax.errors import UserError
from sage_jax.live.host import LiveHost
from sage_jax.live.settings import LiveSettings
from tests.decoding.small import FLAT, TOKENIZER, engine_of
from tests.live.small import Stage, model_of
from tests.live.test_queue import check

MELODY = [(number / 2, 60 + number % 5, 0.4) for number in range(8)]


@pytest.fixture(scope="module")
def model():
    """A Model with the tiny engine of the tests of decoding."""
    made, stub = Model.__new__(Model), model_of()
    made.tokenizer, made.sampling, made.live_engine = stub.tokenizer, stub.sampling, stub.live_engine
    return made


def test_example(model):
    """What docs/live.md shows."""
    with model.live(qpm=240, mode="answer", pause=0.5) as session:
        for pitch in (60, 64, 67):  # the player
            session.note_on(pitch, 80)
            time.sleep(0.1)
            session.note_off(pitch)
        played, end = [], time.monotonic() + 20
        while len(played) < 2 and time.monotonic() < end:  # the model
            session.wait(0.05)
            for message in session.poll(until=session.host.now() + 0.02):
                time.sleep(max(message.due - session.host.now(), 0))
                played.append((message.is_on, message.program, message.pitch))
        session.panic()
    assert len(played) >= 2, session.statistics()
    session.host._thread.join(20)
    assert not session.host._thread.is_alive()


def test_sessions_of_every_mode_play_at_once(model):
    """In one batch, in threads of their own; each is closed while the others go on."""
    with LiveHost(model, 3) as host:
        sessions = [
            host.open(LiveSettings(mode=mode, qpm=240, lead=1.0, trade_bars=1, pause=0.5, answer_bars=8, seed=number))
            for number, mode in enumerate(("answer", "trade", "accompany"))
        ]
        with pytest.raises(UserError, match="all 3 live sessions"):
            host.open()
        everything = [[] for _ in sessions]

        def play(session, messages, seconds):
            end = session.host.now() + seconds
            for number in range(4):
                session.note_on(60 + number, 80)
                messages += session.poll(session.host.now() + 0.02)
                time.sleep(0.05)
                session.note_off(60 + number)
            while session.host.now() < end:
                session.wait(0.02)
                messages += session.poll(session.host.now() + 0.02)
            session.close()
            messages += session.poll(0)

        threads = [
            threading.Thread(target=play, args=(session, messages, 2 + number))
            for number, (session, messages) in enumerate(zip(sessions, everything, strict=True))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for session, messages in zip(sessions, everything, strict=True):
            assert session.error is None
            check(messages)
            assert session.statistics().player_notes == 4 and len(session.piece().notes) == 4 + len(messages) // 2
        assert sum(map(len, everything)) >= 2
        with host.open() as again:
            assert again.poll(1e9) == []
    with pytest.raises(UserError, match="closed"):
        host.open()


def test_errors_reach_the_session_and_no_other(model, monkeypatch):
    with LiveHost(model, 3) as host:
        broken, other = host.open(), host.open()
        monkeypatch.setattr(broken.seat, "update", lambda now: 1 / 0)
        broken.note_on(60, 80)
        assert broken.wait(20) and isinstance(broken.error, ZeroDivisionError)
        with pytest.raises(UserError, match="has ended: division"):
            broken.poll(1e9)
        other.note_on(60, 80)
        time.sleep(0.1)
        assert other.error is None and other.poll(0) == []
        monkeypatch.setattr(host, "round", lambda: [][0])
        host.wake()
        assert other.wait(20) and other.error is not None
        with pytest.raises(UserError, match="failed"):
            host.open()


def test_a_long_session_with_a_small_context():
    """Windows move, with small rollbacks everywhere; the model reads what sounded."""
    stage = Stage(lookahead=0.02)
    session = stage.open(mode="accompany", lead=0.5, qpm=240, instruments=tuple(range(40)))
    rng = np.random.default_rng(5)
    stage.play(session, [(number / 2, 60 + rng.integers(12), rng.uniform(0.1, 1.5)) for number in range(220)], 0.25)
    statistics = session.statistics()
    whole = session.seat.decoding.events
    assert len(whole) > 1.5 * session.host.engine.limit and statistics.rollbacks > 50
    assert statistics.beyond_context < 0.05 * statistics.rollbacks
    dirty = session.seat.context.dirty or 10**9
    read = session.seat.decoding.piece.notes
    expected = [entry.note[:3] for entry in session.seat.context.entries(0) if entry.note.tick < dirty]
    if not statistics.beyond_context:
        assert read[read["onset"] < dirty][["onset", "program", "pitch"]].tolist() == expected
    stage.close()


MISTAKES = [
    (dict(mode="solo"), "live.mode is 'solo'; choose answer, trade or accompany"),
    (dict(qpm=10.0), "nearest that it has is 20"),
    (dict(qpm=500.0), "nearest that it has is 320"),
    (dict(qpm="fast"), "live.qpm"),
    (dict(meter=(17, 4)), "live.meter is 17/4"),
    (dict(meter=(7, 32)), "nearest that it has are"),
    (dict(meter=4), "live.meter"),
    (dict(pause=0), "live.pause"),
    (dict(lead=100), "live.lead"),
    (dict(instruments=(129,)), "live.instruments has 129"),
    (dict(instruments=()), "live.instruments"),
    (dict(temperature=-1.0), "live.temperature"),
    (dict(answer_bars=0), "live.answer_bars"),
    (dict(seed=1.5), "live.seed"),
]


@pytest.mark.parametrize(("fields", "message"), MISTAKES, ids=lambda value: str(value)[:30])
def test_mistakes_name_the_field(fields, message):
    stage = Stage()
    with pytest.raises(UserError, match=message):
        stage.host.open(LiveSettings(**fields))
    session = stage.open()
    with pytest.raises(UserError, match=message):
        session.change(**fields)
    with pytest.raises(UserError, match="not a setting"):
        session.change(tempo=90)
    for call in (lambda: session.note_on(128, 80), lambda: session.note_on(60, 300), lambda: session.note_off(1.5)):
        with pytest.raises(UserError, match="whole number"):
            call()
    for at in (float("nan"), float("inf"), 0.0):
        with pytest.raises(UserError, match="seconds of host.now"):
            session.note_on(60, 80, at=at)
    assert not session.inbox and TOKENIZER.grid is session.host.grid and engine_of(1, **FLAT).rows == 1


def test_changes_of_tempo_and_meter_reach_the_model():
    stage = Stage()
    session = stage.open(mode="accompany", lead=0.5)
    stage.play(session, MELODY[:4])
    session.change(qpm=91.5)
    stage.run(2.6)
    session.change(meter=(3, 4))
    stage.run(5)
    session.note_on(60, 80)
    stage.run(5.2)
    session.change(qpm=91.4)  # the same for the model
    stage.run(9)
    read, played = session.seat.decoding.piece, session.piece()
    assert np.round(played.tempos["qpm"], 1).tolist() == [120, 91.5, 91.4] and len(read.tempos) == 2
    assert read.tempos["tick"].tolist() == played.tempos["tick"].tolist()[:2] and abs(read.tempos["qpm"][1] / 91.5 - 1) < 0.03
    assert read.meters.tolist() == played.meters.tolist() == [(0, 4, 4), (96, 3, 4)]
    assert session.position(stage.time.now).meter == (3, 4)
    stage.close()


@pytest.mark.parametrize("is_playing", [True, False])
def test_the_model_plays_on_up_to_a_new_meter(monkeypatch, is_playing):
    """A player changes the meter at the first beat of a bar of two seconds; the model has drawn a quarter and a half ahead."""
    stage = Stage(monkeypatch, latency=lambda: 0.004)
    session = stage.open(mode="accompany", lead=1.0, instruments=(33,))
    stage.play(session, [(quarter, 60, 0.5) for quarter in range(8)])
    stage.run(4.1)
    session.change(meter=(3, 4))
    stage.play(session, [(quarter, 60, 0.5) for quarter in (range(9, 20) if is_playing else ())])
    stage.run(10)
    played = session.piece()
    assert played.meters.tolist() == [(0, 4, 4), (144, 3, 4)]
    own = played.notes["onset"][played.notes["program"] == 33]
    for beat in range(9, 19):  # of which the change lies in the first one, and the bar line before the fourth
        assert ((own >= 12 * beat) & (own < 12 * beat + 12)).any(), beat
    assert session.statistics().late == 0
    stage.close()


def test_a_mode_change_loses_no_tempo_beyond_what_the_model_remembers(monkeypatch):
    """The model has 40 notes, and the tempo changed before them. It has never played."""
    stage = Stage(monkeypatch, latency=lambda: 0.004, memory=40)
    session = stage.open(mode="answer", pause=8.0, instruments=(33,))
    stage.play(session, [(0, 60, 0.5), (1, 60, 0.5)])
    session.change(qpm=100.0)
    stage.play(session, [(beat / 2, 60, 0.4) for beat in range(4, 120)])
    session.change(mode="accompany", qpm=90.0)
    stage.play(session, [(beat / 2, 60, 0.4) for beat in range(121, 132)])
    assert session.statistics().beyond_context == 0
    assert [qpm for _, qpm in session.seat.decoding.tempos] == [100.0, 90.0]
    stage.close()


def test_a_turn_that_is_too_short_for_the_model_keeps_nobody_awake(monkeypatch):
    """A bar of half a second, in which the model could draw one note."""
    stage = Stage(monkeypatch, latency=lambda: 0.33)
    session = stage.open(mode="trade", trade_bars=1, qpm=240, meter=(2, 4))
    stage.play(session, [(0, 60, 0.5)], 0.25)
    rounds, whole = [], stage.host.round
    monkeypatch.setattr(stage.host, "round", lambda: (rounds.append(stage.time.now), whole())[1])
    stage.run(20)
    assert len(rounds) < 400
    stage.close()
