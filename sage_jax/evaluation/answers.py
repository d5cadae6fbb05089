"""What listeners answered: means with intervals, preferences, and how far they agree."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sage_jax.errors import UserError
from sage_jax.evaluation.statistics import CONFIDENCE, RESAMPLES, Estimate, estimate, interval
from sage_jax.markdown import markdown_table

PRIOR = 0.5  # half a win for each of two systems that met, so that a strength stays finite
ITERATIONS = 200


@dataclasses.dataclass(frozen=True)
class Judgement:
    """One answer: a rating of 1 to 5 of one clip, or a preference between two: 1 for the first, 0 for the second, 0.5 for neither."""

    rater: str
    clips: tuple[str, ...]
    value: float


def load_answers(folder: pathlib.Path, key: Mapping[str, Any], say: Callable[[str], None] = print) -> list[Judgement]:
    """The judgements in every JSON file of `folder` that belongs to the test of `key`; what cannot be used is told, a line each.

    Of several files of one listener the one with the most answers counts, the latest of equals. Raises UserError where nothing is left.
    """
    if not folder.is_dir():
        raise UserError(f"--analyse: {folder} is not a folder; give the folder with the answers")
    best: dict[str, tuple[tuple[int, str], list[Judgement]]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            told = json.loads(path.read_text())
            rater, answers = str(told["rater"]), dict(told["answers"])
            test, complete = told["test"], bool(told.get("complete"))
        except (OSError, ValueError, KeyError, TypeError):
            say(f"{path.name}: not a whole file of answers (cut off, or something else); passed over")
            continue
        if test != key["test"]:
            say(f"{path.name}: answers of another test ({test}, not {key['test']}); passed over")
            continue
        judgements, strange, latest = [], 0, ""
        for answer in answers.values():
            judgement = _judgement(rater, answer, key)
            if judgement:
                judgements.append(judgement)
                latest = max(latest, str(answer.get("at", "")))
            elif not _is_skipped(answer):
                strange += 1
        if strange:
            say(f"{path.name}: {strange} of {len(answers)} answers make no sense; passed over")
        if not complete:
            say(f"{path.name}: not finished; its {len(judgements)} answers count")
        if rater in best:
            say(f"{path.name}: listener {rater} has several files; the one with the most answers counts")
        rank = len(judgements), latest
        if rater not in best or rank > best[rater][0]:
            best[rater] = rank, judgements
    judgements = [judgement for _, found in best.values() for judgement in found]
    if not judgements:
        raise UserError(f"--analyse: {folder} has no answers to the test of this key; the files are called answers-*.json")
    return judgements


def _is_skipped(answer: Any) -> bool:
    """Whether a clip could not be loaded, so that the page let its listener go on without an answer."""
    return isinstance(answer, dict) and "clips" in answer and answer.get("value", "") is None


def _judgement(rater: str, answer: Any, key: Mapping[str, Any]) -> Judgement | None:
    try:
        clips, value = tuple(answer["clips"]), answer["value"]
        known = all(clip in key["clips"] for clip in clips)
    except (KeyError, TypeError):
        return None
    if not known:
        return None
    if len(clips) == 1 and value in (1, 2, 3, 4, 5):
        return Judgement(rater, clips, float(value))
    if len(clips) == 2 and value in ("a", "b", "none"):
        return Judgement(rater, clips, {"a": 1.0, "none": 0.5, "b": 0.0}[value])
    return None


def analyse(judgements: Sequence[Judgement], key: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """Means of ratings, wins and Bradley-Terry strengths of each system, and the agreement of listeners.

    Intervals are of 95% confidence over listeners, or over pieces where there is one listener alone.
    """
    system = lambda clip: key["clips"][clip]["system"]
    raters = sorted({judgement.rater for judgement in judgements})
    unit = (lambda judgement: judgement.rater) if len(raters) > 1 else (lambda judgement: key["clips"][judgement.clips[0]]["piece"])
    ratings = [judgement for judgement in judgements if len(judgement.clips) == 1]
    pairs = [judgement for judgement in judgements if len(judgement.clips) == 2]
    rows = {}
    for name in key["systems"]:
        mine = [judgement for judgement in ratings if system(judgement.clips[0]) == name]
        rows[name] = {"anchor": name in key["anchors"], "ratings": len(mine), "mos": None}
        if mine:
            rows[name]["mos"] = estimate(np.array([each.value for each in mine]), np.array([unit(each) for each in mine]), seed)
    wins = _wins(pairs, key["systems"], system, unit)
    for name, strength in zip(key["systems"], _strengths(wins, seed), strict=True):
        rows[name]["strength"] = strength
    return {
        "listeners": len(raters),
        "over": "listeners" if len(raters) > 1 else "pieces",
        "systems": rows,
        "wins": wins.sum(axis=0).tolist(),
        "pairs": len(pairs),
        "agreement": {
            "ratings": krippendorff([(each.clips, each.value) for each in ratings], lambda a, b: (a - b) ** 2),
            # The same two clips, whichever was A.
            "pairs": krippendorff(
                [(tuple(sorted(each.clips)), each.value if each.clips[0] < each.clips[1] else 1 - each.value) for each in pairs],
                lambda a, b: float(a != b),
            ),
        },
    }


def _wins(pairs: Sequence[Judgement], systems: Sequence[str], system, unit) -> np.ndarray:
    """How often one system was preferred to another, [U, S, S], for each listener (or piece) U; a draw is half a win for both."""
    place = {name: number for number, name in enumerate(systems)}
    units = {name: number for number, name in enumerate(sorted({unit(each) for each in pairs}))}
    wins = np.zeros((len(units), len(systems), len(systems)))
    for each in pairs:
        one, other = (place[system(clip)] for clip in each.clips)
        wins[units[unit(each)], one, other] += each.value
        wins[units[unit(each)], other, one] += 1 - each.value
    return wins


def bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Strengths [.., S] in log odds, their mean 0, from wins [.., S, S]: P(i is preferred to j) = 1 / (1 + exp(s_j - s_i)).

    By the MM algorithm (Hunter 2004, Annals of Statistics 32). nan for a system that met no other.
    """
    met = wins + wins.swapaxes(-1, -2) > 0
    wins = wins + PRIOR * met
    games, won, known = wins + wins.swapaxes(-1, -2), wins.sum(axis=-1), met.any(axis=-1)
    log = np.zeros(won.shape)
    for _ in range(ITERATIONS):
        strength = np.exp(log)
        share = (games / (strength[..., :, None] + strength[..., None, :])).sum(axis=-1)
        log = np.where(known, np.log(np.where(known, won, 1) / np.where(known, share, 1)), 0)
        log -= np.where(known, log.sum(axis=-1, keepdims=True) / np.maximum(known.sum(axis=-1, keepdims=True), 1), 0)
    return np.where(known, log, np.nan)


def _strengths(wins: np.ndarray, seed: int) -> list[Estimate | None]:
    """Each system's strength from wins [U, S, S], with its interval over U; None for one that met no other.

    What is drawn again counts only where every system that met others at all does so there, too.
    """
    units, count, _ = wins.shape
    whole = bradley_terry(wins.sum(axis=0))
    drawn = np.full((1, count), np.nan)
    if units > 1:
        times = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), RESAMPLES)
        drawn = bradley_terry(np.einsum("ru,uij->rij", times, wins))
        drawn = drawn[(np.isnan(drawn) == np.isnan(whole)).all(axis=1)]
    tail = 50 * (1 - CONFIDENCE)
    found = []
    for place in range(count):
        games = int((wins + wins.swapaxes(1, 2))[:, place].sum())
        low, high = np.percentile(drawn[:, place], [tail, 100 - tail]) if len(drawn) else (np.nan, np.nan)
        known = not np.isnan(whole[place])
        found.append(Estimate(float(whole[place]), float(low), float(high), games, units) if known else None)
    return found


def krippendorff(values: Sequence[tuple[Any, float]], distance: Callable[[float, float], float]) -> float | None:
    """Krippendorff's alpha of (unit, value) pairs, each from one listener: 1 for agreement, 0 for chance, below 0 for worse.

    From Hayes and Krippendorff (2007): 1 - observed over expected disagreement. None where no unit has two values, or where
    all values are the same.
    """
    units: dict[Any, list[float]] = {}
    for name, value in values:
        units.setdefault(name, []).append(value)
    shared = [found for found in units.values() if len(found) > 1]
    everything = [value for found in shared for value in found]
    if not everything:
        return None
    observed = sum(
        2 * sum(distance(a, b) for a, b in itertools.combinations(found, 2)) / (len(found) - 1) for found in shared
    )
    kinds, counts = np.unique(everything, return_counts=True)
    expected = sum(
        2 * counts[i] * counts[j] * distance(kinds[i], kinds[j]) for i, j in itertools.combinations(range(len(kinds)), 2)
    ) / (len(everything) - 1)
    return float(1 - observed / expected) if expected else None


def summary(found: Mapping[str, Any]) -> str:
    """The analysis in Markdown."""
    rows = []
    for name, row in found["systems"].items():
        mos, strength = (interval(each.mean, each.low, each.high, 2) if each else "-" for each in (row["mos"], row["strength"]))
        games = row["strength"].count if row["strength"] else 0
        rows.append((name + (" (anchor)" if row["anchor"] else ""), mos, str(row["ratings"]), strength, str(games)))
    header = ("system", "mean rating, 1 to 5", "ratings", "strength, log odds", "pairs")
    said = f"{found['listeners']} listener(s), {found['pairs']} pairs; intervals of 95% confidence over {found['over']}."
    parts = [said, markdown_table(header, rows)]
    if found["pairs"]:
        names = list(found["systems"])
        wins = [(name, *(f"{value:g}" for value in row)) for name, row in zip(names, found["wins"], strict=True)]
        parts.append(markdown_table(("preferred to", *names), wins))
    agreement = {name: "not known" if value is None else f"{value:.2f}" for name, value in found["agreement"].items()}
    parts.append(f"Krippendorff's alpha: ratings {agreement['ratings']}, pairs {agreement['pairs']} (1 agreement, 0 chance).")
    return "\n\n".join(parts)
