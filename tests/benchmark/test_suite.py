"""The benchmark still runs, goes on where it was, and says what could not be measured."""

import io
import json
import sys
import time

import jax
import numpy as np
import pytest
from rich.console import Console

from configs.benchmark import ARGUMENTS, get_config
from sage_jax.benchmark import suite
from sage_jax.benchmark.config import BenchmarkConfig
from sage_jax.benchmark.figures import summarise, summarise_training
from sage_jax.benchmark.ratios import CONTROL, MIN_TURNS, Ratio, paired_ratio
from sage_jax.benchmark.report import write_report
from sage_jax.benchmark.roofline import training_operations
from sage_jax.benchmark.suite import MEASUREMENTS, measure
from sage_jax.benchmark.systems import PEERS, TRAINING_PEERS, model_of
from sage_jax.benchmark.sections import control
from sage_jax.benchmark.turns import Worker, WorkerFailed, checked, take_turns
from sage_jax.errors import UserError
from sage_jax.models.cache import Cache
from sage_jax.study.config import num_parameters
from tests.training.tiny import write_corpus


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_every_config_is_valid(argument):
    config = BenchmarkConfig(**get_config(argument).to_dict())
    cells = list(config.cells())
    assert cells and len({str(config.facts(cell)) for cell in cells}) == len(cells)
    for cell in cells:
        if len(cell.systems) > 1 and cell.table != "scaling" and not cell.table.startswith("growth"):
            assert config.reference + CONTROL in cell.systems


def test_the_accelerators_tables_fit_into_its_memory():
    """All systems of a cell are there at once: weights, caches, and what a prompt's scores need, eight rows at a time."""
    config = BenchmarkConfig(**get_config("gpu").to_dict())
    for cell in config.cells():
        assert cell.table.startswith("gpu")
        model = model_of("mha", cell.model, config.dtype)
        cache = jax.eval_shape(lambda: Cache.empty(model, cell.batch, cell.context_events)).num_bytes
        scores = 2 * 4 * min(cell.batch, 8) * model.heads * (5 * cell.context_events) ** 2
        each = cache + scores + 2 * num_parameters(model)
        assert len(cell.systems) * each < 40e9  # mha has the largest of all


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
    ours = {("main", name) for name in ("mha", "mha" + CONTROL, "as_kvhs-mixed-1", "nested-mqa")}
    others = {("growth_context", "as_kvhs-mixed-1"), ("tiny", "mha"), ("tiny", "mha" + CONTROL), ("scaling", "as_kvhs-mixed-1")}
    assert ours | others == set(measured)
    assert [line["system"] for line in lines if "failed" in line] == ["mmt", "torch-flat"]
    line = measured["main", "as_kvhs-mixed-1"]
    assert len(line["seconds"]) == 1 and len(line["seconds"][0]) == 2 and line["prefill_seconds"][0] > 0
    assert line["events_drawn"] == [2] and 0 <= line["notes_drawn"][0] <= 2 and line["loop_seconds"][0] > 0

    line = measured["tiny", "mha"]
    assert len(line["seconds"]) == 1 and len(line["seconds"][0]) == 2
    assert line["about"]["notes"] == 2 * (8 - 3)  # after the head
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
    assert "p95 |" not in text and "times mha" not in text  # of two events, in one turn
    assert "on cpu: prefill, then events one by one" in text
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


def decoding_line(turns: int, events: int = 10, **about) -> dict:
    """Of `turns` turns of hand-made times: 10 ms an event one by one, 8 in the loop."""
    given = dict(tokens_per_note=5, step_bytes=5_000_000, step_operations=10_000_000, seconds_per_note=0.5)
    return dict(
        system="mqa",
        cell=dict(table="main", batch=2, context_events=100 + events, events=events),
        device=dict(bytes_per_second=[1e9] * turns, operations_per_second=[1e10] * turns),
        about={**given, **about},
        prefill_seconds=[0.5] * turns,
        seconds=[[0.01] * events] * turns,
        loop_seconds=[0.008 * events] * turns,
        events_drawn=[events] * turns,
        notes_drawn=[2 * events - 1] * turns,
    )


def test_figures_of_hand_made_measurements():
    line = decoding_line(20)
    slow = {**decoding_line(20, step_bytes=10_000_000), "seconds": [[0.02] * 10] * 20}
    figures = summarise(line, slow, line)
    assert figures["p50"] == figures["p95"] == 10 and figures["times"] == 200 and figures["notes_drawn"] == 19 / 20
    assert figures["notes_per_second"] == 2 / 0.008 and figures["tokens_per_second"] == 5 * 2 / 0.008
    assert figures["times_real_time"] == 0.5 / 0.008  # of each row
    assert figures["prefill_events_per_second"] == 2 * 100 / 0.5 and figures["first_note"] == 510
    assert figures["memory_share"] == pytest.approx(0.5) and figures["arithmetic_share"] == pytest.approx(0.1)
    assert figures["speedup"] == Ratio(2, 2, 2, 20) and figures["predicted"] == 2 and "of_featured" not in figures
    assert summarise(slow, slow, line)["of_featured"] == Ratio(2, 2, 2, 20)


def test_what_is_not_sure_has_no_figure():
    few, many = decoding_line(MIN_TURNS - 1), decoding_line(20, 50)
    assert not {"p95", "p99", "max", "speedup", "of_featured"} & summarise(few, decoding_line(19), decoding_line(19)).keys()
    assert {"p95", "p99", "max"} <= summarise(many).keys()
    assert "p99" not in summarise(decoding_line(20, 49))
    in_cache, far_over = decoding_line(20, last_level_cache_bytes=1_250_001), decoding_line(20, last_level_cache_bytes=1_250_000)
    assert "memory_share" not in summarise(in_cache) and summarise(far_over)["memory_share"] == pytest.approx(0.5)
    assert "predicted" not in summarise(in_cache, decoding_line(20)) and "arithmetic_share" in summarise(in_cache)


def test_the_interval_of_a_ratio_covers_the_ratio():
    draw, covered = np.random.default_rng(1), 0
    for _ in range(200):
        turn = draw.lognormal(0, 0.5, 20)  # what slows a whole turn cancels out
        slow, fast = 1.3 * turn * draw.lognormal(0, 0.1, 20), turn * draw.lognormal(0, 0.1, 20)
        found = paired_ratio(slow, fast)
        covered += found.low <= 1.3 <= found.high
        assert 1 < found.low < found.value < found.high < 1.7 and found.turns == 20
    assert 0.9 < covered / 200 <= 1
    assert paired_ratio(slow[:19], fast[:19]) is None
    assert found.excludes_one and not Ratio(1.0, 0.9, 1.1, 20).excludes_one
    assert found.over(2) == Ratio(found.value / 2, found.low / 2, found.high / 2, 20)


def test_a_table_whose_control_fails_says_so():
    one, two = {**decoding_line(20), "system": "mha"}, {**decoding_line(20), "system": "mha" + CONTROL}
    assert control([one, two], "mha") == ["A/A: `mha` is 1.00 (1.00 to 1.00) times as fast as itself, over 20 turns."]
    slow = {**two, "seconds": [[0.011] * 10] * 20}
    assert "the method failed" in control([one, slow], "mha")[0]
    assert control([one], "mha") == [] and control([decoding_line(20)], "mha") == []


def test_figures_of_hand_made_measurements_of_training():
    model = dict(width=32, layers=2, heads=40, head_width=2, mlp_width=48)
    cell = dict(batch=2, events=16, model=model, dtype="float32")
    device = dict(bytes_per_second=[1e9], operations_per_second=[1e9])
    about = dict(devices=2, tokens=100, notes=20)
    loops = dict(loop_seconds=[0.1, 0.1], loaded_loop_seconds=[0.101, 0.103], read_seconds=[0.001, 0.003])
    line = dict(system="mha", cell=cell, device=device, about=about, seconds=[[0.1] * 3] * 20, **loops)
    peer = {key: value for key, value in line.items() if key not in loops} | dict(system="torch-flat", seconds=[[0.2] * 3] * 20)
    figures = summarise_training(line, line, peer)
    assert figures["tokens_per_second"] == pytest.approx(500) and figures["notes_per_second"] == pytest.approx(100)
    operations = training_operations(model_of("mha", model, "float32"), 2, 16)
    assert figures["mfu"] == pytest.approx(operations / 2 / 0.1 / 1e9)
    assert figures["read_share"] == pytest.approx(0.02) and figures["loading"] == pytest.approx(0.02)
    assert figures["of_peer"] == Ratio(2, 2, 2, 20) and "speedup" not in figures
    figures = summarise_training(peer, line, peer)  # the same model, and so the same operations
    assert figures["mfu"] == pytest.approx(operations / 2 / 0.2 / 1e9)
    assert figures["speedup"] == Ratio(0.5, 0.5, 0.5, 20) and not {"of_peer", "read_share", "loading"} & set(figures)


def test_a_worker_that_dies_leaves_its_last_words():
    with pytest.raises(WorkerFailed, match="no such thing"):
        Worker([sys.executable, "-c", "raise SystemExit('no such thing')"], {})
    with pytest.raises(WorkerFailed, match="exit code 3"):
        Worker([sys.executable, "-c", "raise SystemExit(3)"], {})
    between_turns = Worker([sys.executable, "-c", "print('{}', flush=True); raise SystemExit('gone')"], {})
    between_turns._process.wait()
    with pytest.raises(WorkerFailed, match="gone"):
        between_turns.run()


ECHO = """
import json, sys
print("{}", flush=True)
for _ in sys.stdin:
    print(json.dumps(json.loads(sys.argv[1])["answer"]), flush=True)
"""
HANGS = "print('{}', flush=True); import subprocess, sys, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"


def test_a_worker_that_hangs_is_killed_with_what_it_started():
    began = time.monotonic()
    worker = Worker([sys.executable, "-c", HANGS], {}, limit=1.0)
    with pytest.raises(WorkerFailed, match="killed after 1 s without an answer"):
        worker.run()
    assert worker._process.returncode == -9
    with pytest.raises(WorkerFailed, match="killed after 0.1 s"):
        Worker([sys.executable, "-c", "import time; time.sleep(60)"], {}, limit=0.1)
    assert time.monotonic() - began < 30


def test_what_hangs_or_draws_too_little_is_a_row_that_says_so():
    answer = dict(seconds=[0.1, 0.1], events_drawn=2, notes_drawn=2, prefill_seconds=None, peak_megabytes=1.0)
    probe = Worker([sys.executable, "-c", ECHO], {"answer": dict(bytes_per_second=1.0, operations_per_second=1.0)})
    echo = lambda events, **change: ([sys.executable, "-c", ECHO], dict(context_events=9, events=events, answer=answer | change))
    jobs = {
        "whole": echo(2),
        "short": echo(3),
        "uncounted": echo(2, events_drawn=1),
        "hung": ([sys.executable, "-c", HANGS], dict(context_events=9, events=2)),
    }
    try:
        lines = take_turns(list(jobs), jobs.get, 3, probe, {}, Console(file=io.StringIO()), limit=2.0)
    finally:
        probe.close()
    failed = {line["system"]: line["failed"] for line in lines if "failed" in line}
    assert [line["system"] for line in lines if "about" in line] == ["whole"]
    assert failed["short"] == "drew 2 events, where 3 were wanted" and "killed after 2 s" in failed["hung"]
    assert "2 events were timed, and 1 drawn" in failed["uncounted"]
    assert json.loads(json.dumps(lines)) == lines


def test_a_run_of_training_takes_the_steps_that_were_asked_for():
    assert checked(dict(steps=2), dict(seconds=[1, 1])) == dict(seconds=[1, 1])
    with pytest.raises(WorkerFailed, match="timed 1 steps, where 2 were wanted"):
        checked(dict(steps=2), dict(seconds=[1]))


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
def test_bad_configs_are_named(change, message):
    config = {**get_config("debug").to_dict(), **change}
    with pytest.raises(UserError, match=message):
        BenchmarkConfig(**config)


