"""MIDI ports, with a stand-in for the package and, where the system has a sequencer, a loopback through it."""

import importlib
import os
import sys
import time
import types

import pytest

from sage_jax.errors import UserError
from sage_jax.live import port_player
from sage_jax.live.clock import MusicalClock
from sage_jax.live.port_player import PortPlayer, play_ports
from sage_jax.live.ports import Channels, Input, Output, PortNames, list_ports, midi_package
from sage_jax.live.queue import PlannedNote
from sage_jax.live.session import LiveSession
from sage_jax.live.settings import LiveSettings
from tests.live.midi_package import MidiPackage

KEYS, SYNTH = "Keys 49:Keys 49 MIDI 1 20:0", "Synth:Synth port 128:0"


def session_of() -> LiveSession:
    """A session without a model; a test puts notes into its queue."""
    host = types.SimpleNamespace(now=time.monotonic, wake=lambda: None)
    return LiveSession(host, LiveSettings(player_program=4), MusicalClock(time.monotonic()))


def until(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_ports_are_listed():
    package = MidiPackage([KEYS, "RtMidi Output Client:0"], [SYNTH])
    assert list_ports(package) == [f"input: {KEYS}", f"output: {SYNTH}"]
    assert list_ports(MidiPackage()) == ["no MIDI ports; connect an instrument, or start a synthesizer"]


def test_no_sequencer_and_no_package_are_said_in_one_line(monkeypatch):
    package = MidiPackage()

    def fail():
        os.write(2, b"ALSA lib: noise")
        raise RuntimeError("error creating ALSA sequencer client object.")

    package.MidiIn = fail
    with pytest.raises(UserError, match="offers no MIDI ports .error creating ALSA"):
        list_ports(package)
    with pytest.raises(UserError, match="offers no MIDI ports"):
        PortPlayer(session_of(), "keys", package=package)
    monkeypatch.setitem(sys.modules, "rtmidi2", None)
    with pytest.raises(UserError, match="extra 'live'"):
        midi_package()


def test_a_missing_sequencer_prints_nothing(capfd):
    package = MidiPackage()
    package.MidiOut = lambda: os.write(2, b"ALSA lib: noise") and [][1]
    with pytest.raises(UserError):
        PortNames(package)
    assert "noise" not in capfd.readouterr().err


def test_a_port_that_goes_comes_back():
    package, lines, received = MidiPackage([], ["busy"]), [], []
    names = PortNames(package)
    keys, synth = Input("keys", names, received.append, lines.append), Output("BUSY", names, lines.append)
    assert not keys.check() and not keys.check() and not synth.check() and not synth.check()
    assert lines == [
        "no MIDI input has 'keys' in its name; waiting for one",
        "the MIDI output busy can't be opened (the device is in use); trying again",
    ]
    package.inputs.append(KEYS)
    assert keys.check() and keys.is_open and not keys.check() and not synth.send(0x90, 60, 80)
    package.play(KEYS, 0x90, 60, 80)
    package.inputs.clear()
    assert not keys.check() and not keys.is_open and not package.opened
    package.inputs.append(KEYS)
    assert keys.check() and received == [[0x90, 60, 80]]
    assert lines[2:] == [f"MIDI input: {KEYS}", f"the MIDI input {KEYS} is gone; waiting for it", f"MIDI input: {KEYS}"]
    package.outputs[:] = [SYNTH]
    synth.part = "synth"
    assert synth.check() and synth.send(0x90, 60, 80)
    package.outputs.clear()
    assert not synth.send(0x80, 60, 0) and not synth.is_open and "takes no messages" in lines[-1]


def test_channels_of_programs():
    channels = Channels()
    assert channels.of("model", 128) == (9, False)
    assert channels.of("model", 0) == (0, True) and channels.of("model", 0) == (0, False)
    assert channels.of("player", 0) == (1, True)
    found = [channels.of("model", program)[0] for program in range(1, 14)]
    assert 9 not in found and len(set(found)) == 13
    assert channels.of("model", 99) == (0, True)  # the oldest one's
    channels.forget()
    assert channels.of("model", 99) == (0, True)


def test_notes_go_through_ports_in_time(monkeypatch):
    monkeypatch.setattr(port_player, "CHECK_SECONDS", 0.02)
    package, session, lines = MidiPackage([KEYS], []), session_of(), []
    with PortPlayer(session, "keys", "synth", latency=40, say=lines.append, package=package) as player:
        package.play(KEYS, 0x90, 60, 80)
        package.play(KEYS, 0x90, 60, 0)
        package.play(KEYS, 0x99, 38, 90)
        package.play(KEYS, 0xB0, 64, 127)
        package.play(KEYS, 0xC0, 5)
        assert [command[:-1] for command in session.inbox] == [("on", 60, 80, 4), ("off", 60, 4), ("on", 38, 90, 128)]
        assert not package.sent
        package.outputs.append(SYNTH)
        until(lambda: player.output.is_open)
        package.play(KEYS, 0x90, 62, 80)
        until(lambda: package.sent)
        assert [message for _, message in package.sent] == [(0xC0, 4), (0x90, 62, 80)]  # at once
        package.sent.clear()
        start = session.clock.tick_from(time.monotonic() + 0.15)
        notes = [PlannedNote(start + 2 * number, 4, 70 + number, 2, 90) for number in range(5)]
        session.queue.put(start, start + 10, notes, 1)
        session.notify()
        until(lambda: len(package.notes()) == 10)
        assert package.sent[0][1] == (0xC1, 4) and package.notes()[0] == (0x91, 70, 90)
        for at, message in package.sent[1:]:
            if message[0] == 0x91:
                due = session.clock.seconds(start + 2 * (message[1] - 70))
                assert -0.041 < at - due < 0.2  # sent 40 ms early, and later only where the machine is busy
        package.outputs.clear()
        until(lambda: not player.output.is_open)
        package.outputs.append(SYNTH)
        until(lambda: player.output.is_open)
        package.sent.clear()
        tick = session.clock.tick_from(time.monotonic() + 0.1)
        session.queue.put(tick, tick + 1, [PlannedNote(tick, 0, 50, 700, 9)], 2)
        session.notify()
        until(lambda: package.notes() == [(0x90, 50, 9)])
        assert player.error is None
    assert package.notes()[-1] == (0x80, 50, 0) and package.sent[-1][1] == (0xBF, 120, 0)
    assert (0xB0, 123, 0) in [message for _, message in package.sent] and not package.opened
    assert len([line for line in lines if "is gone" in line]) == 1


def test_play_ports_ends_with_ctrl_c_and_says_when_the_model_is_too_slow(monkeypatch):
    session, lines, naps = session_of(), [], iter([None, None])
    statistics = session.statistics
    monkeypatch.setattr(session, "statistics", lambda: types.SimpleNamespace(**{**vars(statistics()), "advice": "slow"}))

    def nap(seconds):
        if next(naps, "end") == "end":
            raise KeyboardInterrupt

    monkeypatch.setattr(port_player, "time", types.SimpleNamespace(sleep=nap, monotonic=time.monotonic))
    host = types.SimpleNamespace(open=lambda settings: session)
    assert play_ports(host, None, None, say=lines.append).notes == 0
    assert lines == ["slow"] and session.is_closed


def test_mistakes():
    with pytest.raises(UserError, match="latency"):
        PortPlayer(session_of(), latency=-1)
    session = session_of()
    session.error = ValueError("broken")
    host = types.SimpleNamespace(open=lambda settings: session)
    with pytest.raises(UserError, match="broken"):
        play_ports(host, None, None)


def test_loopback_through_the_system():
    """A virtual port of the system, where it has a sequencer; else the error of a system without one."""
    package = importlib.import_module("rtmidi2")
    try:
        synth = package.MidiIn()
        synth.open_virtual_port("sage loopback")
    except RuntimeError:
        with pytest.raises(UserError, match="offers no MIDI ports"):
            list_ports()
        return
    received = []
    synth.callback = lambda message, seconds: received.append(tuple(message))
    output = Output("sage loopback", PortNames(package), lambda line: None)
    output.check()
    assert output.send(0x90, 60, 80)
    until(lambda: received == [(0x90, 60, 80)])
    output.lose()
