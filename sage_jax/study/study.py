"""The study from its corpora to its results, in an order in which what is there first says most."""

import pathlib
from collections.abc import Callable

import jax

from sage_jax.errors import UserError
from sage_jax.files import claim
from sage_jax.music.events import NoteEvents
from sage_jax.music.preprocess import PreprocessConfig, preprocess
from sage_jax.study.cells import Examiner, cell_folder, run_cell
from sage_jax.study.config import Cell, Row, StudyConfig
from sage_jax.study.results import best_rates
from sage_jax.study.speed import measure_speeds
from sage_jax.training.config import read_section
from sage_jax.training.recorder import Diverged

SEARCHES = 2  # how often the best learning rate may be at the edge of those tried, and another one is tried beyond it


def run_study(config: StudyConfig, workdir: pathlib.Path, say: Callable[[str], None], helping: bool = False) -> None:
    """Does what is not yet done of the study in `workdir`; what is finished stays, whenever it is stopped.

    Any number of processes may do it together: each cell is done by one of them. One that is `helping` takes the cells that no
    other one has taken, waits for none, and measures no speed. A cell that can't be is told and left out. Raises UserError for
    a corpus that is not there.
    """
    # Seeds of a row are one program: what was compiled for one need not be for the next.
    jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    examiner = Examiner(config, workdir)
    tokenizer = read_section(NoteEvents, "tokenizer", config.run)
    limits = read_section(PreprocessConfig, "preprocess", config.run)
    for corpus, source in config.corpora.items():
        with claim(workdir / "corpora", wait=True):
            preprocess(source, examiner.shards(corpus), tokenizer, limits)
    rates = find_rates(config, examiner, say)
    cells = list(config.cells(rates))
    for place, cell in enumerate(cells):
        try:
            with claim(cell_folder(workdir, cell), wait=not helping) as mine:
                if mine:
                    run_cell(config, cell, examiner, lambda name: say(f"{place + 1} of {len(cells)}: {name}"))
        except UserError as error:  # such as a loss that is not finite, or more merges than there are: the others go on
            say(f"{cell.name} is left out: {error}")
    if not helping:
        measure_speeds(config, examiner, say)


def find_rates(config: StudyConfig, examiner: Examiner, say: Callable[[str], None]) -> dict[str, float]:
    """The learning rate of each family: the one with which its system has the lowest validation loss."""
    search = {}
    for system in config.seek_with:
        losses = search[system] = {}

        def try_rate(rate: float) -> None:
            cell = Cell(Row(system, config.seek_on), 0, rate)
            try:
                with claim(cell_folder(examiner.workdir, cell), wait=True):
                    result = run_cell(config, cell, examiner, say)
                losses[rate] = result["valid"]["loss"]
            except Diverged as error:
                say(f"{system} at {rate:g}: {error}")
                losses[rate] = float("inf")

        for rate in config.learning_rates:
            try_rate(rate)
        for _ in range(SEARCHES):
            best = min(losses, key=losses.get)
            if len(losses) > 1 and best == max(losses):
                try_rate(2 * best)
            elif len(losses) > 1 and best == min(losses):
                try_rate(best / 2)
    return best_rates(config, search)
