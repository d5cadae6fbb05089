"""The study: its cells by rule, its verdicts by interval, and a tiny one from corpora to RESULTS.md."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from configs import study as configs
from sage_jax.benchmark.figures import loop_ratio
from sage_jax.benchmark.systems import SHARINGS, fields_of, sections_of
from sage_jax.errors import UserError
from sage_jax.models.config import ModelConfig
from sage_jax.study.cells import Examiner
from sage_jax.study.claims import FAILS, HOLDS, OPEN, UNTESTED, above, below, claims, not_above, speed_claims, within
from sage_jax.study.config import Cell, Row, StudyConfig, num_parameters
from sage_jax.study.cost import cost
from sage_jax.study.results import Findings, Mean, read_known, read_results
from sage_jax.study.speed import proven
from sage_jax.training.config import RunConfig

ROOT = pathlib.Path(__file__).parents[2]


def config(size: str = "cpu", **changes) -> StudyConfig:
    return StudyConfig.from_dict({**configs.get_config(size).to_dict(), **changes})


@pytest.mark.parametrize("size", configs.ARGUMENTS)
def test_every_size_has_cells_of_models_that_can_be(size):
    study = config(size)
    rates = {study.family(system): 1e-3 for system in study.seek_with}
    cells = list(study.cells(rates))
    assert len({cell.name for cell in cells}) == len(cells) == len(set(cells))
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)


def test_a_row_of_several_tables_is_trained_once_with_the_seeds_of_the_greediest():
    tables = {
        "forms": dict(systems=("mha", "nested-mqa"), train_on=("piano",), seeds=1),
        "sharing": dict(systems=("mha", "mqa"), train_on=("piano",), seeds=2),
        "other_music": dict(systems=("mha",), train_on=("piano",), test_on=("piano", "multitrack"), seeds=1),
    }
    study = config(tables=tables)
    cells = list(study.cells({"flat": 1e-3, "nested": 2e-3}))
    assert [(cell.row.system, cell.seed) for cell in cells] == [
        ("mha", 0), ("nested-mqa", 0), ("mqa", 0), ("mha", 1), ("mqa", 1),
    ]  # fmt: skip
    assert cells[0].test_on == ("piano", "multitrack") and cells[1].test_on == ("piano",)
    assert {cell.learning_rate for cell in cells if cell.row.system == "nested-mqa"} == {2e-3}


def test_the_search_may_take_fewer_steps(tmp_path):
    examiner = Examiner(config("demo"), tmp_path)
    row = Row("nested-mqa", "multitrack")
    steps = lambda **asked: examiner.sections_of(Cell(row, 0, 1e-3, **asked))["train"]["steps"]
    assert (steps(), steps(test_on=("multitrack",))) == (500, 2000)


@pytest.mark.parametrize("system", [*SHARINGS, "nested-mqa", "nested2-as_kvhs-mixed-4"])
def test_equal_parameters_are_equal(system):
    study = config()
    count = lambda row: num_parameters(RunConfig.from_dict(study.sections(row)).model)
    reference, equal = count(Row("mha", "piano")), count(Row(system, "piano", equal_parameters=True))
    model = study.run["model"]
    assert abs(equal - reference) <= 3 * model["width"] * model["layers"] / 2  # half of what one unit more in each MLP has


def test_names_say_what_a_system_is():
    for name in ("mqa", "gqa-5", "nested-mqa", "nested2-as_kvhs-own-2", "pooled2-mha", "delay-mha"):
        assert ModelConfig(vocab_sizes=(9,) * 5, **fields_of(name), heads=40).name == name
    assert sections_of("bpe500")["representation"]["merges"] == 500
    study = config()
    assert {study.family(system) for system in ("mqa", "nested2-mqa", "bpe500", "remi", "octuple", "mmt")} == {
        "flat", "nested", "remi", "pooled-concat", "mmt-pooled",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(learning_rates=(2e-3, 1e-3)), "learning_rates"),
        (dict(seek_steps=-1), "seek_steps"),
        (dict(title="two words"), "config.title"),
        (dict(tables={"forms": dict(systems=("mha",), train_on=("piano",), seeds=0)}), "tables.forms.seeds"),
        (dict(tables={"forms": dict(systems=("mha",), train_on=("bagpipe",), seeds=1)}), "bagpipe"),
        (dict(tables={"forms": dict(systems=("mha",), train_on=("piano",), seeds=1, speed=2)}), "no field speed"),
        (dict(tables={"forms": dict(systems=("tree",), train_on=("piano",), seeds=1)}), "no system called 'tree'"),
        (dict(seek_with=("mha",)), "config.seek_with"),
        (dict(seek_on="bagpipe"), "config.seek_on"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_told_by_field(changes, said):
    with pytest.raises(UserError, match=said):
        config(**changes)


def test_verdicts_follow_from_the_interval():
    lower, higher, unsure = Mean(-2, -3, -1, 3), Mean(2, 1, 3, 3), Mean(0.5, -2, 3, 3)
    assert [below(each) for each in (lower, higher, unsure)] == [HOLDS, FAILS, OPEN]
    assert [above(each) for each in (lower, higher, unsure)] == [FAILS, HOLDS, OPEN]
    assert [not_above(each) for each in (lower, higher, unsure)] == [HOLDS, FAILS, OPEN]
    assert [within(each, 0.5) for each in (lower, higher, unsure)] == [FAILS, HOLDS, OPEN]
    one = Mean.of([4.0])
    assert below(one) == above(one) == within(one, 1.0) == OPEN  # one seed has no interval


def speed(turns=20, times=(1.16, 1.10, 1.18), control=(1.0, 0.97, 1.02)) -> dict:
    return dict(
        steps_per_note=1.0, cache_bytes=8, notes_per_second=9.0, turns=turns, times_reference=[*times], control=[*control]
    )


@pytest.mark.parametrize(
    ("measured", "verdicts"),
    [
        (speed(), [HOLDS, FAILS]),  # faster, but not by 30%
        (speed(times=(1.5, 1.4, 1.6)), [HOLDS, HOLDS]),
        (speed(times=(1.3, 1.1, 1.5)), [HOLDS, OPEN]),
        (speed(times=(1.0, 0.9, 1.1)), [OPEN, FAILS]),
        (speed(times=(0.8, 0.7, 0.9)), [FAILS, FAILS]),
        (speed(control=(1.04, 1.01, 1.07)), [OPEN, OPEN]),  # an identical model differs, too
        (speed(turns=19), [UNTESTED] * 2),
        ({name: value for name, value in speed().items() if name != "control"}, [UNTESTED] * 2),
        ({}, [UNTESTED] * 2),
    ],
)
def test_verdicts_on_speed_need_turns_and_a_control(measured, verdicts):
    assert [claim.verdict for claim in speed_claims(proven(measured), "mha")] == verdicts


@pytest.mark.parametrize("path", sorted((ROOT / "launch").glob("study-*.json")), ids=lambda path: path.stem)
def test_no_published_speed_is_unproven(path):
    found = json.loads(path.read_text())
    assert found["speeds"] == read_results(path)["speeds"]


def test_times_reference_is_the_ratio_of_the_rates_that_stand_beside_it():
    """Where a note is several steps, of which a turn draws more."""
    flat = dict(cell=dict(events=40), loop_seconds=[2.0] * 20)
    stream = dict(cell=dict(events=200), loop_seconds=[2.5] * 20)
    steps_per_note = 4.0
    rates = [line["cell"]["events"] / line["loop_seconds"][0] for line in (flat, stream)]
    assert loop_ratio(flat, stream).over(steps_per_note).value == pytest.approx(rates[1] / steps_per_note / rates[0])


def test_a_mean_over_seeds_has_the_interval_of_student():
    mean = Mean.of([1.0, 2.0, 3.0, None])
    assert mean.seeds == 3 and mean.mean == 2
    assert mean.high - mean.mean == pytest.approx(4.302653 / 3**0.5, rel=1e-5)  # t of 2 degrees of freedom, sd 1
    assert Mean.of([]).seeds == 0


def test_differences_pair_seeds():
    row, other = Row("mqa", "piano"), Row("mha", "piano")
    cell = lambda row, seed, bits: {
        "row": dataclasses.asdict(row), "seed": seed, "tests": {"piano": {"bits": bits, "nmsi": 1.0, "relative": 0.0}},
    }  # fmt: skip
    cells = [cell(row, 0, 9.0), cell(row, 1, 11.0), cell(row, 2, 1.0), cell(other, 0, 8.0), cell(other, 1, 10.0)]
    difference = Findings({"cells": cells}).difference(row, other, "piano", "bits")
    assert (difference.mean, difference.seeds) == (1.0, 2)
    assert difference.low == pytest.approx(1.0) and difference.high == pytest.approx(1.0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
    """A study of two small models, every row of which has its speed."""
    folder = tmp_path_factory.mktemp("study")
    said = launch(folder)
    assert said.returncode == 0, said.stderr
    assert "left out" not in said.stdout and "not be measured" not in said.stdout and "not measured" not in said.stdout
    assert {path.stem for path in folder.glob("speed/**/*.json")} == {"mha", "nested2-mqa"}
    return folder


def launch(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess:
    systems = ["--config.tables.forms.systems=('mha','nested2-mqa')", "--config.seek_with=('mha','nested-mqa')"]
    systems.append("--config.run.model.layers=1")
    few = [f"--config.tables.{name}.train_on=()" for name in ("sharing", "equal_parameters", "merges", "other_music")]
    command = [sys.executable, "-m", "launch.study", "--config=configs/study.py:debug", f"--workdir={folder}"]
    return subprocess.run([*command, *systems, *few, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600)


def test_a_study_ends_in_tables_and_json(finished):
    found = json.loads((finished / "results.json").read_text())
    assert len(found["cells"]) == found["wanted"] == 4
    # One turn proves nothing: what is counted stays, and no column of speeds is there.
    assert {row: set(speed) for row, speed in found["speeds"].items()} == {
        name: {"steps_per_note", "cache_bytes"} for name in ("multitrack/mha", "multitrack/nested2-mqa")
    }
    measured = json.loads((finished / "speed" / "multitrack" / "nested2-mqa.json").read_text())
    assert measured["events_drawn"] == 4 and 0 < measured["notes_drawn"] <= 4 and "times_reference" not in measured
    report = (finished / "RESULTS.md").read_text()
    assert "All 4 models" in report and "nested2-mqa" in report and str(finished) not in report
    assert "notes/s" not in report and "cache, MB" in report and "the speed of none is measured" in report
    claim = next(claim for claim in claims(Findings(found)) if claim.claim.startswith("Ours"))
    assert claim.verdict in (HOLDS, FAILS, OPEN) and claim.claim in report
    assert (finished / "results.png").stat().st_size > 1000


def test_what_is_finished_is_not_done_again(finished):
    results = sorted(finished.glob("**/result.json"))
    before = {path: path.stat().st_mtime_ns for path in results}
    lost = next(path for path in results if "nested2-mqa/seed1" in str(path))
    lost.unlink()
    told = launch(finished, "--report")
    assert told.returncode == 0 and "**Not finished:** 3 of 4 models" in (finished / "RESULTS.md").read_text()
    assert launch(finished, "--helping").returncode == 0
    assert launch(finished, "--report").returncode == 0
    after = {path: path.stat().st_mtime_ns for path in results}
    assert {path for path in results if after[path] != before[path]} == {lost}
    assert "All 4 models" in (finished / "RESULTS.md").read_text()


def test_what_was_done_elsewhere_is_taken_over(finished, tmp_path):
    """Another workdir with the same music has what a results.json tells, and lacks what it doesn't; of other music, nothing."""
    shutil.copytree(finished / "corpora", tmp_path / "corpora")
    found = json.loads((finished / "results.json").read_text())
    assert len(found["sought"]) == 2 and all(cell["identity"] for cell in found["sought"])
    part = tmp_path / "part.json"
    part.write_text(json.dumps(found | {"cells": found["cells"][1:]}))
    assert launch(tmp_path, "--report", f"--known={part},{finished / 'results.json'}").returncode == 0
    again = json.loads((tmp_path / "results.json").read_text())
    assert again["search"] == found["search"] and again["cells"] == found["cells"]

    known = read_known([part])
    run = configs.get_config("debug").run.to_dict()
    tables = {"forms": dict(systems=("mha", "nested2-mqa"), train_on=("multitrack",), seeds=2)}
    study = config("debug", tables=tables, run={**run, "model": {**run["model"], "layers": 1}})
    examiner = Examiner(study, tmp_path, known)
    cells = list(study.cells({study.family(cell["system"]): cell["learning_rate"] for cell in found["sought"]}))
    assert [examiner.identity(cell) in known for cell in cells] == [False, True, True, True]
    steps = dataclasses.replace(study, run={**study.run, "train": {**study.run["train"], "steps": 5}})
    assert not any(Examiner(steps, tmp_path).identity(cell) in known for cell in cells)
    shutil.rmtree(tmp_path / "corpora")
    assert not any(Examiner(study, tmp_path).identity(cell) in known for cell in cells)
    wrong = launch(tmp_path, "--report", f"--known={tmp_path / 'none.json'}")
    assert wrong.returncode == 2 and "is not the JSON of a study" in wrong.stderr


def test_results_are_made_from_json_alone(finished, tmp_path):
    told = launch(tmp_path, f"--results={finished / 'results.json'}")
    assert told.returncode == 0
    assert (tmp_path / "RESULTS.md").read_text() == (finished / "RESULTS.md").read_text()
    wrong = launch(tmp_path, f"--results={finished / 'none.json'}")
    assert wrong.returncode == 2 and "is not the JSON of a study" in wrong.stderr


def test_the_cost_counts_every_model_once():
    tables = {
        "forms": dict(systems=("mha", "nested2-mqa"), train_on=("multitrack",), seeds=2),
        "sharing": dict(systems=("mha", "mqa"), train_on=("multitrack",), seeds=3),
        "equal_parameters": dict(systems=("mha", "mqa"), train_on=("multitrack",), seeds=1, equal_parameters=True),
    }
    study = config("debug", tables=tables)
    table = cost(study, 1e6)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    rates = {study.family(system): 1e-3 for system in study.seek_with}
    trained = len(list(study.cells(rates))) + len(study.seek_with) * len(study.learning_rates)
    assert int(lines[-1][1]) == trained == sum(int(line[1]) for line in lines[:-1])
    twice = cost(study, 5e5).splitlines()[-1].split("|")[3]
    assert float(twice) == pytest.approx(2 * float(lines[-1][2]), abs=0.2)


def test_a_table_may_have_a_model_and_a_length_of_its_own():
    few = dict(heads=10, head_width=16)
    tables = {
        "forms": dict(systems=("mha",), train_on=("piano",), seeds=1),
        "longer": dict(systems=("mha", "mqa"), train_on=("piano",), seeds=1, steps=9, model=few, equal_parameters=True),
    }
    study = config(tables=tables)
    plain, longer, equal = study.rows()
    assert (plain.name, longer.name, equal.name) == ("piano/mha", "piano/mha-longer", "piano/mqa-equal-longer")
    runs = [RunConfig.from_dict(study.sections(row)) for row in (plain, longer, equal)]
    assert [run.train.steps for run in runs] == [400, 9, 9] and [run.model.heads for run in runs] == [40, 10, 10]
    model = runs[1].model
    assert abs(num_parameters(runs[2].model) - num_parameters(model)) <= 3 * model.width * model.layers / 2
