"""The decoding benchmark still runs, goes on where it was, and tells what could not be measured."""

import io
import sys

import pytest
from rich.console import Console

from configs.benchmark import ARGUMENTS, get_config
from sage_jax.benchmark import suite
from sage_jax.benchmark.report import summarise, write_report
from sage_jax.benchmark.suite import MEASUREMENTS, BenchmarkConfig, Worker, WorkerFailed, measure
from sage_jax.benchmark.systems import PEERS
from sage_jax.errors import UserError


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_every_config_is_valid(argument):
    cells = list(BenchmarkConfig(**get_config(argument).to_dict()).cells())
    assert cells and all(cell.batch > 0 for cell in cells)


def test_a_debug_run_from_processes_to_tables_and_plots(tmp_path, monkeypatch):
    monkeypatch.setitem(PEERS, "mmt", dict(script="no_such_peer.py"))
    config = BenchmarkConfig(**get_config("debug").to_dict())
    said = io.StringIO()
    lines = measure(config, tmp_path, Console(file=said))
    assert "mmt: not measured" in said.getvalue()
    measured = {(line["cell"]["table"], line["system"]): line for line in lines if "about" in line}
    ours = {("main", name) for name in ("mha", "as_kvhs-mixed-1", "nested-mqa", "delay-mqa")}
    assert ours | {("growth_context", "as_kvhs-mixed-1")} == set(measured)
    assert [line["system"] for line in lines if "failed" in line] == ["mmt"]
    line = measured["main", "as_kvhs-mixed-1"]
    assert len(line["note_seconds"]) == 1 and len(line["note_seconds"][0]) == 2 and line["prefill_seconds"][0] > 0
    write_report(config, lines, tmp_path / "BENCHMARKS.md", tmp_path / "benchmark.png", "the command")
    report = (tmp_path / "BENCHMARKS.md").read_text()
    assert "| mha |" in report and "Not measured: `mmt`" in report and "as a power" in report
    assert (tmp_path / "benchmark.png").stat().st_size > 10_000

    def refuse(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(suite, "measure_cell", refuse)
    assert measure(config, tmp_path, Console(file=said)) == lines
    assert len((tmp_path / MEASUREMENTS).read_text().splitlines()) == len(lines)


def test_figures_of_hand_made_measurements():
    cell = dict(table="main", batch=2, context_events=110, events=10)
    device = dict(bytes_per_second=[1e9, 1e9], operations_per_second=[1e10, 1e10])
    about = dict(tokens_per_note=5, step_bytes=5_000_000, step_operations=10_000_000, seconds_per_note=0.5)
    line = dict(
        cell=cell, device=device, about=about, prefill_seconds=[0.5], note_seconds=[[0.01] * 10] * 2, loop_seconds=[0.08, 0.08]
    )
    slow = {**line, "about": {**about, "step_bytes": 10_000_000}, "note_seconds": [[0.02] * 10] * 2}
    figures = summarise(line, slow, line)
    assert figures["p50"] == figures["max"] == 10 and figures["notes"] == 20
    assert figures["notes_per_second"] == 2 / 0.008 and figures["tokens_per_second"] == 5 * 2 / 0.008
    assert figures["times_real_time"] == 0.5 / 0.008  # of each row
    assert figures["prefill_events_per_second"] == 2 * 100 / 0.5 and figures["first_note"] == 510
    assert figures["memory_share"] == pytest.approx(0.5) and figures["arithmetic_share"] == pytest.approx(0.1)
    assert figures["speedup"] == [2, 2, 2] and figures["predicted"] == 2 and "behind" not in figures
    assert summarise(slow, slow, line)["behind"] == [2, 2, 2]


def test_a_worker_that_dies_leaves_its_last_words():
    with pytest.raises(WorkerFailed, match="no such thing"):
        Worker([sys.executable, "-c", "raise SystemExit('no such thing')"], {})
    with pytest.raises(WorkerFailed, match="exit code 3"):
        Worker([sys.executable, "-c", "raise SystemExit(3)"], {})
    between_turns = Worker([sys.executable, "-c", "print('{}', flush=True); raise SystemExit('gone')"], {})
    between_turns._process.wait()
    with pytest.raises(WorkerFailed, match="gone"):
        between_turns.run()


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(rounds=1), "config.rounds is 1"),
        (dict(events=50), "too few to draw 50"),
        (dict(reference="mqa"), "lacks config.reference"),
        (dict(tables=dict(main=dict(systems=("mha", "best")))), "called 'best'"),
        (dict(tables=dict(main=dict(systems=("mha", "as_kvhs-mixed-2")))), "needs a multiple of 20"),
    ],
)
def test_bad_configs_are_told(change, message):
    config = {**get_config("debug").to_dict(), **change}
    with pytest.raises(UserError, match=message):
        BenchmarkConfig(**config)


