"""metrics.jsonl has each step once, however the previous call ended; progress on the console."""

import io

import pytest
from rich.console import Console

from sage_jax.errors import UserError
from sage_jax.training.metric_logger import ProgressReport
from sage_jax.training.metrics import MetricsLog, read_metrics


def test_a_resumed_log_drops_the_steps_that_are_taken_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, step=0)
    log.write("start", 0, params=3)
    for step in range(1, 6):
        log.write("train", step, loss=1 / step)
        assert read_metrics(path)[-1] == {"kind": "train", "step": step, "loss": 1 / step}  # flushed
    log.close()
    with path.open("a") as file:
        file.write('{"kind": "train", "st')  # a line that a kill cut off
    log = MetricsLog(path, step=3)
    log.write("train", 4, loss=9.0)
    log.close()
    assert [(line["kind"], line["step"]) for line in read_metrics(path)] == [
        ("start", 0),
        *(("train", step) for step in (1, 2, 3, 4)),
    ]
    assert read_metrics(path, "train")[-1]["loss"] == 9.0


def test_without_a_file_there_are_no_lines(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file"):
        MetricsLog(tmp_path / "file" / "metrics.jsonl", step=0)


def test_progress_is_a_bar_on_a_terminal_and_occasional_lines_elsewhere():
    lines, screen = io.StringIO(), io.StringIO()
    for file, terminal in ((lines, False), (screen, True)):
        report = ProgressReport(100, 0, Console(file=file, force_terminal=terminal, width=120))
        report.start()
        for step in range(1, 101):
            report.update(step, f"loss {100 - step}")
        report.say("done [all]")
        report.stop()
    assert lines.getvalue().splitlines() == ["step 1/100  loss 99", "done [all]"]
    assert "100/100" in screen.getvalue() and "done [all]" in screen.getvalue()
