"""The config of the study: variants, trials, families, equal parameters and the cost."""

import pytest

from configs import study as configs
from sage_jax.config import RunConfig
from sage_jax.errors import UserError
from sage_jax.models.config import ModelConfig
from sage_jax.models.presets import SHARINGS, config_sections, model_fields
from sage_jax.study.config import Trial, Variant, num_parameters
from sage_jax.study.cost import training_cost
from sage_jax.study.trials import Evaluator
from tests.study.helpers import study_config


@pytest.mark.parametrize("size", configs.ARGUMENTS)
def test_every_size_has_trials_of_valid_models(size):
    study = study_config(size)
    rates = {study.family(system): 1e-3 for system in study.lr_search_systems}
    trials = list(study.trials(rates))
    assert len({trial.name for trial in trials}) == len(trials) == len(set(trials))
    assert [trial.seed for trial in trials] == sorted(trial.seed for trial in trials)


def test_a_variant_of_several_tables_trains_once_with_the_most_seeds():
    tables = {
        "forms": dict(systems=("mha", "nested-mqa"), train_on=("piano",), seeds=1),
        "sharing": dict(systems=("mha", "mqa"), train_on=("piano",), seeds=2),
        "other_music": dict(systems=("mha",), train_on=("piano",), test_on=("piano", "multitrack"), seeds=1),
    }
    study = study_config(tables=tables)
    trials = list(study.trials({"flat": 1e-3, "nested": 2e-3}))
    assert [(trial.variant.system, trial.seed) for trial in trials] == [
        ("mha", 0), ("nested-mqa", 0), ("mqa", 0), ("mha", 1), ("mqa", 1),
    ]  # fmt: skip
    assert trials[0].test_on == ("piano", "multitrack") and trials[1].test_on == ("piano",)
    assert {trial.learning_rate for trial in trials if trial.variant.system == "nested-mqa"} == {2e-3}


def test_the_learning_rate_search_may_take_fewer_steps(tmp_path):
    evaluator = Evaluator(study_config("demo"), tmp_path)
    variant = Variant("nested-mqa", "multitrack")
    steps = lambda **fields: evaluator.trial_sections(Trial(variant, 0, 1e-3, **fields))["train"]["steps"]
    assert (steps(), steps(test_on=("multitrack",))) == (500, 2000)


@pytest.mark.parametrize("system", [*SHARINGS, "nested-mqa", "nested2-as_kvhs-mixed-4"])
def test_equal_parameters_are_equal(system):
    study = study_config()
    count = lambda variant: num_parameters(RunConfig.from_dict(study.sections(variant)).model)
    reference, equal = count(Variant("mha", "piano")), count(Variant(system, "piano", equal_parameters=True))
    unit = 3 * study.run["model"]["embed_dim"] * study.run["model"]["num_layers"]  # parameters per unit of mlp_dim
    assert abs(equal - reference) <= unit / 2


def test_names_describe_systems():
    for name in ("mqa", "gqa-5", "nested-mqa", "nested2-as_kvhs-own-2", "pooled2-mha", "delay-mha"):
        assert ModelConfig(vocab_sizes=(9,) * 5, **model_fields(name), num_heads=40).name == name
    assert config_sections("bpe500")["representation"]["merges"] == 500
    study = study_config()
    assert {study.family(system) for system in ("mqa", "nested2-mqa", "bpe500", "remi", "octuple", "mmt")} == {
        "flat", "nested", "remi", "pooled-concat", "mmt-pooled",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(learning_rates=(2e-3, 1e-3)), "learning_rates"),
        (dict(lr_search_steps=-1), "lr_search_steps"),
        (dict(title="two words"), "config.title"),
        (dict(tables={"forms": dict(systems=("mha",), train_on=("piano",), seeds=0)}), "tables.forms.seeds"),
        (dict(tables={"forms": dict(systems=("mha",), train_on=("bagpipe",), seeds=1)}), "bagpipe"),
        (dict(tables={"forms": dict(systems=("mha",), train_on=("piano",), seeds=1, speed=2)}), "no field speed"),
        (dict(tables={"forms": dict(systems=("tree",), train_on=("piano",), seeds=1)}), "no system called 'tree'"),
        (dict(lr_search_systems=("mha",)), "config.lr_search_systems"),
        (dict(lr_search_corpus="bagpipe"), "config.lr_search_corpus"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors_name_the_field(changes, message):
    with pytest.raises(UserError, match=message):
        study_config(**changes)


def test_the_cost_counts_every_model_once():
    tables = {
        "forms": dict(systems=("mha", "nested2-mqa"), train_on=("multitrack",), seeds=2),
        "sharing": dict(systems=("mha", "mqa"), train_on=("multitrack",), seeds=3),
        "equal_parameters": dict(systems=("mha", "mqa"), train_on=("multitrack",), seeds=1, equal_parameters=True),
    }
    study = study_config("debug", tables=tables)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in training_cost(study, 1e6).splitlines()[2:]]
    rates = {study.family(system): 1e-3 for system in study.lr_search_systems}
    models = len(list(study.trials(rates))) + len(study.lr_search_systems) * len(study.learning_rates)
    assert int(rows[-1][1]) == models == sum(int(row[1]) for row in rows[:-1])
    twice = training_cost(study, 5e5).splitlines()[-1].split("|")[3]
    assert float(twice) == pytest.approx(2 * float(rows[-1][2]), abs=0.2)


def test_a_table_may_override_the_model_and_the_steps():
    few_heads = dict(num_heads=10, head_dim=16)
    longer = dict(train_on=("piano",), seeds=1, steps=9, model=few_heads, equal_parameters=True)
    tables = {
        "forms": dict(systems=("mha",), train_on=("piano",), seeds=1),
        "longer": dict(systems=("mha", "mqa"), **longer),
    }
    study = study_config(tables=tables)
    variants = study.variants()
    assert [variant.name for variant in variants] == ["piano/mha", "piano/mha-longer", "piano/mqa-equal-longer"]
    runs = [RunConfig.from_dict(study.sections(variant)) for variant in variants]
    assert [run.train.steps for run in runs] == [400, 9, 9] and [run.model.num_heads for run in runs] == [40, 10, 10]
    model = runs[1].model
    assert abs(num_parameters(runs[2].model) - num_parameters(model)) <= 3 * model.embed_dim * model.num_layers / 2
