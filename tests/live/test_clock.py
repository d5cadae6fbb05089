"""Musical time and seconds, both ways, and the offset of another clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_jax.live.clock import MusicalClock
from sage_jax.live.remote_clock import PINGS, RemoteClock
from sage_jax.music.notes import note_array

TEMPOS = st.floats(20, 320)
METERS = st.sampled_from([(4, 4), (3, 4), (6, 8), (5, 4)])


@given(
    st.floats(0, 1e6),
    TEMPOS,
    st.lists(st.tuples(st.floats(0, 600), TEMPOS), max_size=5),
    st.lists(st.integers(-50, 100_000), min_size=1, max_size=20),
)
def test_ticks_and_seconds_are_exact_both_ways(started, qpm, changes, ticks):
    clock = MusicalClock(started, qpm)
    for at, tempo in changes:
        place = clock.position(started + at)
        tick = clock.change_tempo(started + at, tempo)
        assert place - 1e-4 <= tick <= place + 1 + 1e-4  # the place stays
        assert abs(clock.position(clock.seconds(tick)) - tick) < 1e-4 and clock.qpm == tempo
    seconds = [clock.seconds(tick) for tick in sorted(ticks)]
    assert seconds == sorted(seconds)
    for tick in ticks:
        at = clock.seconds(tick)
        assert clock.tick(at) == clock.nearest(at) == clock.tick_from(at) == tick
        assert clock.tick(clock.seconds(tick + 0.5)) == tick and clock.tick_from(clock.seconds(tick + 0.5)) == tick + 1


@given(METERS, st.lists(st.tuples(st.floats(0, 100), METERS), max_size=4), st.integers(0, 5000))
def test_bars_of_every_meter(meter, changes, tick):
    clock = MusicalClock(0.0, 120, meter)
    for at, other in sorted(changes):
        begins = clock.change_meter(at, other)
        assert begins >= clock.tick_from(at) and clock.bar_start(clock.bar_of(begins)) == begins
    bar = clock.bar_of(tick)
    assert clock.bar_start(bar) <= tick < clock.bar_start(bar + 1)
    piece = clock.piece(note_array([(tick, 0, 60, 12, 80)]))
    assert piece.bar_of(tick) == bar and piece.bar_start(bar + 2) == clock.bar_start(bar + 2)


def test_a_change_of_tempo_keeps_the_place():
    clock = MusicalClock(10.0, 120)
    assert clock.change_tempo(11.0, 60) == 24 and clock.seconds(24) == 11.0 and clock.seconds(36) == 12.0
    place = clock.place(13.0)
    assert (place.tick, place.qpm, place.bar, place.bar_tick, place.meter) == (48, 60, 1, 48, (4, 4))
    assert clock.place(10.5).qpm == 120 and clock.place(9.0).bar == -1
    assert clock.change_tempo(9.0, 240) == 0 and clock.seconds(12) == 10.25  # before the start


@given(
    st.floats(-1e5, 1e5),
    st.floats(-1e-4, 1e-4),
    st.lists(st.tuples(st.floats(0, 0.3), st.floats(0, 0.3)), min_size=PINGS, max_size=60),
)
def test_offset_of_another_clock_is_within_half_a_round_trip(offset, drift, delays):
    remote, there = RemoteClock(), lambda here: here * (1 + drift) + offset
    for number, (out, back) in enumerate(delays):
        sent = 5.0 + number
        remote.add(sent, there(sent + out), sent + out + back)
    now = 5.0 + len(delays)
    error = abs(remote.offset - (there(now) - now))
    assert error <= remote.round_trip / 2 + abs(drift) * (PINGS + 2) + 1e-6
    assert remote.round_trip <= min(out + back for out, back in delays[-PINGS:]) + 1e-6
    assert abs(remote.here(remote.there(now)) - now) < 1e-6


def test_drift_is_the_slope_of_the_offset():
    remote = RemoteClock()
    assert not remote.is_known and remote.offset == remote.round_trip == remote.drift == 0
    for number in range(40 * PINGS):
        here = float(number)
        remote.add(here, here * (1 + 20e-6) + 3, here + 0.01 * (1 + number % 3))
    assert remote.is_known and abs(remote.drift - 20e-6) < 2e-6
    with pytest.raises(ValueError, match="before its question"):
        remote.add(2.0, 0.0, 1.0)
