"""The benchmark of live play: what its players do, and a short one against a real server with a tiny model."""

import io

import pytest
from rich.console import Console

from sage_jax.benchmark.config import BenchmarkConfig
from sage_jax.benchmark.live import Watch
from sage_jax.benchmark.live_client import PHRASE_BARS, REST_BARS, Key, keys_of
from sage_jax.benchmark.report import write_report
from sage_jax.benchmark.suite import measure
from sage_jax.errors import UserError
from sage_jax.music.notes import Piece
from tests.benchmark.test_suite import config_of
from tests.music.midi_files import write_pieces
from tests.training.tiny import tiny_config
from tests.training.untrained import save_untrained

BAR = 48  # ticks
PIECE = Piece.from_notes([(0, 0, 60, 12, 80), (BAR, 0, 62, 12, 80), (2 * BAR, 0, 64, 3 * BAR, 80)])


def presses(keys: list[Key]) -> list[tuple[int, int]]:
    return [(key.tick, key.pitch) for key in keys if key.velocity]


def test_an_accompanied_player_never_stops():
    keys = keys_of(PIECE, BAR, 10 * BAR, "accompany", 2)
    assert presses(keys) == [(0, 60), (BAR, 62), (2 * BAR, 64), (5 * BAR, 60), (6 * BAR, 62)]


@pytest.mark.parametrize(("mode", "phrase", "rest"), [("answer", PHRASE_BARS, REST_BARS), ("trade", 2, 2)])
def test_other_players_rest_for_the_model(mode, phrase, rest):
    keys = keys_of(PIECE, BAR, 12 * BAR, mode, 2)
    assert presses(keys)[:3] == [(0, 60), (BAR, 62), ((phrase + rest) * BAR, 64)]
    assert all(key.tick // BAR % (phrase + rest) < phrase for key in keys)
    held = {}
    for key in keys:  # each key that goes down goes up
        held[key.pitch] = held.get(key.pitch, 0) + (1 if key.velocity else -1)
        assert held[key.pitch] in (0, 1)
    assert not any(held.values())


def test_memory_grows_from_the_second_tenth_on():
    watch = Watch(1)
    watch.megabytes = [50.0] * 2 + [100.0] * 16 + [110.0] * 2
    assert watch.growth == pytest.approx(0.1)


def test_a_cell_with_wrong_settings_is_refused():
    with pytest.raises(UserError, match="live.mode is 'follow'"):
        config_of("live", live=dict(wrong=dict(mode="follow", seconds=1.0, corpus="embedded")))
    with pytest.raises(UserError, match="config.live.wrong.sessions is 0"):
        config_of("live", live=dict(wrong=dict(sessions=(0,), seconds=1.0, corpus="embedded")))


@pytest.mark.process
def test_two_players_over_a_real_socket(tmp_path):
    write_pieces(tmp_path / "midi", 2)
    save_untrained(tiny_config(model=dict(architecture="nested", lookahead=2, kv_sharing="mqa")), tmp_path / "run")
    play = dict(systems=(str(tmp_path / "run"),), sessions=(2,), corpus=f"folder:{tmp_path / 'midi'}", seconds=6.0, lead=1.0)
    config: BenchmarkConfig = config_of("live", live=dict(tiny=dict(play, mode="accompany", qpm=240.0)))
    (found,) = measure(config, tmp_path / "out", Console(file=io.StringIO()))
    assert found.ok, found.error
    (live,) = found.live
    assert live["player_notes"] > 4 and live["problems"] == [] and live["megabytes"] > 50 and live["cores"] > 0
    assert live["drift"] < 1
    write_report(config, [found], tmp_path / "page.md", tmp_path / "plot.png", "COMMAND")
    assert "| accompany | 240 | 1 | 2 | 0.1 |" in (tmp_path / "page.md").read_text()
