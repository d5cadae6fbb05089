"""The benchmark still runs, goes on where it was, and tells what could not be measured."""

import io
import sys

import pytest
from rich.console import Console

from configs.benchmark import ARGUMENTS, get_config
from sage_jax.benchmark import suite
from sage_jax.benchmark.config import BenchmarkConfig
from sage_jax.benchmark.figures import summarise, summarise_training
from sage_jax.benchmark.report import write_report
from sage_jax.benchmark.roofline import training_operations
from sage_jax.benchmark.suite import MEASUREMENTS, measure
from sage_jax.benchmark.systems import PEERS, TRAINING_PEERS, model_of
from sage_jax.benchmark.turns import Worker, WorkerFailed
from sage_jax.errors import UserError
from tests.training.tiny import write_corpus


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_every_config_is_valid(argument):
    config = BenchmarkConfig(**get_config(argument).to_dict())
    cells = list(config.cells())
    assert cells and len({str(config.facts(cell)) for cell in cells}) == len(cells)


def test_a_debug_run_from_processes_to_tables_and_plots(tmp_path, monkeypatch):
    for peers, name in ((PEERS, "mmt"), (TRAINING_PEERS, "torch-flat")):
        monkeypatch.setitem(peers, name, dict(script="no_such_peer.py"))
    (tmp_path / "midi").mkdir()
    write_corpus(tmp_path / "midi")
    config = BenchmarkConfig(**{**get_config("debug").to_dict(), "corpus": f"folder:{tmp_path / 'midi'}"})
    said = io.StringIO()
    lines = measure(config, tmp_path, Console(file=said))
    assert "mmt: not measured" in said.getvalue()
    measured = {(line["cell"]["table"], line["system"]): line for line in lines if "about" in line}
    ours = {("main", name) for name in ("mha", "as_kvhs-mixed-1", "nested-mqa")}
    others = {("growth_context", "as_kvhs-mixed-1"), ("tiny", "mha"), ("scaling", "as_kvhs-mixed-1")}
    assert ours | others == set(measured)
    assert [line["system"] for line in lines if "failed" in line] == ["mmt", "torch-flat"]
    line = measured["main", "as_kvhs-mixed-1"]
    assert len(line["seconds"]) == 1 and len(line["seconds"][0]) == 2 and line["prefill_seconds"][0] > 0

    line = measured["tiny", "mha"]
    assert len(line["seconds"]) == 1 and len(line["seconds"][0]) == 2
    assert line["about"]["notes"] == 2 * (8 - 3)  # behind the head
    assert line["about"]["tokens"] == 2 * (5 * (8 - 3) + 1)  # of the event that is not read, the onset alone
    assert line["about"]["planned_bytes"] > 3 * 4 * line["about"]["parameters"]  # they, and what AdamW knows of them
    assert line["read_seconds"][0] > 0 and line["loaded_loop_seconds"][0] > 0

    counted = {(each["scaling"], each["axis"]): each for each in measured["scaling", "as_kvhs-mixed-1"]["counted"]}
    assert set(counted) == {(scaling, axis) for scaling in ("weak", "strong") for axis in ("fsdp",)}
    weak, strong = counted["weak", "fsdp"], counted["strong", "fsdp"]
    assert weak["batch"] == strong["batch"] == 2 and weak["sent"] == strong["sent"]
    assert weak["operations"] == training_operations(model_of("as_kvhs-mixed-1", config.model, "float32"), 2, 8) / 2
    assert weak["held_bytes"] < 3 * 4 * measured["tiny", "mha"]["about"]["parameters"]
    assert sum(weak["sent"].values()) > 0

    report, plot = tmp_path / "BENCHMARKS.md", tmp_path / "benchmark.png"
    report.write_text("# Benchmarks\n\n## Debug\n\nof before\n\n## Of another config\n\n### Its table\n\nstays\n")
    write_report(config, lines, report, plot, "the command")
    text = report.read_text()
    assert "| mha |" in text and "Not measured: `mmt`" in text and "as a power" in text
    assert "Not measured: `torch-flat`" in text and "Weak scaling, rows for each device: 1" in text and "| fsdp | 2 |" in text
    assert "of before" not in text and text.endswith("## Of another config\n\n### Its table\n\nstays\n")
    headings = [line for line in text.splitlines() if line.startswith(("# ", "## "))]
    assert headings == ["# Benchmarks", "## Debug", "## Of another config"]
    assert plot.stat().st_size > 10_000
    write_report(config, lines, report, plot, "the command")
    assert report.read_text() == text

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
        cell=cell, device=device, about=about, prefill_seconds=[0.5, None], seconds=[[0.01] * 10] * 2, loop_seconds=[0.08, 0.08]
    )
    slow = {**line, "about": {**about, "step_bytes": 10_000_000}, "seconds": [[0.02] * 10] * 2}
    figures = summarise(line, slow, line)
    assert figures["p50"] == figures["max"] == 10 and figures["times"] == 20
    assert figures["notes_per_second"] == 2 / 0.008 and figures["tokens_per_second"] == 5 * 2 / 0.008
    assert figures["times_real_time"] == 0.5 / 0.008  # of each row
    assert figures["prefill_events_per_second"] == 2 * 100 / 0.5 and figures["first_note"] == 510
    assert figures["memory_share"] == pytest.approx(0.5) and figures["arithmetic_share"] == pytest.approx(0.1)
    assert figures["speedup"] == [2, 2, 2] and figures["predicted"] == 2 and "behind" not in figures
    assert summarise(slow, slow, line)["behind"] == [2, 2, 2]


def test_figures_of_hand_made_measurements_of_training():
    model = dict(width=32, layers=2, heads=40, head_width=2, mlp_width=48)
    cell = dict(batch=2, events=16, model=model, dtype="float32")
    device = dict(bytes_per_second=[1e9], operations_per_second=[1e9])
    about = dict(devices=2, tokens=100, notes=20)
    loops = dict(loop_seconds=[0.1, 0.1], loaded_loop_seconds=[0.101, 0.103], read_seconds=[0.001, 0.003])
    line = dict(system="mha", cell=cell, device=device, about=about, seconds=[[0.1] * 3] * 2, **loops)
    peer = {key: value for key, value in line.items() if key not in loops} | dict(system="torch-flat", seconds=[[0.2] * 3] * 2)
    figures = summarise_training(line, line, peer)
    assert figures["tokens_per_second"] == pytest.approx(500) and figures["notes_per_second"] == pytest.approx(100)
    operations = training_operations(model_of("mha", model, "float32"), 2, 16)
    assert figures["mfu"] == pytest.approx(operations / 2 / 0.1 / 1e9)
    assert figures["read_share"] == pytest.approx(0.02) and figures["loading"] == pytest.approx(0.02)
    assert figures["of_peer"] == [2, 2, 2] and "speedup" not in figures
    figures = summarise_training(peer, line, peer)  # the same model, and so the same operations
    assert figures["mfu"] == pytest.approx(operations / 2 / 0.2 / 1e9)
    assert figures["speedup"] == [0.5, 0.5, 0.5] and not {"of_peer", "read_share", "loading"} & set(figures)


def test_a_worker_that_dies_leaves_its_last_words():
    with pytest.raises(WorkerFailed, match="no such thing"):
        Worker([sys.executable, "-c", "raise SystemExit('no such thing')"], {})
    with pytest.raises(WorkerFailed, match="exit code 3"):
        Worker([sys.executable, "-c", "raise SystemExit(3)"], {})
    between_turns = Worker([sys.executable, "-c", "print('{}', flush=True); raise SystemExit('gone')"], {})
    between_turns._process.wait()
    with pytest.raises(WorkerFailed, match="gone"):
        between_turns.run()


def training(**change):
    return dict(training=dict(tiny={**get_config("debug").training.tiny.to_dict(), **change}))


def scaling(**change):
    return dict(scaling={**get_config("debug").scaling.to_dict(), **change})


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(rounds=1), "config.rounds is 1"),
        (dict(events=50), "too few to draw 50"),
        (dict(reference="mqa"), "lacks config.reference"),
        (dict(tables=dict(main=dict(systems=("mha", "best")))), "called 'best'"),
        (dict(tables=dict(main=dict(systems=("mha", "torch-flat")))), "called 'torch-flat'"),
        (training(systems=("mqa",)), "config.training.tiny.systems lacks config.reference = mha"),
        (training(systems=("mha", "mmt")), "called 'mmt'"),
        (training(batches=(0,)), "config.training.tiny.batches is 0"),
        (training(events=(4,)), "config.training.tiny.events is 4; give at least 5"),
        (training(steps=0), "config.training.tiny.steps is 0"),
        (scaling(batch=3), "config.scaling.batch is 3; give a multiple of 2"),
        (scaling(devices=(0,)), "config.scaling.devices is 0"),
        (scaling(axes=("data", "pipeline")), "config.scaling.axes has 'pipeline'; choose from data, fsdp, tensor"),
        (dict(tables=dict(main=dict(systems=("mha", "as_kvhs-mixed-2")))), "needs a multiple of 20"),
    ],
)
def test_bad_configs_are_told(change, message):
    config = {**get_config("debug").to_dict(), **change}
    with pytest.raises(UserError, match=message):
        BenchmarkConfig(**config)


