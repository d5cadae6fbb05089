"""Answer files are validated, and ratings and preferences analyzed."""

import json

import numpy as np
import pytest

from sage_jax.errors import UserError
from sage_jax.evaluation.responses import Response, analyse, bradley_terry, krippendorff, load_responses, summary

KEY = {
    "test": "t1",
    "systems": ["model", "truth", "loop"],
    "anchors": ["truth", "loop"],
    "clips": {
        f"{system}{n}": {"system": system, "piece": f"{n}.mid"} for system in ("model", "truth", "loop") for n in range(3)
    },
}


def answers(rater: str = "r", test: str = "t1", complete: bool = True, **more) -> dict:
    given = {
        "0": {"clips": ["model0"], "value": 3},
        "1": {"clips": ["truth0"], "value": 5},
        "2": {"clips": ["model1", "loop1"], "value": "a"},
    }
    return {"format": 1, "test": test, "rater": rater, "complete": complete, "answers": given, **more}


def write(folder, name: str, value) -> None:
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))


def test_unusable_answers_are_reported_and_the_rest_counts(tmp_path):
    write(tmp_path, "answers-1.json", answers("one"))
    write(tmp_path, "answers-2.json", json.dumps(answers("two"))[:150])
    write(tmp_path, "answers-3.json", answers("three", test="t2"))
    part = answers("four", complete=False)
    del part["answers"]["2"]
    write(tmp_path, "answers-4.json", part)
    write(tmp_path, "answers-5.json", part | {"rater": "one"})
    odd = answers("five")
    odd["answers"] = {
        "9": {"clips": ["truth2"], "value": None},
        "8": {"clips": [["x"]], "value": 1},
        "0": {"clips": ["nobody"], "value": 3},
        "1": {"clips": ["truth0"], "value": 9},
        "2": 7,
        "3": {"clips": ["truth1"], "value": 4},
    }
    write(tmp_path, "answers-6.json", odd)
    lines = []
    found = load_responses(tmp_path, KEY, lines.append)
    assert {response.rater for response in found} == {"one", "four", "five"}
    assert len(found) == 3 + 2 + 1
    for part in (
        "answers-2.json: not a complete file",
        "answers-3.json: answers to another test (t2, not t1)",
        "answers-4.json: not finished; its 2",
        "answers-5.json: listener one has several",
        "answers-6.json: 4 of 6 answers are invalid",
    ):
        assert any(part in line for line in lines), part
    assert len(lines) == 6  # the fifth file is also unfinished
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no answers to the test"):
        load_responses(tmp_path / "none", KEY, lines.append)
    with pytest.raises(UserError, match="is not a folder"):
        load_responses(tmp_path / "nowhere", KEY, lines.append)


def test_mean_ratings_wins_and_bradley_terry_scores():
    responses = []
    for rater in range(8):
        for n in range(3):
            ratings = (("model", 3), ("truth", 5), ("loop", 2))
            responses += [Response(str(rater), (f"{system}{n}",), value) for system, value in ratings]
            responses.append(Response(str(rater), (f"model{n}", f"truth{n}"), 0.0 if n else 0.5))
            responses.append(Response(str(rater), (f"loop{n}", f"model{n}"), 0.0))
    found = analyse(responses, KEY)
    rows = found["systems"]
    assert [rows[name]["mos"].mean for name in KEY["systems"]] == [3, 5, 2]
    assert rows["truth"]["anchor"] and not rows["model"]["anchor"] and rows["model"]["ratings"] == 24
    assert rows["truth"]["bradley_terry"].mean > rows["model"]["bradley_terry"].mean > rows["loop"]["bradley_terry"].mean
    assert rows["model"]["bradley_terry"].low <= rows["model"]["bradley_terry"].mean <= rows["model"]["bradley_terry"].high
    assert found["wins"] == [[0, 4, 24], [20, 0, 0], [0, 0, 0]]
    assert found["agreement"]["ratings"] == pytest.approx(1) and found["agreement"]["pairs"] == pytest.approx(1)
    text = summary(found)
    assert "truth (anchor)" in text and "8 listener(s)" in text and "3.00 (3.00 to 3.00)" in text


def test_a_single_listener_and_only_ratings():
    responses = [Response("r", ("model0",), 3), Response("r", ("model1",), 4)]
    found = analyse(responses, KEY)
    assert found["over"] == "pieces" and found["systems"]["model"]["mos"].mean == 3.5
    assert found["systems"]["loop"]["mos"] is None and found["agreement"] == {"ratings": None, "pairs": None}
    assert "undefined" in summary(found)


def test_the_latest_of_equally_complete_files_counts(tmp_path):
    for name, value, at in (("answers-1 (1).json", 4, "2026-01-02"), ("answers-1.json", 3, "2026-01-01")):
        content = answers("one")
        content["answers"] = {"0": {"clips": ["model0"], "value": value, "at": at}}
        write(tmp_path, name, content)
    (response,) = load_responses(tmp_path, KEY, lambda line: None)
    assert response.value == 4


def test_bradley_terry_recovers_the_true_scores():
    rng = np.random.default_rng(0)
    true = np.array([1.0, 0.0, -1.0])
    wins = np.zeros((3, 3))
    for _ in range(6000):
        one, other = rng.choice(3, 2, replace=False)
        won = rng.random() < 1 / (1 + np.exp(true[other] - true[one]))
        wins[(one, other) if won else (other, one)] += 1
    assert bradley_terry(wins) == pytest.approx(true, abs=0.1)
    lone = bradley_terry(np.array([[0, 5, 0], [0, 0, 0], [0, 0, 0]], float))
    assert lone[0] == pytest.approx(-lone[1]) and np.isnan(lone[2])
    assert np.isnan(bradley_terry(np.zeros((4, 3, 3)))).all()


def test_agreement_equals_krippendorffs_example():
    # The reliability data of Krippendorff's own example (2011), interval and nominal.
    table = """1 2 3 3 2 1 4 1 2 * * *
               1 2 3 3 2 2 4 1 2 5 * 3
               * 3 3 3 2 3 4 2 2 5 1 *
               1 2 3 3 2 4 4 1 2 5 1 *""".splitlines()
    values = [(unit, float(value)) for row in table for unit, value in enumerate(row.split()) if value != "*"]
    assert krippendorff(values, lambda a, b: (a - b) ** 2) == pytest.approx(0.849, abs=5e-4)
    assert krippendorff(values, lambda a, b: float(a != b)) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff([("u", 1), ("v", 2)], lambda a, b: float(a != b)) is None
    assert krippendorff([("u", 1), ("u", 1)], lambda a, b: float(a != b)) is None
