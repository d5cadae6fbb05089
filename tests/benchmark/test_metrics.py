"""Metrics of hand-made measurements, and the intervals of ratios."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from sage_jax.benchmark.measurement import Measurement
from sage_jax.benchmark.metrics import decoding_metrics, loop_ratio, training_metrics
from sage_jax.benchmark.ratios import CONTROL, MIN_TURNS, Ratio, paired_ratio
from sage_jax.benchmark.report_section import control
from sage_jax.benchmark.roofline import training_operations
from sage_jax.errors import UserError
from sage_jax.models.presets import model_config


def decoding_measurement(
    turns: int, events: int = 10, seconds: float = 0.01, system: str = "mqa", **metadata: Any
) -> Measurement:
    """`turns` turns of constant times: `seconds` per event one by one, 8 ms in the loop."""
    defaults = dict(tokens_per_note=5, step_bytes=5_000_000, step_operations=10_000_000, seconds_per_note=0.5)
    return Measurement(
        system=system,
        cell=dict(table="main", batch=2, context_events=100 + events, events=events),
        commit="abc",
        metadata={**defaults, **metadata},
        device=dict(bytes_per_second=[1e9] * turns, operations_per_second=[1e10] * turns),
        seconds=[[seconds] * events] * turns,
        prefill_seconds=[0.5] * turns,
        loop_seconds=[0.008 * events] * turns,
        events_drawn=[events] * turns,
        notes_drawn=[2 * events - 1] * turns,
    )


def test_a_measurement_survives_json():
    measurement = decoding_measurement(2)
    assert Measurement.from_json(measurement.to_json()) == measurement
    failed = Measurement("mha", {"table": "main"}, "abc", error="no such thing")
    assert failed.to_json() == dict(system="mha", cell={"table": "main"}, commit="abc", error="no such thing")
    assert measurement.ok and not failed.ok
    with pytest.raises(UserError, match=r"another version .*; choose another --output"):
        Measurement.from_json({"system": "mha", "about": {}})


def test_metrics_of_decoding():
    measurement = decoding_measurement(20)
    slow = decoding_measurement(20, seconds=0.02, step_bytes=10_000_000)
    metrics = decoding_metrics(measurement, slow, measurement)
    assert metrics["p50"] == metrics["p95"] == 10 and metrics["samples"] == 200 and metrics["note_share"] == 19 / 20
    assert metrics["notes_per_second"] == 2 / 0.008 and metrics["tokens_per_second"] == 5 * 2 / 0.008
    assert metrics["rtf"] == 0.5 / 0.008  # of each row
    assert metrics["prefill_events_per_second"] == 2 * 100 / 0.5 and metrics["ttfn"] == 510
    assert metrics["memory_share"] == pytest.approx(0.5) and metrics["arithmetic_share"] == pytest.approx(0.1)
    assert metrics["speedup"] == Ratio(2, 2, 2, 20) and metrics["predicted_speedup"] == 2
    assert "inverse_speedup" not in metrics
    assert decoding_metrics(slow, slow, measurement)["inverse_speedup"] == Ratio(2, 2, 2, 20)


def test_metrics_without_enough_data_are_left_out():
    few, many = decoding_measurement(MIN_TURNS - 1), decoding_measurement(20, 50)
    metrics = decoding_metrics(few, decoding_measurement(19), decoding_measurement(19))
    assert not {"p95", "p99", "max", "speedup", "inverse_speedup"} & metrics.keys()
    assert {"p95", "p99", "max"} <= decoding_metrics(many).keys()
    assert "p99" not in decoding_metrics(decoding_measurement(20, 49))
    in_cache = decoding_measurement(20, last_level_cache_bytes=1_250_001)
    above_cache = decoding_measurement(20, last_level_cache_bytes=1_250_000)
    assert "memory_share" not in decoding_metrics(in_cache)
    assert decoding_metrics(above_cache)["memory_share"] == pytest.approx(0.5)
    metrics = decoding_metrics(in_cache, decoding_measurement(20))
    assert "predicted_speedup" not in metrics and "arithmetic_share" in metrics


def test_the_interval_of_a_ratio_covers_the_ratio():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(200):
        turn = rng.lognormal(0, 0.5, 20)  # slows a whole turn, and cancels out
        slow, fast = 1.3 * turn * rng.lognormal(0, 0.1, 20), turn * rng.lognormal(0, 0.1, 20)
        ratio = paired_ratio(slow, fast)
        assert ratio is not None
        covered += ratio.low <= 1.3 <= ratio.high
        assert 1 < ratio.low < ratio.value < ratio.high < 1.7 and ratio.turns == 20
    assert 0.9 < covered / 200 <= 1
    assert paired_ratio(slow[:19], fast[:19]) is None
    assert ratio.excludes_one and not Ratio(1.0, 0.9, 1.1, 20).excludes_one
    assert ratio.over(2) == Ratio(ratio.value / 2, ratio.low / 2, ratio.high / 2, 20)


def test_a_loop_ratio_is_the_ratio_of_events_per_second():
    flat = dataclasses.replace(decoding_measurement(20), cell=dict(events=40), loop_seconds=[2.0] * 20)
    stream = dataclasses.replace(decoding_measurement(20), cell=dict(events=200), loop_seconds=[2.5] * 20)
    ratio = loop_ratio(flat, stream)
    assert ratio is not None and ratio.over(4.0).value == pytest.approx((200 / 2.5) / 4.0 / (40 / 2.0))  # 4 steps per note


def test_a_table_reports_an_aa_control_that_failed():
    first, second = decoding_measurement(20, system="mha"), decoding_measurement(20, system="mha" + CONTROL)
    sentence = "A/A: `mha` is 1.00 (1.00 to 1.00) times as fast as itself, over 20 turns."
    assert control([first, second], "mha") == [sentence]
    slow = decoding_measurement(20, seconds=0.011, system="mha" + CONTROL)
    assert "the method failed" in control([first, slow], "mha")[0]
    assert control([first], "mha") == [] and control([decoding_measurement(20)], "mha") == []


def test_metrics_of_training():
    model = dict(embed_dim=32, num_layers=2, num_heads=40, head_dim=2, mlp_dim=48)
    measurement = Measurement(
        system="mha",
        cell=dict(batch=2, events=16, model=model, dtype="float32"),
        commit="abc",
        metadata=dict(devices=2, tokens=100, notes=20),
        device=dict(bytes_per_second=[1e9], operations_per_second=[1e9]),
        seconds=[[0.1] * 3] * 20,
        loop_seconds=[0.1, 0.1],
        loaded_loop_seconds=[0.101, 0.103],
        read_seconds=[0.001, 0.003],
    )
    no_loops = dict(loop_seconds=[], loaded_loop_seconds=[], read_seconds=[])
    peer = dataclasses.replace(measurement, system="torch-flat", seconds=[[0.2] * 3] * 20, **no_loops)
    metrics = training_metrics(measurement, measurement, peer)
    assert metrics["tokens_per_second"] == pytest.approx(500) and metrics["notes_per_second"] == pytest.approx(100)
    operations = training_operations(model_config("mha", model, "float32"), 2, 16)
    assert metrics["mfu"] == pytest.approx(operations / 2 / 0.1 / 1e9)
    assert metrics["data_loading"] == pytest.approx(0.02) and metrics["loader_overhead"] == pytest.approx(0.02)
    assert metrics["peer_speedup"] == Ratio(2, 2, 2, 20) and "speedup" not in metrics
    metrics = training_metrics(peer, measurement, peer)  # the same model, so the same operations
    assert metrics["mfu"] == pytest.approx(operations / 2 / 0.2 / 1e9)
    assert metrics["speedup"] == Ratio(0.5, 0.5, 0.5, 20)
    assert not {"peer_speedup", "data_loading", "loader_overhead"} & set(metrics)
