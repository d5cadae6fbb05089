"""From measurements to figures: milliseconds, rates, shares of what the device can do, and ratios."""

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from sage_jax.benchmark.ratios import CONTROL, Ratio, paired_ratio
from sage_jax.benchmark.roofline import training_operations
from sage_jax.benchmark.systems import REBUILT, TRAINING_PEERS, model_of

# The times that a percentile needs: so that at least ten lie beyond it.
LEAST_TIMES = {"p95": 200, "p99": 1000}
# A step must move so many times the bytes of the last-level cache, or else the cache and not memory may serve it.
WELL_OVER = 4


def summarise(
    line: Mapping[str, Any], reference: Mapping[str, Any] | None = None, featured: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The figures of one measurement of decoding: milliseconds, rates, and shares of the roofline.

    Shares are at the medians of time and of the device's rates; that of memory is left out where the model may lie in the
    processor's cache. speedup: the Ratio of the reference's median event in a turn to this system's; predicted: the same ratio
    of the bytes that both must move. of_featured: this system's to the featured one's. A ratio of too few turns is left out.
    """
    about, cell = line["about"], line["cell"]
    figures = milliseconds(line)
    p50 = figures["p50"]
    loops = [seconds for seconds in line.get("loop_seconds", ()) if seconds is not None]
    loop = statistics.median(loops) / cell["events"] if loops else p50 / 1000
    figures["notes_per_second"] = rate = cell["batch"] / loop
    figures["tokens_per_second"] = rate * about["tokens_per_note"]
    if None not in line["notes_drawn"]:
        figures["notes_drawn"] = sum(line["notes_drawn"]) / (cell["batch"] * sum(line["events_drawn"]))
    if "seconds_per_note" in about:
        figures["times_real_time"] = rate / cell["batch"] * about["seconds_per_note"]
    if prefills := [seconds for seconds in line["prefill_seconds"] if seconds is not None]:
        prefill = statistics.median(prefills)
        figures["prefill_events_per_second"] = cell["batch"] * (cell["context_events"] - cell["events"]) / prefill
        figures["first_note"] = 1000 * prefill + statistics.median(1000 * run[0] for run in line["seconds"])
    device = rates(line)
    if "step_bytes" in about:
        if reads_memory(about):
            figures["memory_share"] = about["step_bytes"] / device["bytes_per_second"] / p50 * 1000
        figures["arithmetic_share"] = about["step_operations"] / device["operations_per_second"] / p50 * 1000
    if reference is not None and reference is not line:
        figures["speedup"] = ratio(reference, line)
        same = line["system"].endswith(CONTROL)
        if not same and reads_memory(about) and reads_memory(reference["about"]):
            figures["predicted"] = reference["about"]["step_bytes"] / about["step_bytes"]
    if featured is not None and featured is not line:
        figures["of_featured"] = ratio(line, featured)
    return {name: figure for name, figure in figures.items() if figure is not None}


def reads_memory(about: Mapping[str, Any]) -> bool:
    """Whether a decoder's step must move far more bytes than the last-level cache has; true where that is not known."""
    cache = about.get("last_level_cache_bytes")
    return "step_bytes" in about and (cache is None or about["step_bytes"] >= WELL_OVER * cache)


def summarise_training(
    line: Mapping[str, Any], reference: Mapping[str, Any] | None = None, peer: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The figures of one measurement of training, at the median step; rates are those of one device.

    mfu: model-FLOP utilisation (PaLM, arXiv 2204.02311, appendix B): the operations that the model needs, as
    `roofline.training_operations` counts them, over what the device would do in that time at the measured rate of its matrix
    products. speedup, of_peer: how many times as fast as the reference, as the peer, as a Ratio; left out for too few turns.
    read_share: the time in which the loader draws a batch, with nothing else to do, over a step. loading: by how much a step of
    the training loop takes longer with the loader's batches than with one that is there already, as a share of it.
    """
    about, cell = line["about"], line["cell"]
    figures = milliseconds(line)
    seconds = figures["p50"] / 1000 * about["devices"]  # of one device
    system = line["system"].removesuffix(CONTROL)
    system = REBUILT if system in TRAINING_PEERS else system
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
    return {name: figure for name, figure in figures.items() if figure is not None}


def milliseconds(line: Mapping[str, Any]) -> dict[str, float]:
    """p50 of what was timed, an event or a step, in all counted rounds; p95 and p99 where LEAST_TIMES were, max beside p99."""
    times = [1000 * second for run in line["seconds"] for second in run]
    figures = {"p50": float(np.median(times)), "times": len(times)}
    for name, least in LEAST_TIMES.items():
        if len(times) >= least:
            figures[name] = float(np.percentile(times, float(name[1:])))
    if "p99" in figures:
        figures["max"] = max(times)
    return figures


def rates(line: Mapping[str, Any]) -> dict[str, float]:
    """The device's bytes_per_second and operations_per_second, medians over the probes."""
    return {name: statistics.median(values) for name, values in line["device"].items()}


def ratio(slower: Mapping[str, Any], faster: Mapping[str, Any]) -> Ratio | None:
    """How many times as fast one line is as the other, by the median of what was timed in a turn; None for too few turns."""
    in_turns = lambda line: [statistics.median(run) for run in line["seconds"]]
    return paired_ratio(in_turns(slower), in_turns(faster))


def loop_ratio(slower: Mapping[str, Any], faster: Mapping[str, Any]) -> Ratio | None:
    """The same by the compiled loop, which draws all events of a turn in one call: the ratio of events per second."""
    an_event = lambda line: [seconds / line["cell"]["events"] for seconds in line["loop_seconds"]]
    return paired_ratio(an_event(slower), an_event(faster))
