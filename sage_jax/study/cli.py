"""What launch.study does with its flags."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sage_jax.errors import UserError
from sage_jax.files import ROOT, write_json
from sage_jax.study.collect import collect
from sage_jax.study.config import StudyConfig
from sage_jax.study.cost import training_cost
from sage_jax.study.report import write_report
from sage_jax.study.results import StudyResult, read_result
from sage_jax.study.study import preprocess_corpora, run_study
from sage_jax.study.trials import Evaluator

DOCS = ROOT / "docs"


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of launch.study, which documents them. command: the command line for the report."""

    workdir: str | None
    command: str
    report_only: bool = False
    worker: bool = False
    reuse: Sequence[str] = ()
    accept_code: bool = False
    from_json: str | None = None
    publish: bool = False


def print_cost(config: Mapping[str, Any], flops_per_second: float) -> None:
    """Prints the device hours of training. Raises UserError for a rate that is not above 0."""
    if not flops_per_second > 0:
        raise UserError(f"--flops_per_second is {flops_per_second}; give operations per second, such as 4e14")
    print(training_cost(StudyConfig.from_dict(config), flops_per_second))


def run(config: Mapping[str, Any], options: Options, say: Callable[[str], None]) -> None:
    """Does the study, or only what `options` selects, and writes its report. Raises UserError for a user's mistake."""
    if not options.workdir:
        raise UserError("--workdir is missing; name the folder of the study")
    workdir = pathlib.Path(options.workdir)
    result = _result(config, workdir, options, say)
    if result is None:
        return
    reports = [(workdir / "RESULTS.md", workdir / "results.png")]
    if options.publish:
        name = f"study-{result.title}"
        reports.append((DOCS / "results.md", DOCS / f"{name}.png"))
        write_json(DOCS / f"{name}.json", result.to_json(), indent=1)
    for report, figure in reports:
        write_report(result, report, figure)
        print(report)


def _result(
    config: Mapping[str, Any], workdir: pathlib.Path, options: Options, say: Callable[[str], None]
) -> StudyResult | None:
    """The result to report; None for a worker, which reports nothing."""
    if options.from_json:
        return read_result(pathlib.Path(options.from_json))
    study = StudyConfig.from_dict(config)
    if options.reuse or not options.report_only:  # what is reused must be of the same music
        preprocess_corpora(study, workdir)
    evaluator = Evaluator(study, workdir, [pathlib.Path(path) for path in options.reuse], options.accept_code)
    if not options.report_only:
        run_study(evaluator, say, options.worker)
        if options.worker:
            return None
    return collect(evaluator, options.command)
