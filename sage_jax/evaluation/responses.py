"""Analyzes the responses to a listening test: mean ratings with intervals, preferences, and listener agreement."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sage_jax.errors import UserError
from sage_jax.evaluation.listening import key_path
from sage_jax.evaluation.results import to_jsonable
from sage_jax.evaluation.statistics import CONFIDENCE, RESAMPLES, Estimate, estimate, interval
from sage_jax.files import replacing
from sage_jax.markdown import markdown_table

PRIOR = 0.5  # pseudo-wins of each of two compared systems, which keep Bradley-Terry scores finite
ITERATIONS = 200


@dataclasses.dataclass(frozen=True)
class Response:
    """A rating of one clip from 1 to 5, or a preference between two: 1 for the first, 0 for the second, 0.5 for neither."""

    rater: str
    clips: tuple[str, ...]
    value: float


def analyse_test(folder: pathlib.Path, site: pathlib.Path) -> str:
    """Analyzes the answer files in `folder` to the test in the folder `site`, and returns the summary in Markdown.

    Writes it next to `site`, as SITE.results.md and SITE.results.json. Raises UserError without a readable key or answers.
    """
    path = key_path(site)
    try:
        key = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}); give the --output that the test was made with") from error
    analysis = analyse(load_responses(folder, key), key)
    text = summary(analysis)
    name = f"{site.resolve().name}.results"
    with replacing(path.with_name(f"{name}.md")) as temporary:
        temporary.write_text(text + "\n")
    with replacing(path.with_name(f"{name}.json")) as temporary:
        temporary.write_text(json.dumps(to_jsonable(analysis), indent=1) + "\n")
    return text


def load_responses(folder: pathlib.Path, key: Mapping[str, Any], say: Callable[[str], None] = print) -> list[Response]:
    """The responses in all JSON files of `folder` to the test of `key`. Reports unusable files and answers in a line each.

    If a listener has several files, the one with the most answers counts, and of equals the latest. Raises UserError if there
    are none.
    """
    if not folder.is_dir():
        raise UserError(f"--analyse: {folder} is not a folder; give the folder with the answers")
    best: dict[str, tuple[tuple[int, str], list[Response]]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text())
            rater, answers = str(content["rater"]), dict(content["answers"])
            test, complete = content["test"], bool(content.get("complete"))
        except (OSError, ValueError, KeyError, TypeError):
            say(f"{path.name}: not a complete file of answers; ignored")
            continue
        if test != key["test"]:
            say(f"{path.name}: answers to another test ({test}, not {key['test']}); ignored")
            continue
        responses, invalid, latest = [], 0, ""
        for answer in answers.values():
            response = _parse(rater, answer, key)
            if response:
                responses.append(response)
                latest = max(latest, str(answer.get("at", "")))
            elif not _is_skipped(answer):
                invalid += 1
        if invalid:
            say(f"{path.name}: {invalid} of {len(answers)} answers are invalid; ignored")
        if not complete:
            say(f"{path.name}: not finished; its {len(responses)} answers count")
        if rater in best:
            say(f"{path.name}: listener {rater} has several files; the one with the most answers counts")
        rank = len(responses), latest
        if rater not in best or rank > best[rater][0]:
            best[rater] = rank, responses
    responses = [response for _, found in best.values() for response in found]
    if not responses:
        raise UserError(f"--analyse: {folder} has no answers to the test of this key; the files are named answers-*.json")
    return responses


def _is_skipped(answer: Any) -> bool:
    """Whether the page skipped this item because a clip could not be loaded."""
    return isinstance(answer, dict) and "clips" in answer and answer.get("value", "") is None


def _parse(rater: str, answer: Any, key: Mapping[str, Any]) -> Response | None:
    """The response that an answer of the page encodes; None for an invalid one."""
    try:
        clips, value = tuple(answer["clips"]), answer["value"]
        known = all(clip in key["clips"] for clip in clips)
    except (KeyError, TypeError):
        return None
    if not known:
        return None
    if len(clips) == 1 and value in (1, 2, 3, 4, 5):
        return Response(rater, clips, float(value))
    if len(clips) == 2 and value in ("a", "b", "none"):
        return Response(rater, clips, {"a": 1.0, "none": 0.5, "b": 0.0}[value])
    return None


def analyse(responses: Sequence[Response], key: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """Mean ratings (MOS), wins and Bradley-Terry scores of each system, and the agreement of listeners.

    Confidence intervals are over listeners; for a single listener, over pieces.
    Returns listeners, over, systems (anchor, ratings, mos, bradley_terry of each), wins [S, S], pairs and agreement.
    """
    system = lambda clip: key["clips"][clip]["system"]
    raters = sorted({response.rater for response in responses})
    by_rater = lambda response: response.rater
    by_piece = lambda response: key["clips"][response.clips[0]]["piece"]
    unit = by_rater if len(raters) > 1 else by_piece
    ratings = [response for response in responses if len(response.clips) == 1]
    pairs = [response for response in responses if len(response.clips) == 2]
    rows: dict[str, dict[str, Any]] = {}
    for name in key["systems"]:
        mine = [response for response in ratings if system(response.clips[0]) == name]
        rows[name] = {"anchor": name in key["anchors"], "ratings": len(mine), "mos": None}
        if mine:
            rows[name]["mos"] = estimate(np.array([each.value for each in mine]), np.array([unit(each) for each in mine]), seed)
    wins = _wins(pairs, key["systems"], system, unit)
    for name, score in zip(key["systems"], _scores(wins, seed), strict=True):
        rows[name]["bradley_terry"] = score
    return {
        "listeners": len(raters),
        "over": "listeners" if len(raters) > 1 else "pieces",
        "systems": rows,
        "wins": wins.sum(axis=0).tolist(),
        "pairs": len(pairs),
        "agreement": {
            "ratings": krippendorff([(each.clips, each.value) for each in ratings], lambda a, b: (a - b) ** 2),
            # The value of a pair is relative to the order of its clips.
            "pairs": krippendorff(
                [(tuple(sorted(each.clips)), each.value if _is_sorted(each) else 1 - each.value) for each in pairs],
                lambda a, b: float(a != b),
            ),
        },
    }


def _is_sorted(pair: Response) -> bool:
    return pair.clips[0] < pair.clips[1]


def _wins(
    pairs: Sequence[Response], systems: Sequence[str], system: Callable[[str], str], unit: Callable[[Response], str]
) -> np.ndarray:
    """Wins of each system over each other, [U, S, S], for each of U listeners or pieces. A draw is half a win for both."""
    place = {name: number for number, name in enumerate(systems)}
    units = {name: number for number, name in enumerate(sorted({unit(each) for each in pairs}))}
    wins = np.zeros((len(units), len(systems), len(systems)))
    for each in pairs:
        one, other = (place[system(clip)] for clip in each.clips)
        wins[units[unit(each)], one, other] += each.value
        wins[units[unit(each)], other, one] += 1 - each.value
    return wins


def bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Bradley-Terry scores [.., S] in log odds with mean 0, from wins [.., S, S]: P(i preferred to j) = 1 / (1 + exp(s_j -
    s_i)).

    Computed by the MM algorithm (Hunter 2004, Annals of Statistics 32). nan for a system that was never compared.
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


def _scores(wins: np.ndarray, seed: int) -> list[Estimate | None]:
    """The Bradley-Terry score of each system from wins [U, S, S], with its interval over U; None for one never compared.

    A bootstrap resample counts only if it compares the same systems as the whole sample does.
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
    """Krippendorff's alpha of (unit, value) pairs, each from one listener: 1 for agreement, 0 for chance, negative for worse.

    From Hayes and Krippendorff (2007): 1 - observed / expected disagreement. None if no unit has two values or all values are
    equal.
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


def summary(analysis: Mapping[str, Any]) -> str:
    """What `analyse` returned, in Markdown."""
    rows = []
    for name, row in analysis["systems"].items():
        estimates = (row["mos"], row["bradley_terry"])
        mos, score = (interval(each.mean, each.low, each.high, 2) if each else "-" for each in estimates)
        pairs = row["bradley_terry"].count if row["bradley_terry"] else 0
        rows.append((name + (" (anchor)" if row["anchor"] else ""), mos, str(row["ratings"]), score, str(pairs)))
    header = ("system", "mean rating, 1 to 5", "ratings", "Bradley-Terry score, log odds", "pairs")
    sample = f"{analysis['listeners']} listener(s), {analysis['pairs']} pairs; 95% intervals over {analysis['over']}."
    parts = [sample, markdown_table(header, rows)]
    if analysis["pairs"]:
        names = list(analysis["systems"])
        wins = [(name, *(f"{value:g}" for value in row)) for name, row in zip(names, analysis["wins"], strict=True)]
        parts.append(markdown_table(("preferred to", *names), wins))
    agreement = {name: "undefined" if value is None else f"{value:.2f}" for name, value in analysis["agreement"].items()}
    parts.append(f"Krippendorff's alpha: ratings {agreement['ratings']}, pairs {agreement['pairs']} (1 agreement, 0 chance).")
    return "\n\n".join(parts)
