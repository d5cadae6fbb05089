"""The benchmark: valid configs, one real run of each kind of worker, resumption, and the report."""

import dataclasses
import io
import json
from typing import Any

import jax
import pytest
from rich.console import Console

from configs.benchmark import ARGUMENTS, get_config
from sage_jax.benchmark import interleaved, suite
from sage_jax.benchmark.config import BenchmarkConfig, CommunicationCell, DecodingCell, TrainingCell
from sage_jax.benchmark.interleaved import WorkerFailed
from sage_jax.benchmark.measurement import Measurement
from sage_jax.benchmark.peers import PEERS, TRAINING_PEERS
from sage_jax.benchmark.ratios import CONTROL
from sage_jax.benchmark.report import write_report
from sage_jax.benchmark.roofline import training_operations
from sage_jax.benchmark.suite import MEASUREMENTS, measure
from sage_jax.decoding.engine import CHUNK, STAGING_ROWS
from sage_jax.errors import UserError
from sage_jax.models.cache import Cache
from sage_jax.models.presets import model_config
from sage_jax.study.config import num_parameters
from tests.benchmark.fake_worker import FakeWorker


def config_of(argument: str, **changes: Any) -> BenchmarkConfig:
    return BenchmarkConfig(**{**get_config(argument).to_dict(), **changes})


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_every_config_is_valid(argument):
    config = config_of(argument)
    cells = list(config.cells())
    assert cells and len({str(config.cell_settings(cell)) for cell in cells}) == len(cells)
    for cell in cells:
        compares = isinstance(cell, TrainingCell) or (isinstance(cell, DecodingCell) and not cell.is_curve)
        if compares and len(cell.systems) > 1:
            assert config.reference + CONTROL in cell.systems


@pytest.mark.parametrize("name", ["gpu", "gpu_batches"])
def test_the_tables_of_gpu_fit_into_80_gb(name):
    """All systems of a cell are in memory: weights, caches of the batch and of staged rows, and the scores of a prefill."""
    config = config_of(name)
    for cell in config.cells():
        assert isinstance(cell, DecodingCell) and cell.table.startswith("gpu")
        model = model_config("mha", cell.model, config.dtype)  # the largest
        staged = min(cell.batch, STAGING_ROWS)
        rows = cell.batch + staged
        cache = jax.eval_shape(lambda model=model, cell=cell, rows=rows: Cache.empty(model, rows, cell.context_events))
        scores = 2 * 4 * staged * model.num_heads * 5 * CHUNK * 5 * cell.context_events
        assert len(cell.systems) * (cache.num_bytes + scores + 2 * num_parameters(model)) < 70e9


@pytest.mark.process
def test_real_workers_of_decoding_and_communication(tmp_path):
    empty = dict(systems=(), context=(), batch=(), embed_dim=(), num_layers=())
    config = config_of("debug", tables=dict(main=dict(systems=("mha",), contexts=(80,))), scaling_curves=empty, training={})
    decoding, communication = measure(config, tmp_path, Console(file=io.StringIO()))
    assert decoding.ok and communication.ok
    assert len(decoding.seconds) == 1 and len(decoding.seconds[0]) == 2 and decoding.device["bytes_per_second"][0] > 0
    prefill, loop = decoding.prefill_seconds[0], decoding.loop_seconds[0]
    assert prefill is not None and prefill > 0 and loop is not None and loop > 0
    assert decoding.events_drawn == [2] and decoding.notes_drawn[0] in (0, 1, 2)

    programs = {(each["scaling"], each["axis"]): each for each in communication.programs}
    assert set(programs) == {("weak", "fsdp"), ("strong", "fsdp")}
    weak, strong = programs["weak", "fsdp"], programs["strong", "fsdp"]
    assert weak["batch"] == strong["batch"] == 2 and weak["sent"] == strong["sent"]
    model = model_config("as_kvhs-mixed-1", config.model, "float32")
    assert weak["operations"] == training_operations(model, 2, 8) / 2
    assert weak["state_bytes"] < 3 * 4 * num_parameters(model)  # sharded
    assert sum(weak["sent"].values()) > 0


DEVICE = dict(bytes_per_second=1e9, operations_per_second=1e9)
VERSIONS = dict(device="cpu", jax="1")


class CannedWorker(FakeWorker):
    """Answers every job of the debug config."""

    def __init__(self, command: list[str], job: dict[str, Any], *arguments: Any, **keywords: Any):
        super().__init__(command, job | canned(job), *arguments, **keywords)


def canned(job: dict[str, Any]) -> dict[str, Any]:
    metadata = dict(measures="canned runs", parameters=1000, compile_seconds=1.0, versions=VERSIONS)
    if "context_events" in job:
        seconds = [0.01 * job["context_events"]] * job["events"]
        run = dict(seconds=seconds, events_drawn=job["events"], notes_drawn=1, prefill_seconds=0.5, peak_megabytes=1.0)
        answer = run | dict(loop_seconds=0.01)
        facts = dict(tokens_per_note=5, cache_bytes=1000, step_bytes=10, step_operations=10)
    elif "axes" in job:
        counts = dict(batch=2, sent={"all-reduce": 1_000_000}, state_bytes=1000, operations=1e6, remarks=["a remark"])
        answer, facts = {"programs": [{"scaling": kind, "axis": "fsdp", **counts} for kind in ("weak", "strong")]}, {}
    elif "steps" in job:
        loops = dict(loop_seconds=0.1, loaded_loop_seconds=0.1, read_seconds=0.001)
        answer = dict(seconds=[0.1] * job["steps"], peak_megabytes=1.0, **loops)
        facts = dict(devices=1, tokens=10, notes=2, planned_bytes=1000)
    else:
        answer, facts = DEVICE, {}
    return dict(answer=answer, metadata=metadata | facts)


def test_a_debug_run_with_fake_workers_resumes_and_reports(tmp_path, monkeypatch):
    for peers, name in ((PEERS, "mmt"), (TRAINING_PEERS, "torch-flat")):
        monkeypatch.setitem(peers, name, dict(script="no_such_peer.py"))

    def no_environment(peer, *_):
        raise WorkerFailed("its environment is missing")

    monkeypatch.setattr("sage_jax.benchmark.config._peer", no_environment)
    monkeypatch.setattr(interleaved, "Worker", CannedWorker)
    monkeypatch.setattr(suite, "Worker", CannedWorker)
    monkeypatch.setattr(suite, "preprocess", lambda *_, **__: None)
    config, output = config_of("debug"), io.StringIO()
    measurements = measure(config, tmp_path, Console(file=output))
    assert "mmt: not measured" in output.getvalue() and not FakeWorker.open_workers
    measured = {(each.cell["table"], each.system): each for each in measurements if each.ok}
    assert set(measured) == {
        *(("main", name) for name in ("mha", "mha" + CONTROL, "as_kvhs-mixed-1", "nested-mqa")),
        *(("tiny", name) for name in ("mha", "mha" + CONTROL)),
        ("curve_context", "as_kvhs-mixed-1"),
        ("communication", "as_kvhs-mixed-1"),
    }
    assert [each.system for each in measurements if not each.ok] == ["mmt", "torch-flat"]

    report, plot = tmp_path / "BENCHMARKS.md", tmp_path / "benchmark.png"
    other = "## Of another config\n\n### Its table\n\nstays\n"
    report.write_text(f"# Benchmarks\n\n## Debug\n\nthe old part\n\n{other}")
    write_report(config, measurements, report, plot, "the command")
    text = report.read_text()
    assert "| mha |" in text and "Not measured: `mmt`" in text and "power law exponent 1.00" in text
    assert "p95 |" not in text and "speedup over mha" not in text  # too few events and turns
    assert "on cpu: canned runs" in text and "RTF |" not in text and "| TTFN, ms |" in text
    assert "Not measured: `torch-flat`" in text and "Weak scaling, rows per device: 1" in text and "| fsdp | 2 |" in text
    assert "Along fsdp 2, `as_kvhs-mixed-1`: a remark." in text
    assert "the old part" not in text and text.endswith(other)
    headings = [line for line in text.splitlines() if line.startswith(("# ", "## "))]
    assert headings == ["# Benchmarks", "## Debug", "## Of another config"]
    assert plot.stat().st_size > 10_000
    write_report(config, measurements, report, plot, "the command")
    assert report.read_text() == text

    def refuse(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(suite, "measure_cell", refuse)
    assert measure(config, tmp_path, Console(file=output)) == measurements
    assert f"measured before, see {tmp_path / MEASUREMENTS}" in output.getvalue()
    monkeypatch.setattr("sage_jax.environment.commit", lambda: "0123456")
    assert measure(config, tmp_path, Console(file=output)) == measurements
    assert "and this is 0123456; give another --output to measure it again" in output.getvalue()
    lines = (tmp_path / MEASUREMENTS).read_text().splitlines()
    assert [Measurement.from_json(json.loads(line)) for line in lines] == measurements


def test_a_report_with_enough_turns_has_ratios(tmp_path, monkeypatch):
    monkeypatch.setattr(interleaved, "Worker", CannedWorker)
    monkeypatch.setattr(suite, "Worker", CannedWorker)
    tables = dict(main=dict(systems=("mha", "as_kvhs-mixed-1"), contexts=(80,)))
    config = config_of("debug", tables=tables, rounds=21)
    config = dataclasses.replace(config, training={}, communication={**config.communication, "devices": ()})
    write_report(config, measure(config, tmp_path, Console(file=io.StringIO())), tmp_path / "r.md", tmp_path / "p.png", "")
    text = (tmp_path / "r.md").read_text()
    assert "| speedup over mha (95% CI) [predicted] | as_kvhs-mixed-1 over this row (95% CI) |" in text
    assert "1.00 (1.00 to 1.00) [1.00]" in text and "A/A: `mha` is 1.00" in text


def training(**change: Any) -> dict[str, Any]:
    return dict(training=dict(tiny={**get_config("debug").training.tiny.to_dict(), **change}))


def communication(**change: Any) -> dict[str, Any]:
    return dict(communication={**get_config("debug").communication.to_dict(), **change})


@pytest.mark.parametrize(
    ("change", "message"),
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
        (communication(batch=3), "config.communication.batch is 3; give a multiple of 2"),
        (communication(devices=(0,)), "config.communication.devices is 0"),
        (communication(axes=("data", "pipeline")), "config.communication.axes has 'pipeline'; choose from data, fsdp, tensor"),
        (dict(tables=dict(main=dict(systems=("mha", "as_kvhs-mixed-2")))), "needs a multiple of 20"),
    ],
)
def test_errors_name_the_field(change, message):
    with pytest.raises(UserError, match=message):
        config_of("debug", **change)


def test_cells_have_their_kinds():
    assert {type(cell) for cell in config_of("debug").cells()} == {DecodingCell, TrainingCell, CommunicationCell}
