"""What a study costs, before it is begun."""

from sage_jax.benchmark.roofline import training_operations
from sage_jax.markdown import markdown_table
from sage_jax.study.config import Row, StudyConfig
from sage_jax.training.config import RunConfig


def cost(config: StudyConfig, operations_per_second: float) -> str:
    """A table of the device hours that training takes at such a rate; a row of several tables counts in the first one alone.

    What is asked of the models, and their speed, comes on top of it.
    """
    known: dict[Row, int] = {}  # the seeds that are paid for
    lines, total = [], [0, 0.0]

    def add(name: str, rows: dict[Row, int], steps: int | None = None) -> None:
        models = sum(rows.values())
        hours = sum(count * _operations(config, row, steps) for row, count in rows.items()) / operations_per_second / 3600
        total[0], total[1] = total[0] + models, total[1] + hours
        lines.append((name, f"{models:,}", f"{hours:,.1f}"))

    tried = len(config.learning_rates)
    add("learning rates", {Row(system, config.seek_on): tried for system in config.seek_with}, config.search_steps)
    for name, table in config.tables.items():
        fresh = {row: table["seeds"] - known.get(row, 0) for row in config.rows_of(name)}
        fresh = {row: seeds for row, seeds in fresh.items() if seeds > 0}
        add(name, fresh)
        known |= {row: table["seeds"] for row in fresh}
    lines.append(("all", f"{total[0]:,}", f"{total[1]:,.1f}"))
    return markdown_table(("table", "models", "device hours"), lines)


def _operations(config: StudyConfig, row: Row, steps: int | None) -> float:
    """Of training one model of a row, for its own steps if not told; floating-point, as its size would overflow some integers."""
    run = RunConfig.from_dict(config.sections(row))
    return float(steps or run.train.steps) * training_operations(run.model, run.train.batch_size, run.context)
