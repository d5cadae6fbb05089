"""The training benchmark still runs."""

import dataclasses
import json

from sage_jax.benchmark.train import MODES, configure, main, measure, table


def test_a_mode_is_measured_and_told(capsys):
    run = configure("debug", "mqa", batch_size=2, dtype="bfloat16")
    run = dataclasses.replace(run, model=dataclasses.replace(run.model, layers=1))
    measured = measure(run, steps=2)
    assert len(measured["step_seconds"]) == 2
    assert measured["tokens"] == 2 * (13 * 5 + 1)  # behind the head, without padding; of the last event the onset alone
    assert measured["notes"] == 2 * 13
    assert measured["peak_mb"] > 0 and measured["dtype"] == "bfloat16"
    line = json.loads(json.dumps({"mode": "mqa", **measured}))
    slower = line | {"mode": "mha", "step_seconds": [2 * each for each in line["step_seconds"]]}
    rows = table([line, slower, line, slower]).splitlines()
    assert len(rows) == 4
    assert rows[2].startswith("| mqa |") and " 1.00x " in rows[2]
    assert rows[3].startswith("| mha |") and " 0.50x " in rows[3]


def test_every_mode_has_a_model():
    names = [configure("base", mode, batch_size=0, dtype="").model.name for mode in MODES]
    assert names == ["mha", "gqa-5", "mqa", "as_kvhs-all-1", "as_kvhs-own-1", "as_kvhs-mixed-1"]


def test_an_unknown_mode_is_told_the_known_ones(capsys):
    try:
        main(["--modes=mha,best"])
    except SystemExit as ended:
        assert ended.code == 2
    assert "choose from mha,gqa-5,gqa-2,mqa" in capsys.readouterr().err
