"""An estimate of the device hours that a study takes."""

from sage_jax.benchmark.roofline import training_operations
from sage_jax.config import RunConfig
from sage_jax.markdown import markdown_table
from sage_jax.study.config import StudyConfig, Variant


def training_cost(config: StudyConfig, flops_per_second: float) -> str:
    """A table of the device hours of training at this rate. A trial of several tables counts in the first one.

    Evaluation and the speed benchmark are not included.
    """
    counted: dict[Variant, int] = {}  # seeds in the tables so far
    rows, num_models, total_hours = [], 0, 0.0

    def add(name: str, models: dict[Variant, int], steps: int | None = None) -> None:
        nonlocal num_models, total_hours
        operations = sum(count * _operations(config, variant, steps) for variant, count in models.items())
        hours = operations / flops_per_second / 3600
        num_models, total_hours = num_models + sum(models.values()), total_hours + hours
        rows.append((name, f"{sum(models.values()):,}", f"{hours:,.1f}"))

    searched = {Variant(system, config.lr_search_corpus): len(config.learning_rates) for system in config.lr_search_systems}
    add("learning rates", searched, config.search_steps)
    for name in config.tables:
        new = {variant: config.seeds_of(name, variant) - counted.get(variant, 0) for variant in config.variants_of(name)}
        new = {variant: seeds for variant, seeds in new.items() if seeds > 0}
        add(name, new)
        counted |= {variant: config.seeds_of(name, variant) for variant in new}
    rows.append(("all", f"{num_models:,}", f"{total_hours:,.1f}"))
    return markdown_table(("table", "models", "device hours"), rows)


def _operations(config: StudyConfig, variant: Variant, steps: int | None) -> float:
    """Operations of training one model for `steps`, or its own steps if None. A float: the number may exceed int64."""
    run = RunConfig.from_dict(config.sections(variant))
    return float(steps or run.train.steps) * training_operations(run.model, run.train.batch_size, run.context)
