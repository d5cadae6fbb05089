"""Measures the cost of an evaluation without decoding: scores, statistics, memorization, intervals, and peak memory."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from sage_jax.benchmark.worker import peak_megabytes
from sage_jax.corpus.sources import list_corpus
from sage_jax.environment import describe
from sage_jax.evaluation import results
from sage_jax.evaluation.baselines import MarkovChain, next_bars, other_piece, repeat_prompt
from sage_jax.evaluation.memorization import longest_shared_ngrams
from sage_jax.evaluation.musicality import histograms
from sage_jax.evaluation.nmsi import CHUNK, score
from sage_jax.evaluation.prompts import Prompt, choose_prompts
from sage_jax.music.midi import read_midi
from sage_jax.tokenizers.note_events import NoteEvents

REPETITIONS = 20  # of the timing of one pair, and of one batch

Value = TypeVar("Value")


def measure(num_prompts: int, samples: int) -> list[str]:
    """Times each part of an evaluation of `num_prompts` prompts of the embedded corpus; returns one line for each.

    The scored continuations are those of the baselines, which have a realistic length and density. A Markov chain, sampled
    `samples` times, stands for a model.
    """
    tokenizer = NoteEvents()
    files = list_corpus("embedded")
    pieces = [tokenizer.quantize(read_midi(path, tokenizer.ticks_per_quarter)) for _, path in files]
    prompts, _ = choose_prompts([name for name, _ in files], pieces, num_prompts)
    prompts = [prompts[index % len(prompts)] for index in range(num_prompts)]
    seconds: dict[str, float] = {}

    def timed(name: str, function: Callable[[], Value]) -> Value:
        start = time.perf_counter()
        value = function()
        seconds[name] = time.perf_counter() - start
        return value

    chain = timed("Markov chain: fitting", lambda: MarkovChain(tokenizer, [tokenizer.encode(piece) for piece in pieces]))
    sampled = timed(
        f"Markov chain: {num_prompts} x {samples} continuations",
        lambda: [chain.continuations(prompts, sample) for sample in range(samples)],
    )
    system = [list(each) for each in zip(*sampled, strict=True)]
    functions = {"loop": repeat_prompt, "other": other_piece, "later": next_bars}
    baselines = {name: [[piece] for piece in function(prompts)] for name, function in functions.items()}
    continuations = {"system": system, **baselines, "markov": system}
    nmsi_lines = _time_nmsi(prompts)

    scored = timed(
        f"scoring {num_prompts} x {samples} and three baselines",
        lambda: {name: results.score(prompts, each) for name, each in continuations.items()},
    )
    timed("intervals, differences and power", lambda: (results.table(prompts, scored), results.differences(prompts, scored)))
    firsts = [each[0] for each in system]
    reference = histograms([prompt.reference for prompt in prompts])
    timed("descriptive statistics of the first samples", lambda: results.descriptive_statistics(prompts, firsts, reference))
    timed("memorization of the first samples", lambda: longest_shared_ngrams(pieces, firsts))

    total = sum(taken for name, taken in seconds.items() if not name.startswith("Markov"))
    return [
        ", ".join(f"{name} {value}" for name, value in describe().items()),
        *nmsi_lines,
        *(f"{name}: {taken:.1f} s" for name, taken in seconds.items()),
        f"total without sampling: {total:.1f} s; peak memory {peak_megabytes():,.0f} MB",
    ]


def _time_nmsi(prompts: Sequence[Prompt]) -> list[str]:
    """Times NMSI of the longest prompts, one pair at a time and in one batch."""
    bars = max(prompt.bars for prompt in prompts)
    longest = [prompt for prompt in prompts if prompt.bars == bars][:CHUNK]
    references, candidates = [prompt.reference for prompt in longest], other_piece(longest)
    score(references, candidates)  # warm-up
    single, batched = [], []
    for repetition in range(REPETITIONS):
        start = time.perf_counter()
        place = repetition % len(longest)
        score(references[place : place + 1], candidates[place : place + 1])
        single.append(1000 * (time.perf_counter() - start))
        start = time.perf_counter()
        score(references, candidates)
        batched.append(1000 * (time.perf_counter() - start) / len(longest))
    return [
        f"NMSI of one pair of {bars} bars: {_quartiles(single)}",
        f"NMSI of one pair of {bars} bars in a batch of {len(longest)}: {_quartiles(batched)}",
    ]


def _quartiles(milliseconds: Sequence[float]) -> str:
    low, high = np.percentile(milliseconds, [25, 75])
    return f"{statistics.median(milliseconds):.2f} ms (quartiles {low:.2f} to {high:.2f}, {len(milliseconds)} repetitions)"
