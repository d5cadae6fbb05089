"""How long an evaluation takes apart from decoding: scores, character, memory and intervals, and the memory they need.

  python -m sage_jax.benchmark.evaluation                  2,000 prompts of the embedded corpus, 4 samples of each
  python -m sage_jax.benchmark.evaluation --prompts=20

What is scored are the floors' continuations (a Markov chain's, drawn anew for each sample), of real length and density.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from sage_jax.benchmark.worker import peak_megabytes
from sage_jax.environment import describe
from sage_jax.evaluation import results
from sage_jax.evaluation.floors import MarkovChain, later, loop, other
from sage_jax.evaluation.memorisation import longest_shared_runs
from sage_jax.evaluation.musicality import histograms
from sage_jax.evaluation.nmsi import score
from sage_jax.evaluation.prompts import choose_prompts
from sage_jax.music.corpus import list_corpus
from sage_jax.music.events import NoteEvents
from sage_jax.music.midi import read_midi

RUNS = 20  # of one pair alone, and of one batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=4)
    arguments = parser.parse_args()
    for line in measure(arguments.prompts, arguments.samples):
        print(line)


def measure(wanted: int, samples: int) -> list[str]:
    """A line for each thing that was timed."""
    tokenizer = NoteEvents()
    files = list_corpus("embedded")
    pieces = [tokenizer.quantize(read_midi(path, tokenizer.ticks_per_quarter)) for _, path in files]
    prompts, _ = choose_prompts([name for name, _ in files], pieces, wanted)
    prompts = [prompts[index % len(prompts)] for index in range(wanted)]
    seconds: dict[str, float] = {}

    def timed(name: str, function: Callable):
        began = time.perf_counter()
        value = function()
        seconds[name] = time.perf_counter() - began
        return value

    chain = timed("Markov chain: learning", lambda: MarkovChain(tokenizer, [tokenizer.encode(piece) for piece in pieces]))
    drawn = timed(
        f"Markov chain: {wanted} x {samples} continuations",
        lambda: [chain.continuations(prompts, sample) for sample in range(samples)],
    )
    system = [list(takes) for takes in zip(*drawn, strict=True)]
    floors = {name: [[piece] for piece in made(prompts)] for name, made in (("loop", loop), ("other", other), ("later", later))}

    most = max(prompt.bars for prompt in prompts)
    longest = [prompt for prompt in prompts if prompt.bars == most][:128]
    truth, candidates = [prompt.reference for prompt in longest], other(longest)
    score(truth, candidates)
    alone, together = [], []
    for run in range(RUNS):
        began = time.perf_counter()
        place = run % len(truth)
        score(truth[place : place + 1], candidates[place : place + 1])
        alone.append(1000 * (time.perf_counter() - began))
        began = time.perf_counter()
        score(truth, candidates)
        together.append(1000 * (time.perf_counter() - began) / len(longest))

    scored = timed(
        f"scoring {wanted} x {samples} and three floors",
        lambda: {name: results.score(prompts, made) for name, made in {"system": system, **floors, "markov": system}.items()},
    )
    timed("intervals, differences and power", lambda: (results.table(prompts, scored), results.differences(prompts, scored)))
    firsts = [takes[0] for takes in system]
    counts = histograms([prompt.reference for prompt in prompts])
    timed("character of the first samples", lambda: results.character(prompts, firsts, counts))
    timed("memory of the first samples", lambda: longest_shared_runs(pieces, firsts))

    versions = ", ".join(f"{name} {value}" for name, value in describe().items())
    total = sum(taken for name, taken in seconds.items() if not name.startswith("Markov"))
    spread = lambda values: "{:.2f} ms (quartiles {:.2f} to {:.2f}, {} runs)".format(
        statistics.median(values), *np.percentile(values, [25, 75]), len(values)
    )
    return [
        versions,
        f"NMSI of one pair of {most} bars alone: {spread(alone)}",
        f"NMSI of one pair of {most} bars in a batch of {len(longest)}: {spread(together)}",
        *(f"{name}: {taken:.1f} s" for name, taken in seconds.items()),
        f"apart from drawing: {total:.1f} s; peak memory {peak_megabytes():,.0f} MB",
    ]


if __name__ == "__main__":
    main()
