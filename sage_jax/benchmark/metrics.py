"""Metrics of measurements: milliseconds, rates, shares of the roofline, and ratios."""

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from sage_jax.benchmark.measurement import Measurement
from sage_jax.benchmark.peers import TORCH_COUNTERPART, TRAINING_PEERS
from sage_jax.benchmark.ratios import CONTROL, Ratio, paired_ratio
from sage_jax.benchmark.roofline import training_operations
from sage_jax.models.presets import model_config

# The samples that a percentile needs, so that at least ten lie above it.
MIN_SAMPLES = {"p95": 200, "p99": 1000}
# The memory roofline holds if a step moves at least this multiple of the last-level cache; less may be served by the cache.
MIN_CACHE_MULTIPLE = 4


def decoding_metrics(
    measurement: Measurement, reference: Measurement | None = None, highlighted: Measurement | None = None
) -> dict[str, Any]:
    """The metrics of a measurement of decoding. Those without enough data are left out.

    p50, p95, p99, max: milliseconds per event; samples: their number.
    notes_per_second, tokens_per_second: of the compiled loop if there is one, else at p50.
    note_share: notes per event drawn. rtf: real-time factor, seconds of music per second and row.
    prefill_events_per_second. ttfn: milliseconds to the first note, prefill included.
    memory_share, arithmetic_share: of the rooflines, at the medians. memory_share needs `exceeds_cache`.
    speedup: Ratio over the reference, by the median event of a turn; predicted_speedup: the ratio of the bytes that they move.
    inverse_speedup: Ratio of the highlighted system over this one.
    """
    metadata, cell = measurement.metadata, measurement.cell
    metrics: dict[str, Any] = milliseconds(measurement)
    p50 = metrics["p50"]
    loops = [seconds for seconds in measurement.loop_seconds if seconds is not None]
    seconds_per_event = statistics.median(loops) / cell["events"] if loops else p50 / 1000
    metrics["notes_per_second"] = rate = cell["batch"] / seconds_per_event
    metrics["tokens_per_second"] = rate * metadata["tokens_per_note"]
    notes = [count for count in measurement.notes_drawn if count is not None]
    if len(notes) == len(measurement.events_drawn):
        metrics["note_share"] = sum(notes) / (cell["batch"] * sum(measurement.events_drawn))
    if "seconds_per_note" in metadata:
        metrics["rtf"] = rate / cell["batch"] * metadata["seconds_per_note"]
    if prefills := [seconds for seconds in measurement.prefill_seconds if seconds is not None]:
        prefill = statistics.median(prefills)
        metrics["prefill_events_per_second"] = cell["batch"] * (cell["context_events"] - cell["events"]) / prefill
        metrics["ttfn"] = 1000 * prefill + statistics.median(1000 * turn[0] for turn in measurement.seconds)
    device = device_rates(measurement)
    if "step_bytes" in metadata:
        if exceeds_cache(metadata):
            metrics["memory_share"] = metadata["step_bytes"] / device["bytes_per_second"] / p50 * 1000
        metrics["arithmetic_share"] = metadata["step_operations"] / device["operations_per_second"] / p50 * 1000
    if reference is not None and reference is not measurement:
        metrics["speedup"] = step_ratio(reference, measurement)
        is_control = measurement.system.endswith(CONTROL)
        if not is_control and exceeds_cache(metadata) and exceeds_cache(reference.metadata):
            metrics["predicted_speedup"] = reference.metadata["step_bytes"] / metadata["step_bytes"]
    if highlighted is not None and highlighted is not measurement:
        metrics["inverse_speedup"] = step_ratio(measurement, highlighted)
    return {name: value for name, value in metrics.items() if value is not None}


def exceeds_cache(metadata: Mapping[str, Any]) -> bool:
    """Whether a decode step moves far more bytes than the last-level cache holds; true if the cache's size is unknown."""
    cache = metadata.get("last_level_cache_bytes")
    return "step_bytes" in metadata and (cache is None or metadata["step_bytes"] >= MIN_CACHE_MULTIPLE * cache)


def training_metrics(
    measurement: Measurement, reference: Measurement | None = None, peer: Measurement | None = None
) -> dict[str, Any]:
    """The metrics of a measurement of training, at the median step and per device. Those without enough data are left out.

    p50, p95, p99, max: milliseconds per step; samples: their number. tokens_per_second, notes_per_second.
    mfu: model-FLOP utilization (PaLM, arXiv 2204.02311, appendix B) with the operations of `roofline.training_operations` and
      the measured rate of matrix products instead of the data sheet's.
    data_loading: the loader's seconds per batch, alone, over a step's.
    loader_overhead: the additional time of a step with the loader's batches, over that with a batch that is ready.
    speedup, peer_speedup: Ratio over the reference and over the peer.
    """
    metadata, cell = measurement.metadata, measurement.cell
    metrics: dict[str, Any] = milliseconds(measurement)
    seconds = metrics["p50"] / 1000 * metadata["devices"]  # device seconds
    system = measurement.system.removesuffix(CONTROL)
    system = TORCH_COUNTERPART if system in TRAINING_PEERS else system
    operations = training_operations(model_config(system, cell["model"], cell["dtype"]), cell["batch"], cell["events"])
    metrics["tokens_per_second"], metrics["notes_per_second"] = metadata["tokens"] / seconds, metadata["notes"] / seconds
    metrics["mfu"] = operations / seconds / device_rates(measurement)["operations_per_second"]
    if measurement.read_seconds:
        metrics["data_loading"] = 1000 * statistics.median(measurement.read_seconds) / metrics["p50"]
        loops = zip(measurement.loaded_loop_seconds, _known(measurement.loop_seconds), strict=True)
        metrics["loader_overhead"] = statistics.median(loaded / alone for loaded, alone in loops) - 1
    if reference is not None and reference is not measurement:
        metrics["speedup"] = step_ratio(reference, measurement)
    if peer is not None and peer is not measurement:
        metrics["peer_speedup"] = step_ratio(peer, measurement)
    return {name: value for name, value in metrics.items() if value is not None}


def milliseconds(measurement: Measurement) -> dict[str, float]:
    """p50 of the timed events or steps of all counted rounds, and `samples`; p95 and p99 with MIN_SAMPLES; max with p99."""
    times = [1000 * second for turn in measurement.seconds for second in turn]
    metrics = {"p50": float(np.median(times)), "samples": len(times)}
    for name, minimum in MIN_SAMPLES.items():
        if len(times) >= minimum:
            metrics[name] = float(np.percentile(times, float(name[1:])))
    if "p99" in metrics:
        metrics["max"] = max(times)
    return metrics


def device_rates(measurement: Measurement) -> dict[str, float]:
    """The device's bytes_per_second and operations_per_second, medians over the probes."""
    return {name: statistics.median(values) for name, values in measurement.device.items()}


def step_ratio(slower: Measurement, faster: Measurement) -> Ratio | None:
    """The speedup of `faster` by the median timed event or step of a turn; None for too few turns."""
    medians = lambda measurement: [statistics.median(turn) for turn in measurement.seconds]
    return paired_ratio(medians(slower), medians(faster))


def loop_ratio(slower: Measurement, faster: Measurement) -> Ratio | None:
    """The speedup of `faster` in events per second of the compiled loop; None for too few turns."""
    per_event = lambda measurement: [
        seconds / measurement.cell["events"] for seconds in _known(measurement.loop_seconds)
    ]
    return paired_ratio(per_event(slower), per_event(faster))


def _known(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]
