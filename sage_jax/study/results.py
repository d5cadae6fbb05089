"""What a study found, as numbers that go into JSON and that RESULTS.md is made from."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from sage_jax.errors import UserError
from sage_jax.evaluation.statistics import CONFIDENCE
from sage_jax.files import write_json
from sage_jax.music.shards import REPORT, read_json
from sage_jax.study.cells import EXAMPLE, RESULT, Examiner, cell_folder
from sage_jax.study.config import Cell, Row, StudyConfig
from sage_jax.study.speed import proven, speed_file

RESULTS = "results.json"


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over seeds, and its interval of 95% confidence by Student's t; nan where there are fewer than two."""

    mean: float
    low: float
    high: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mean":
        values = np.asarray([value for value in values if value is not None], float)
        if not len(values):
            return cls(*[float("nan")] * 3, 0)
        half = float("nan")
        if len(values) > 1:
            half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
        return cls(float(values.mean()), float(values.mean() - half), float(values.mean() + half), len(values))


@dataclasses.dataclass(frozen=True)
class Findings:
    """The finished cells of a study, for tables to ask.

    found: what `collect` returns.
    """

    found: Mapping[str, Any]

    def rows(self, table: str) -> list[Row]:
        return [Row(**row) for row in self.found["tables"][table]["rows"]]

    def cells(self, row: Row) -> dict[int, Mapping[str, Any]]:
        """Those that are finished, by seed."""
        return {cell["seed"]: cell for cell in self.found["cells"] if cell["row"] == dataclasses.asdict(row)}

    def speed(self, row: Row) -> Mapping[str, Any]:
        """What `proven` leaves of a row's speed; empty where nothing was measured."""
        return self.found["speeds"].get(row.name, {})

    def values(self, row: Row, corpus: str, number: str) -> dict[int, float | None]:
        """A number of each finished seed: 'bits', 'nmsi' or 'relative'."""
        return {seed: cell["tests"][corpus][number] for seed, cell in self.cells(row).items() if corpus in cell["tests"]}

    def mean(self, row: Row, corpus: str, number: str) -> Mean:
        return Mean.of(list(self.values(row, corpus, number).values()))

    def difference(self, row: Row, other: Row, corpus: str, number: str) -> Mean:
        """Of a row and another one, over the seeds that both have: with a seed, both saw the same crops in the same order."""
        one, two = self.values(row, corpus, number), self.values(other, corpus, number)
        return Mean.of([one[seed] - two[seed] for seed in one.keys() & two.keys() if None not in (one[seed], two[seed])])


def read_results(path: pathlib.Path) -> dict[str, Any]:
    """What `collect` wrote to `path`, with the speeds that are `proven`. Raises UserError for another file."""
    found = read_json(path)
    if not isinstance(found, dict) or not {"cells", "sought"} <= found.keys():
        raise UserError(f"{path} is not the JSON of a study; give results.json of its --workdir")
    return found | {"speeds": {name: proven(speed) for name, speed in found["speeds"].items()}}


def read_known(paths: Sequence[pathlib.Path]) -> dict[str, dict[str, Any]]:
    """The cells that the JSON files of studies tell of, by their identity. Raises UserError for another file."""
    told = map(read_results, paths)
    return {cell["identity"]: cell for found in told for cell in (*found["sought"], *found["cells"])}


def sought(examiner: Examiner) -> list[dict[str, Any]]:
    """What was tried of learning rates with each system of `seek_with`: system, learning_rate, loss (of validation), identity."""
    config, tried = examiner.config, []
    for system in config.seek_with:
        cell = Cell(Row(system, config.seek_on), 0, 0.0)
        there = (read_json(path) for path in cell_folder(examiner.workdir, cell).parent.glob(f"rate*/{RESULT}"))
        rates = {each["cell"]["learning_rate"] for each in there}
        rates |= {each["learning_rate"] for each in examiner.known.values() if each.get("system") == system}
        for rate in sorted(rates):
            cell = dataclasses.replace(cell, learning_rate=rate)
            told, identity = {"system": system, "learning_rate": rate}, examiner.identity(cell)
            if (result := examiner.result(cell)) is not None:
                tried.append({**told, "loss": result["valid"]["loss"], "identity": identity})
            elif identity in examiner.known:
                tried.append(examiner.known[identity])
    return tried


def best_rates(config: StudyConfig, search: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The learning rate of each family for which one was found: that of the lowest loss."""
    return {config.family(system): float(min(tried, key=tried.get)) for system, tried in search.items() if tried}


def collect(examiner: Examiner, command: str) -> dict[str, Any]:
    """All that is finished in the workdir or known, without what is too long to be told. Writes it to results.json there, too."""
    config, workdir = examiner.config, examiner.workdir
    tried = sought(examiner)
    search = {system: {} for system in config.seek_with}
    for each in tried:
        search[each["system"]][f"{each['learning_rate']:g}"] = each["loss"]
    rates = {config.family(system): 0.0 for system in config.seek_with} | best_rates(config, search)
    wanted = list(config.cells(rates))
    finished = []
    for cell in wanted:
        identity = examiner.identity(cell)
        if (result := examiner.result(cell)) is not None:
            finished.append({**_cell(cell, result), "identity": identity})
        elif identity in examiner.known:
            finished.append(examiner.known[identity])
    floors = {corpus: test["floors"] for cell in finished for corpus, test in cell["tests"].items()}
    last = finished[-1] if finished else None
    speeds = {row.name: read_json(speed_file(workdir, row)) for row in config.rows()}
    found = {
        "title": config.title,
        "command": command,
        "commit": ", ".join(dict.fromkeys(cell["commit"] for cell in finished)),
        "versions": last and last["versions"],
        "corpora": {name: _corpus(examiner.shards(name)) for name in config.corpora},
        "run": {section: dict(config.run[section]) for section in ("data", "model", "optimizer", "train")},
        "evaluation": {name: getattr(config.evaluation, name) for name in ("prompts", "max_bars", "samples", "likelihood_pieces")},
        "reference": config.speed["reference"],
        "speed": dict(config.speed),
        "seek_on": config.seek_on,
        "seek_steps": config.search_steps,
        "search": search,
        "sought": tried,
        "rates": rates,
        "families": {name: config.family(name) for name in (*config.seek_with, *(row.system for row in config.rows()))},
        "tables": {
            name: {
                "rows": [dataclasses.asdict(row) for row in config.rows_of(name)],
                "test_on": list(table.get("test_on", ())),
                "own": {name: table[name] for name in ("steps", "model") if name in table},
                "seeds": table["seeds"],
            }
            for name, table in config.tables.items()
        },
        "wanted": len(wanted),
        "floors": floors,
        "cells": finished,
        "speeds": {name: proven(speed) for name, speed in speeds.items() if speed is not None},
    }
    write_json(workdir / RESULTS, found, indent=1)
    return found


def _corpus(shards: pathlib.Path) -> dict[str, int]:
    splits = (read_json(shards / REPORT) or {"splits": {}})["splits"]
    count = lambda split, what: splits.get(split, {}).get(what, 0)
    return {"pieces": count("train", "pieces"), "notes": count("train", "notes"), "tested": count("test", "pieces")}


def _cell(cell: Cell, result: Mapping[str, Any]) -> dict[str, Any]:
    tests = {}
    for corpus, test in result["tests"].items():
        likelihood, score = test["likelihood"], test["scores"][EXAMPLE]
        floors = {
            name: {number: floor[number]["mean"] for number in ("nmsi", "relative")}
            for name, floor in test["scores"].items()
            if name != EXAMPLE
        }
        tests[corpus] = {
            "bits": likelihood["bits_per_note"]["mean"],
            "attributes": likelihood["attributes"],
            "nmsi": score["nmsi"]["mean"],
            "relative": score["relative"]["mean"],
            "failures": test["faults"]["failures"],
            "floors": floors,
        }
    return {
        "row": dataclasses.asdict(cell.row),
        "seed": cell.seed,
        "learning_rate": cell.learning_rate,
        "parameters": result["parameters"],
        "mlp_width": result["sections"]["model"]["mlp_width"],
        "events": result["events"],
        "seconds": result["seconds"],
        "train_seconds": result["train_seconds"],
        "cut": result.get("cut", 0.0),
        "tests": tests,
        "commit": result["commit"],
        "versions": result["versions"],
    }
