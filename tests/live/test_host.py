"""Sessions on a clock that is turned by hand, over a model that makes notes up, with drawn latencies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_jax.live.queue import TOLERANCE
from sage_jax.live.seat import Seat
from tests.live.small import BEGAN, Stage

MELODY = [(number / 2, 60 + number % 5, 0.4) for number in range(8)]


def onsets(stage, session):
    return [message for message in stage.messages[session] if message.is_on]


@pytest.fixture
def stage(monkeypatch):
    """Of four sessions, each piece of work in 5 ms."""
    return Stage(monkeypatch, 4, lambda: 0.005)


def test_answer_comes_when_the_player_pauses_and_ends_when_the_player_plays(stage):
    session = stage.open(mode="answer", answer_bars=2)
    stage.play(session, MELODY)
    assert not onsets(stage, session)
    pause_end = BEGAN + 3.5 / 2 + 0.4 / 2 - 0.01 + 0.5
    stage.run(4.0)
    answer = onsets(stage, session)
    assert session.turn == "model" and session.plan(1e9) and session.position(BEGAN + 4).bar == 2
    assert len(answer) > 5 and pause_end <= answer[0].due < pause_end + 0.1
    assert {message.program for message in answer} == {0}
    session.note_on(70, 80)
    stage.run(stage.time.now - BEGAN + 0.01)
    before = len(onsets(stage, session))
    stage.run(4.4)
    session.note_off(70)
    stage.run(4.8)
    assert session.turn == "player" and session.plan(1e9) == []
    assert len(onsets(stage, session)) == before
    statistics = session.statistics()
    assert (statistics.player_notes, statistics.answers, statistics.late, statistics.skipped) == (9, 1, 0, 0)
    assert 0 <= statistics.takeover_p50 < 100 < statistics.after_player_p50
    assert len(session.piece().notes) == 9 + before
    assert set(session.piece().notes["program"]) == {0, 1}
    stage.close()


def test_answer_ends_by_itself_and_waits_for_the_player(stage):
    session = stage.open(mode="answer", answer_bars=1)
    stage.play(session, MELODY)
    stage.run(12)
    ticks = [message.tick for message in onsets(stage, session)]
    assert ticks and max(ticks) < 144
    session.take_over()
    stage.run(12.1)
    assert onsets(stage, session)[-1].due - (BEGAN + 12) < 0.1
    assert session.statistics().answers == 2
    stage.close()


def test_trade_turns_begin_on_their_bar_lines(stage):
    session = stage.open(mode="trade", trade_bars=1, instruments=[40])
    stage.play(session, MELODY)
    stage.play(session, [(at + 8, pitch, length) for at, pitch, length in MELODY])
    stage.run(9)
    ticks = np.array([message.tick for message in onsets(stage, session)])
    assert ((ticks // 48) % 2 == 1).all() and len(set(ticks // 48)) == 2
    assert {message.program for message in onsets(stage, session)} == {40}
    assert (ticks.min() - 48) <= 12 and session.statistics().late == 0
    stage.close()


def test_accompany_writes_a_lead_ahead(stage):
    session = stage.open(mode="accompany", lead=2.0)
    stage.play(session, [(at * 2, pitch, length) for at, pitch, length in MELODY])
    stage.run(10)
    ons = onsets(stage, session)
    assert {message.program for message in ons} == {33, 128} and len(ons) > 20
    statistics = session.statistics()
    assert statistics.late == statistics.skipped == 0 and statistics.staleness_p50 >= 24
    assert ons[0].tick >= 24
    stage.run(40)  # the player has gone
    last = len(onsets(stage, session))
    stage.run(44)
    assert len(onsets(stage, session)) == last
    stage.close()


def test_accompany_leaves_out_what_it_could_only_play_late(stage):
    """After each of its pauses the model is a few ticks late with all of its plan."""
    session = stage.open(mode="accompany", lead=1.0)
    session.note_on(60, 80)
    for number in range(20):
        stage.run(2.0 * number + 1)
        stage.time.advance(session.clock.seconds(session.seat.writer.frontier) + 0.06)
        stage.run(2.0 * number + 2)
    statistics = session.statistics()
    assert statistics.notes > 100 and statistics.late == statistics.skipped == 0
    stage.close()


COMMANDS = st.one_of(
    st.tuples(st.just("on"), st.sampled_from([60, 62, 67]), st.sampled_from([0.0, 0.0, 0.03, 0.3])),
    st.tuples(st.just("off"), st.sampled_from([60, 62, 67]), st.just(0.0)),
    st.tuples(st.sampled_from(["take_over", "panic", "wait"]), st.just(0), st.just(0.0)),
    st.tuples(st.just("change"), st.sampled_from([
        dict(mode="answer"), dict(mode="trade", trade_bars=1), dict(mode="accompany"), dict(qpm=90.0), dict(meter=(3, 4)),
        dict(lead=0.25), dict(instruments=(128,)), dict(instruments=None),
    ]), st.just(0.0)),
)  # fmt: skip


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 0.7), COMMANDS), min_size=1, max_size=25),
    st.sampled_from(["answer", "trade", "accompany"]),
    st.sampled_from([0.0, 0.02, 0.1]),
    st.lists(st.sampled_from([0.001, 0.004, 0.02, 0.25]), min_size=1, max_size=8),
    st.sampled_from([12, 10**6]),
)
def test_whatever_the_player_does_and_however_long_the_model_takes(commands, mode, lookahead, latencies, memory):
    """Each note-on has its note-off; none is late unless the model was slow; the model reads what sounds."""
    rng = np.random.default_rng(len(commands))
    with pytest.MonkeyPatch.context() as patch:
        stage = Stage(patch, 1, lambda: float(rng.choice(latencies)), lookahead, memory)
        session = stage.open(mode=mode, trade_bars=1, pause=0.5)
        now = 0.0
        for wait, (name, value, before) in commands:
            now += wait
            stage.run(now)
            if name in ("on", "off"):
                at = stage.time.now - before
                session.note_on(value, 80, at=at) if name == "on" else session.note_off(value, at=at)
            elif name == "change":
                session.change(**value)
            elif name != "wait":
                getattr(session, name)()
        stage.run(now + 3)
        statistics = session.statistics()
        if max(latencies) <= 0.004 and lookahead == 0.02:
            assert statistics.skipped == 0
        assert statistics.notes == len(onsets(stage, session))
        assert all(message.due <= stage.time.now + lookahead for message in stage.messages[session] if message.is_on)
        assert (statistics.lateness_p99 or 0) <= 100 and (statistics.late == 0 or max(session.queue.lateness) > TOLERANCE)
        stage.close()


@pytest.mark.parametrize(
    ("sessions", "lead", "qpm"), [(1, 0.25, 120), (1, 4.0, 180), (4, 4.0, 120)], ids=["sixteenth", "bar", "four sessions"]
)
def test_notes_are_on_time_where_the_model_is_quick_enough(monkeypatch, sessions, lead, qpm):
    """Six milliseconds for an event, as the published model takes on two cores."""
    stage = Stage(monkeypatch, sessions, lambda: 0.006, lookahead=0.01)
    opened = [stage.open(mode="accompany", lead=lead, qpm=float(qpm), seed=number) for number in range(sessions)]
    rng = np.random.default_rng(3)
    for number in range(60):
        at = number * 30 / qpm + rng.uniform(-0.02, 0.02)
        stage.run(at)
        for session in opened:
            for pitch in (60, 64, 67)[: rng.integers(1, 4)]:
                session.note_off(pitch)
                session.note_on(pitch + rng.integers(3), 80)
    stage.close()
    found = [session.statistics() for session in opened]
    notes, missed = sum(each.notes for each in found), sum(each.late + each.skipped for each in found)
    assert notes > 50 * sessions and missed <= 0.005 * notes, found
    assert all(each.staleness_p50 >= lead * 8 and not each.is_too_slow and not each.advice for each in found)


def test_a_model_that_is_too_slow_says_so(monkeypatch):
    stage = Stage(monkeypatch, 1, lambda: 0.08)
    session = stage.open(mode="accompany", lead=0.25)
    stage.play(session, [(number / 4, 60 + number % 5, 0.2) for number in range(120)])
    statistics = session.statistics()
    assert statistics.is_too_slow and "give live.lead = 0.5" in statistics.advice and statistics.notes > 0
    stage.close()


def test_of_several_full_windows_each_round_reads_one(stage, monkeypatch):
    """The others, whose turn is the next round, go on with their draws before."""
    sessions, read, give = [stage.open(mode="accompany", seed=number) for number in range(4)], [], Seat.give

    def give_and_restart(self, now):
        read[-1].append(self)
        stage.host.scheduler.restarts += 1
        give(self, now)

    monkeypatch.setattr(Seat, "give", give_and_restart)
    for session in sessions:
        session.note_on(60, 80)
    for _ in range(200):
        read.append([])
        stage.host.round()
        stage.time.advance(stage.time.now + 0.01)
    assert max(len(seats) for seats in read) == 1
    assert {seat for seats in read for seat in seats} == {session.seat for session in sessions}
    stage.close()


def test_a_flood_of_notes_costs_another_session_little(monkeypatch):
    stage = Stage(monkeypatch, 2, lambda: 0.004)
    flooding, other = stage.open(mode="accompany", seed=1), stage.open(mode="accompany", lead=1.0, seed=2)
    for number in range(12):
        at = 0.25 * number
        stage.run(at)
        other.note_on(60 + number, 80)
        for pitch in range(128):
            flooding.note_on(pitch, 80)
            flooding.note_off(pitch)
    stage.run(4)
    assert other.statistics().notes > 10 and other.statistics().late + other.statistics().skipped == 0
    stage.close()
