"""The study from its corpora to its results, in an order in which what is there first says most."""

import itertools
from collections.abc import Callable

import jax

from sage_jax.errors import UserError
from sage_jax.files import claim
from sage_jax.music.events import NoteEvents
from sage_jax.music.preprocess import PreprocessConfig, preprocess
from sage_jax.music.shards import TokenShards
from sage_jax.study.cells import MADE, Examiner, cell_folder, run_cell
from sage_jax.study.config import Cell, Row
from sage_jax.study.results import best_rates
from sage_jax.study.speed import measure_speeds
from sage_jax.training.config import read_section
from sage_jax.training.recorder import Diverged

SEARCHES = 2  # how often the best learning rate may be at the edge of those tried, and another one is tried beyond it


def run_study(examiner: Examiner, say: Callable[[str], None], helping: bool = False) -> None:
    """Does what is not yet done of the study in the examiner's workdir; what is finished stays, whenever it is stopped.

    Any number of processes may do it together: each cell is done by one of them. One that is `helping` takes the cells that no
    other one has taken, waits for none, and measures no speed. A cell that can't be is named and left out. Raises UserError for
    a corpus that is not there.
    """
    config, workdir = examiner.config, examiner.workdir
    # Seeds of a row are one program: what was compiled for one need not be for the next.
    jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    tokenizer = read_section(NoteEvents, "tokenizer", config.run)
    limits = read_section(PreprocessConfig, "preprocess", config.run)
    for corpus, source in config.corpora.items():
        if source.startswith(f"{MADE}:"):
            TokenShards(examiner.shards(corpus), "train", tokenizer)  # raises where they won't do
            continue
        with claim(workdir / "corpora", wait=True):
            preprocess(source, examiner.shards(corpus), tokenizer, limits)
    rates = find_rates(examiner, say)
    cells = list(config.cells(rates))
    for place, cell in enumerate(cells):
        if examiner.identity(cell) in examiner.known:
            continue
        try:
            with claim(cell_folder(workdir, cell), wait=not helping) as mine:
                if mine:
                    run_cell(cell, examiner, lambda name: say(f"{place + 1} of {len(cells)}: {name}"))
        except UserError as error:  # such as a loss that is not finite, or more merges than there are: the others go on
            say(f"{cell.name} is left out: {error}")
    if not helping:
        measure_speeds(examiner, say)


def find_rates(examiner: Examiner, say: Callable[[str], None]) -> dict[str, float]:
    """The learning rate of each family: the one with which its system has the lowest validation loss."""
    config = examiner.config

    def loss_of(system: str, rate: float, wait: bool = True) -> float | None:
        cell = Cell(Row(system, config.seek_on), 0, rate)
        if there := examiner.known.get(examiner.identity(cell)):
            return there["loss"]
        try:
            with claim(cell_folder(examiner.workdir, cell), wait) as mine:
                return run_cell(cell, examiner, say)["valid"]["loss"] if mine else None
        except Diverged as error:
            say(f"{system} at {rate:g}: {error}")
            return float("inf")

    # First what nobody has taken, so that several processes share it; then what is needed, whoever does it.
    search = {system: {} for system in config.seek_with}
    for system, rate in itertools.product(config.seek_with, config.learning_rates):
        search[system][rate] = loss_of(system, rate, wait=False)
    for system, losses in search.items():
        for rate in [rate for rate, loss in losses.items() if loss is None]:
            losses[rate] = loss_of(system, rate)
        for _ in range(SEARCHES):
            best = min(losses, key=losses.get)
            if len(losses) > 1 and best == max(losses):
                losses[2 * best] = loss_of(system, 2 * best)
            elif len(losses) > 1 and best == min(losses):
                losses[best / 2] = loss_of(system, best / 2)
    return best_rates(config, search)
