"""Which results of other workdirs, and of earlier code, may count in a study. All others are refused by name."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from sage_jax.config import MUTABLE_ON_RESUME, diff
from sage_jax.errors import UserError
from sage_jax.study.code import code_fingerprint
from sage_jax.study.results import StudyResult, read_result


def read_others(
    paths: Sequence[pathlib.Path],
    music: Mapping[str, str],
    run: Mapping[str, Mapping[str, Any]],
    evaluation: Mapping[str, Any],
    accept_code: bool,
) -> list[StudyResult]:
    """The results in JSON files of studies.

    music: the fingerprint of each corpus. run: the sections that all trials share. evaluation: the fields of EvaluationConfig.
    Raises UserError, naming the file and what differs, for a result of other music, settings or code.
    """
    results = []
    for path in paths:
        result = read_result(path)
        if difference := _first_difference(result, music, run, evaluation):
            raise UserError(f"{path} has {difference}; leave it out of --reuse, or give its config")
        check_code(path, {trial.code for trial in result.trials}, accept_code)
        results.append(result)
    return results


def check_code(source: pathlib.Path, codes: set[str], accept_code: bool) -> None:
    """Raises UserError, naming `source`, if one of `codes` is not the fingerprint of this code and `accept_code` is false."""
    if not accept_code and codes - {code_fingerprint()}:
        raise UserError(
            f"{source} was made by other code than this; remove it to train again, or give --accept_code if the changes since "
            "then do not matter"
        )


def _first_difference(
    result: StudyResult, music: Mapping[str, str], run: Mapping[str, Mapping[str, Any]], evaluation: Mapping[str, Any]
) -> str:
    """What differs, in words; "" for nothing."""
    for corpus, fingerprint in music.items():
        if result.music.get(corpus, fingerprint) != fingerprint:
            return f"other music in its corpus {corpus}"
    changed = {f"run.{name}": values for name, values in diff(result.run, run).items()}
    changed |= diff({"evaluation": result.evaluation}, {"evaluation": evaluation})
    for name, (theirs, ours) in changed.items():
        field = name.removeprefix("run.")
        # None: a field that is new, or that the result does not keep.
        if None not in (theirs, ours) and (field not in MUTABLE_ON_RESUME or field == "train.steps"):
            return f"config.{name} = {theirs!r}, and this study has {ours!r}"
    return ""
