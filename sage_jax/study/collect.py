"""Collects the finished trials and speeds of a workdir into a StudyResult."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sage_jax.corpus.shards import REPORT, read_json
from sage_jax.files import write_json
from sage_jax.study.config import StudyConfig, Trial, Variant
from sage_jax.study.results import CorpusScores, HeldOut, LrTrialResult, StudyResult, StudyTable, TrialResult, VariantSpeed
from sage_jax.study.speed import speed_file
from sage_jax.study.trials import MODEL, RESULT, Evaluator, trial_folder, valid_loss

RESULTS = "results.json"


def collect(evaluator: Evaluator, command: str) -> StudyResult:
    """The result of the study so far, from the workdir and the reused trials. Writes it to results.json in the workdir."""
    config, workdir = evaluator.config, evaluator.workdir
    lr_trials = collect_lr_trials(evaluator)
    rates = {config.family(system): 0.0 for system in config.lr_search_systems} | best_rates(config, lr_trials)
    planned = list(config.trials(rates))
    cached = {trial: result for trial in planned if (result := evaluator.result(trial)) is not None}
    finished = [found for trial in planned if (found := _collect_trial(evaluator, trial, cached.get(trial))) is not None]
    speeds = {variant.name: read_json(speed_file(workdir, variant)) for variant in config.variants()}
    systems = dict.fromkeys((*config.lr_search_systems, *(variant.system for variant in config.variants())))
    evaluation = ("prompts", "max_bars", "samples", "likelihood_pieces")
    result = StudyResult(
        title=config.title,
        command=command,
        commit=", ".join(dict.fromkeys(trial.commit for trial in finished)),
        versions=finished[-1].versions if finished else {},
        corpora={name: _corpus_size(evaluator, name) for name in config.corpora},
        run={section: dict(config.run[section]) for section in ("data", "model", "optimizer", "train")},
        evaluation={name: getattr(config.evaluation, name) for name in evaluation},
        reference=config.reference,
        speed_benchmark=dict(config.speed_benchmark),
        lr_search_corpus=config.lr_search_corpus,
        lr_search_steps=config.search_steps,
        lr_trials=lr_trials,
        learning_rates=rates,
        families={name: config.family(name) for name in systems},
        tables={name: _table(config, name) for name in config.tables},
        num_trials=len(planned),
        trials=finished,
        speeds={name: VariantSpeed.from_json(each).reportable for name, each in speeds.items() if each is not None},
        control_seeds=config.control_seeds,
        held_out=_held_out(evaluator, cached.values()),
        music={name: evaluator.music(name) for name in config.corpora},
        floors={name: evaluator.floors(name) for name in config.corpora} if finished else {},
    )
    write_json(workdir / RESULTS, result.to_json(), indent=1)
    return result


def collect_lr_trials(evaluator: Evaluator) -> list[LrTrialResult]:
    """The finished trials of the learning rate search."""
    config, trials = evaluator.config, []
    for system in config.lr_search_systems:
        trial = Trial(Variant(system, config.lr_search_corpus), 0, 0.0)
        results = (read_json(path) for path in trial_folder(evaluator.workdir, trial).parent.glob(f"rate*/{RESULT}"))
        rates = {result["trial"]["learning_rate"] for result in results}
        reused = [each for each in evaluator.reused.values() if isinstance(each, LrTrialResult)]
        rates |= {each.learning_rate for each in reused if each.system == system}
        for rate in sorted(rates):
            trial = dataclasses.replace(trial, learning_rate=rate)
            identity = evaluator.identity(trial)
            if (result := evaluator.result(trial)) is not None:
                trials.append(LrTrialResult(system, rate, valid_loss(result), identity, result.get("curve", [])))
            elif isinstance(found := evaluator.reused.get(identity), LrTrialResult):
                trials.append(found)
    return trials


def best_rates(config: StudyConfig, trials: Sequence[LrTrialResult]) -> dict[str, float]:
    """The learning rate with the lowest loss for each family in the search."""
    best: dict[str, LrTrialResult] = {}
    for trial in trials:
        if trial.system not in best or trial.loss < best[trial.system].loss:
            best[trial.system] = trial
    return {config.family(system): trial.learning_rate for system, trial in best.items()}


def _collect_trial(evaluator: Evaluator, trial: Trial, result: Mapping[str, Any] | None) -> TrialResult | None:
    """A finished trial; None for another. result: from this workdir."""
    identity = evaluator.identity(trial)
    if result is not None:
        return _trial_result(trial, result, identity)
    found = evaluator.reused.get(identity)
    return found if isinstance(found, TrialResult) else None


def _trial_result(trial: Trial, result: Mapping[str, Any], identity: str) -> TrialResult:
    return TrialResult(
        variant=trial.variant,
        seed=trial.seed,
        learning_rate=trial.learning_rate,
        parameters=result["parameters"],
        mlp_dim=result["sections"]["model"]["mlp_dim"],
        events=result["events"],
        seconds=result["seconds"],
        train_seconds=result["train_seconds"],
        cut=result["cut"],
        scores={corpus: _scores(test) for corpus, test in result["tests"].items()},
        commit=result["commit"],
        versions=result["versions"],
        identity=identity,
        curve=result.get("curve", []),
        step=next((test["step"] for test in result["tests"].values() if "step" in test), None),
        code=result.get("code", ""),
        converged=result.get("converged"),
    )


def _scores(test: Mapping[str, Any]) -> CorpusScores:
    nmsi = {
        name: {"nmsi": score["nmsi"]["mean"], "normalized_nmsi": score["relative"]["mean"]}
        for name, score in test["scores"].items()
    }
    return CorpusScores(
        bits_per_note=test["likelihood"]["bits_per_note"]["mean"],
        attributes=test["likelihood"]["attributes"],
        empty_outputs=test["faults"]["failures"],
        baselines={name: score for name, score in nmsi.items() if name != MODEL},
        segmentations=test.get("segmentations"),
        piece_bits=test["likelihood"].get("pieces", {}).get("bits", []),
        piece_notes=test["likelihood"].get("pieces", {}).get("notes", []),
        prompt_nmsi=test.get("prompts", {}).get("nmsi", {}).get(MODEL, []),
        **nmsi[MODEL],
    )


def _held_out(evaluator: Evaluator, cached: Iterable[Mapping[str, Any]]) -> dict[str, HeldOut]:
    """What the trials of this workdir and the reused ones were evaluated on, by corpus."""
    sets = {name: each for result in evaluator.others for name, each in result.held_out.items()}
    for result in cached:
        for corpus, test in result["tests"].items():
            if corpus not in sets and "prompts" in test:
                nmsi = {name: values for name, values in test["prompts"]["nmsi"].items() if name != MODEL}
                sets[corpus] = HeldOut(test["likelihood"]["pieces"]["names"], test["prompts"]["pieces"], nmsi)
    return sets


def _table(config: StudyConfig, name: str) -> StudyTable:
    table = config.tables[name]
    overrides = {field: table[field] for field in ("steps", "model") if field in table}
    return StudyTable(config.variants_of(name), list(table.get("test_on", ())), overrides, table["seeds"])


def _corpus_size(evaluator: Evaluator, corpus: str) -> dict[str, int]:
    splits = (read_json(evaluator.shards(corpus) / REPORT) or {"splits": {}})["splits"]
    count = lambda split, what: splits.get(split, {}).get(what, 0)
    pieces, notes = count("train", "pieces"), count("train", "notes")
    if pieces and len(training := evaluator.training(corpus)) < pieces:
        pieces, notes = len(training), sum(int(evaluator.tokenizer.num_notes(events).sum()) for events in training)
    return {"pieces": pieces, "notes": notes, "test_pieces": count("test", "pieces")}
