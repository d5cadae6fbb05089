"""Comparison of runs: the figure, the table, and folders that are not runs."""

import json
import shutil
import subprocess
import sys

import matplotlib.figure
import numpy as np
import pytest

from sage_jax.errors import UserError
from sage_jax.rendering.learning_curves import TrainedRun, compare, smoothed
from sage_jax.training.metrics import MetricsLog
from tests.training.tiny import tiny_config


def write_run(folder, losses, valid=(), commits=("aaaaaaa",), **sections):
    """Writes the files of a run with a line every tenth step."""
    folder.mkdir()
    log = MetricsLog(folder / "metrics.jsonl", 0)
    log.write("start", 0, params=1000, compile_seconds=1.0, device="cpu")
    for number, loss in enumerate(losses, 1):
        log.write("train", 10 * number, loss=loss, notes_per_second=100.0 * number, notes_per_step=5.0 * number)
    for number, loss in enumerate(valid, 1):
        log.write("valid", 20 * number, loss=loss)
    log.close()
    manifest = {"config": tiny_config(**sections).to_dict(), "starts": [{"commit": commit} for commit in commits]}
    (folder / "run.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def runs(tmp_path):
    return {
        "slow": write_run(tmp_path / "a", [9, 8, 7, 6], valid=[8, 6.5], optimizer=dict(learning_rate=1e-3)),
        "fast": write_run(
            tmp_path / "b", [9, 5, 4], valid=[4, 4.5], commits=("aaaaaaa", "bbbbbbb"), continuation=dict(num_bars=3)
        ),
    }


@pytest.fixture
def drawn(monkeypatch):
    """The saved figures."""
    figures, savefig = [], matplotlib.figure.Figure.savefig

    def recorded(figure, *arguments, **options):
        figures.append(figure)
        savefig(figure, *arguments, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", recorded)
    return figures


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "---" not in line]


def test_the_table_has_results_and_differing_fields(runs, tmp_path):
    header, slow, fast = cells(compare(runs, tmp_path / "compare.png"))
    assert header[-1:] == ["optimizer.learning_rate"]  # continuation fields do not affect training
    assert slow == ["slow", "aaaaaaa", "1,000", "6.5000", "40", "6.0000", "40", "250", "0.001"]
    assert fast == ["fast", "aaaaaaa, bbbbbbb", "1,000", "4.0000", "20", "4.0000", "30", "200", "0.003"]


def test_more_differing_fields_than_runs_get_a_second_table(runs, tmp_path):
    other = write_run(
        tmp_path / "c", [3], model=dict(embed_dim=32, num_layers=2), data=dict(transpose=(0, 0)), partitioner="pmap"
    )
    first, second = compare({"fast": runs["fast"], "other": other}, tmp_path / "compare.svg").split("\n\n")
    assert cells(first)[2][:4] == ["other", "aaaaaaa", "1,000", "-"] and len(cells(first)[0]) == 8
    assert cells(second) == [
        ["field", "fast", "other"],
        ["data.transpose", "[-5, 6]", "[0, 0]"],
        ["model.embed_dim", "16", "32"],
        ["model.num_layers", "1", "2"],
        ["partitioner", "mesh", "pmap"],
    ]


def test_each_run_has_one_colour_in_all_panels(runs, tmp_path, drawn):
    compare(runs, tmp_path / "compare.png")
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    by_run = [[{line.get_color() for line in axes.lines if len(line.get_xdata()) == size} for size in sizes]
              for axes, sizes in zip(drawn[0].axes, [(4, 3), (2, 2), (4, 3)], strict=True)]  # fmt: skip
    assert by_run[0] == by_run[2] and by_run[0][0].isdisjoint(by_run[0][1]) and all(map(len, by_run[0]))
    validation = drawn[0].axes[1].lines
    assert [{line.get_color()} for line in validation] == by_run[0]
    np.testing.assert_array_equal(validation[1].get_xydata(), [(20, 4), (40, 4.5)])
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["slow", "fast"]


def test_the_notes_axis_is_the_cumulative_number_of_notes(runs, tmp_path, drawn):
    compare(runs, tmp_path / "compare.png", "notes")
    raw, bold = drawn[0].axes[0].lines[:2]
    np.testing.assert_array_equal(raw.get_xdata(), [50, 150, 300, 500])
    np.testing.assert_array_equal(bold.get_xdata(), raw.get_xdata())
    np.testing.assert_array_equal(drawn[0].axes[1].lines[0].get_xdata(), [150, 500])


def test_thirty_runs_have_different_styles(tmp_path, drawn):
    folder = write_run(tmp_path / "run", [5, 4])
    compare({str(number): folder for number in range(30)}, tmp_path / "compare.pdf")
    inks = {(line.get_color(), line.get_linestyle()) for line in drawn[0].axes[1].lines}
    assert len(inks) == 30


def test_a_folder_that_is_not_a_run_is_named(runs, tmp_path):
    picture = tmp_path / "compare.png"
    (tmp_path / "empty").mkdir()
    waiting = write_run(tmp_path / "waiting", [])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metrics.jsonl").write_text('{"kind": "train", "loss": 3}\n')
    shutil.copy(waiting / "run.json", tmp_path / "other")
    bare = write_run(tmp_path / "bare", [5, 4])
    (bare / "run.json").unlink()
    for folder, message in (
        (tmp_path / "nowhere", "is not a run: it has no metrics.jsonl; give a --workdir"),
        (tmp_path / "empty", "is not a run"),
        (bare, "is not a run: it has no run.json; give a --workdir"),
        (waiting, "has no step in its metrics.jsonl yet"),
        (tmp_path / "other", "can't be read .*'step'"),
    ):
        with pytest.raises(UserError, match=message) as error:
            compare(runs | {"wrong": folder}, picture)
        assert str(folder) in str(error.value)
    with pytest.raises(UserError, match="no run to compare"):
        compare({}, picture)
    with pytest.raises(UserError, match="compare.jpg is not the name of a picture; it must end in one of .png"):
        compare(runs, tmp_path / "compare.jpg")
    assert not picture.exists()


def test_smoothing_follows_the_curve_to_its_ends():
    line = np.arange(200.0)
    np.testing.assert_allclose(smoothed(line)[5:-5], line[5:-5])
    assert len(smoothed(np.array([3.0]))) == 1
    spiked = np.where(np.arange(40) == 20, 1000.0, 1.0)
    assert smoothed(spiked, np.median).max() == 1


def test_unknown_fields_of_another_version_are_kept(tmp_path):
    folder = write_run(tmp_path / "run", [5, 4])
    manifest = json.loads((folder / "run.json").read_text())
    manifest["config"]["model"]["future_field"] = 3
    (folder / "run.json").write_text(json.dumps(manifest))
    assert TrainedRun.read("run", folder).config["model.future_field"] == 3


@pytest.mark.process
def test_the_script_accepts_folders_with_and_without_names(runs, tmp_path):
    folders = [f"slow={runs['slow']}", str(runs["fast"])]
    command = [sys.executable, "-m", "launch.compare", *folders, f"--output={tmp_path / 'compare.png'}", "--x_axis=notes"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.strip().endswith("compare.png") and "| slow | aaaaaaa" in ended.stdout and "| b    |" in ended.stdout
    ended = subprocess.run([*command, str(tmp_path / "nowhere")], capture_output=True, text=True)
    assert ended.returncode == 2 and len(ended.stderr.strip().splitlines()) == 1 and "nowhere is not a run" in ended.stderr
