"""From measurements to figures: milliseconds, rates, shares of what the device can do, and ratios."""

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from sage_jax.benchmark.roofline import training_operations
from sage_jax.benchmark.systems import REBUILT, TRAINING_PEERS, model_of


def summarise(
    line: Mapping[str, Any], reference: Mapping[str, Any] | None = None, featured: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The figures of one measurement of decoding: milliseconds, rates, and shares of the roofline.

    Shares are at the medians of time and of the device's rates. speedup: median and quartiles, over the rounds, of the
    reference's median note over this system's in the same round; predicted: the same ratio of the bytes that both must move.
    behind: this system's over the featured one's.
    """
    about, cell = line["about"], line["cell"]
    figures = milliseconds(line)
    p50 = figures["p50"]
    loop = statistics.median(line["loop_seconds"]) / cell["events"] if "loop_seconds" in line else p50 / 1000
    figures["notes_per_second"] = rate = cell["batch"] / loop
    figures["tokens_per_second"] = rate * about["tokens_per_note"]
    if "seconds_per_note" in about:
        figures["times_real_time"] = rate / cell["batch"] * about["seconds_per_note"]
    if prefills := [seconds for seconds in line["prefill_seconds"] if seconds is not None]:
        prefill = statistics.median(prefills)
        figures["prefill_events_per_second"] = cell["batch"] * (cell["context_events"] - cell["events"]) / prefill
        figures["first_note"] = 1000 * prefill + statistics.median(1000 * run[0] for run in line["seconds"])
    device = rates(line)
    if "step_bytes" in about:
        figures["memory_share"] = about["step_bytes"] / device["bytes_per_second"] / p50 * 1000
        figures["arithmetic_share"] = about["step_operations"] / device["operations_per_second"] / p50 * 1000
    if reference is not None and reference is not line:
        figures["speedup"] = ratio(reference, line)
        if "step_bytes" in about and "step_bytes" in reference["about"]:
            figures["predicted"] = reference["about"]["step_bytes"] / about["step_bytes"]
    if featured is not None and featured is not line:
        figures["behind"] = ratio(line, featured)
    return figures


def summarise_training(
    line: Mapping[str, Any], reference: Mapping[str, Any] | None = None, peer: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The figures of one measurement of training, at the median step; rates are those of one device.

    mfu: model-FLOP utilisation (PaLM, arXiv 2204.02311, appendix B): the operations that the model needs, as
    `roofline.training_operations` counts them, over what the device would do in that time at the measured rate of its matrix
    products. speedup, of_peer: median and quartiles, over the rounds, of how many times as fast as the reference, as the peer.
    read_share: the time in which the loader draws a batch, with nothing else to do, over a step. loading: by how much a step of
    the training loop takes longer with the loader's batches than with one that is there already, as a share of it.
    """
    about, cell = line["about"], line["cell"]
    figures = milliseconds(line)
    seconds = figures["p50"] / 1000 * about["devices"]  # of one device
    system = REBUILT if line["system"] in TRAINING_PEERS else line["system"]
    operations = training_operations(model_of(system, cell["model"], cell["dtype"]), cell["batch"], cell["events"])
    figures["tokens_per_second"], figures["notes_per_second"] = about["tokens"] / seconds, about["notes"] / seconds
    figures["mfu"] = operations / seconds / rates(line)["operations_per_second"]
    if "read_seconds" in line:
        figures["read_share"] = 1000 * statistics.median(line["read_seconds"]) / figures["p50"]
        loops = zip(line["loaded_loop_seconds"], line["loop_seconds"], strict=True)
        figures["loading"] = statistics.median(loaded / alone for loaded, alone in loops) - 1
    if reference is not None and reference is not line:
        figures["speedup"] = ratio(reference, line)
    if peer is not None and peer is not line:
        figures["of_peer"] = ratio(peer, line)
    return figures


def milliseconds(line: Mapping[str, Any]) -> dict[str, float]:
    """p50, p95, p99 and max of what was timed, a note or a step, in all counted rounds; and times, how many they are."""
    times = [1000 * second for run in line["seconds"] for second in run]
    p50, p95, p99 = (float(np.percentile(times, q)) for q in (50, 95, 99))
    return dict(p50=p50, p95=p95, p99=p99, max=max(times), times=len(times))


def rates(line: Mapping[str, Any]) -> dict[str, float]:
    """The device's bytes_per_second and operations_per_second, medians over the probes."""
    return {name: statistics.median(values) for name, values in line["device"].items()}


def ratio(slower: Mapping[str, Any], faster: Mapping[str, Any]) -> list[float]:
    """How many times as fast: of the median times of a round the ratio's median over the rounds, and its quartiles."""
    rounds = zip(slower["seconds"], faster["seconds"], strict=True)
    ratios = [statistics.median(long) / statistics.median(short) for long, short in rounds]
    return [float(np.percentile(ratios, q)) for q in (50, 25, 75)]
