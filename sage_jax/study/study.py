"""The study from its corpora to its results."""

import collections
import itertools
import pathlib
from collections.abc import Callable

from sage_jax.config import read_section
from sage_jax.corpus.preprocess import PreprocessConfig, preprocess
from sage_jax.corpus.shards import TokenShards
from sage_jax.errors import UserError
from sage_jax.files import claim
from sage_jax.study.collect import best_rates
from sage_jax.study.config import StudyConfig, Trial, Variant
from sage_jax.study.results import LrTrialResult
from sage_jax.study.speed import measure_speeds
from sage_jax.study.trials import SHARDS, Evaluator, run_trial, shards_folder, trial_folder, valid_loss
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.training.metric_logger import Diverged

EXTENSIONS = 2  # times that the learning rate search may go beyond an edge of the rates


def run_study(evaluator: Evaluator, say: Callable[[str], None], worker: bool = False) -> None:
    """Does the missing parts of the study in the evaluator's workdir. It can be stopped at any time; finished trials stay.

    Several processes may share the workdir: each trial is done by one of them. A `worker` takes the trials that no other
    process holds and measures no speed. A trial that cannot be done is reported and skipped. The corpora must be there, see
    `preprocess_corpora`.
    """
    config, workdir = evaluator.config, evaluator.workdir
    rates = find_rates(evaluator, say)
    trials = list(config.trials(rates))
    for place, trial in enumerate(trials):
        if evaluator.identity(trial) in evaluator.reused:
            continue
        progress = f"{place + 1} of {len(trials)}"
        try:
            with claim(trial_folder(workdir, trial), wait=not worker) as mine:
                if mine:
                    run_trial(trial, evaluator, lambda name, progress=progress: say(f"{progress}: {name}"))
        except UserError as error:  # for example a loss that is not finite, or more merges than the corpus gives
            say(f"{trial.name} is skipped: {error}")
    if not worker:
        measure_speeds(evaluator, say)


def preprocess_corpora(config: StudyConfig, workdir: pathlib.Path) -> None:
    """Makes the token shards of every corpus that lacks them. Raises UserError for a missing corpus."""
    tokenizer = read_section(NoteEvents, "tokenizer", config.run)
    limits = read_section(PreprocessConfig, "preprocess", config.run)
    for corpus, source in config.corpora.items():
        if source.startswith(f"{SHARDS}:"):
            TokenShards(shards_folder(config, workdir, corpus), "train", tokenizer)  # raises for missing or different shards
            continue
        with claim(workdir / "corpora", wait=True):
            preprocess(source, shards_folder(config, workdir, corpus), tokenizer, limits)


def find_rates(evaluator: Evaluator, say: Callable[[str], None]) -> dict[str, float]:
    """The learning rate of each family: the one with the lowest validation loss of the family's search system."""
    config = evaluator.config

    def loss_of(system: str, rate: float, wait: bool) -> float | None:
        """The validation loss; infinite for a run that diverged, None if another process holds the trial."""
        trial = Trial(Variant(system, config.lr_search_corpus), 0, rate)
        if isinstance(reused := evaluator.reused.get(evaluator.identity(trial)), LrTrialResult):
            return reused.loss
        try:
            with claim(trial_folder(evaluator.workdir, trial), wait) as mine:
                return valid_loss(run_trial(trial, evaluator, say)) if mine else None
        except Diverged as error:
            say(f"{system} at {rate:g}: {error}")
            return float("inf")

    # Several processes share the search: a trial that another one holds is put off, and waited for once no other is left.
    losses: dict[str, dict[float, float]] = {system: {} for system in config.lr_search_systems}
    most = len(config.learning_rates) + EXTENSIONS
    queue, held = collections.deque(itertools.product(config.lr_search_systems, config.learning_rates)), 0
    while queue:
        system, rate = queue.popleft()
        loss = loss_of(system, rate, wait=held > len(queue))
        if loss is None:
            queue.append((system, rate))
            held += 1
            continue
        held, tried = 0, losses[system]
        tried[rate] = loss
        if 1 < len(tried) < most and all(system != other for other, _ in queue):
            best = min(tried, key=lambda rate: tried[rate])
            if best in (min(tried), max(tried)):
                queue.append((system, best / 2 if best == min(tried) else 2 * best))
    trials = [LrTrialResult(system, rate, loss, "") for system, tried in losses.items() for rate, loss in tried.items()]
    return best_rates(config, trials)
