"""Makes a listening test: a static web page that is blind, randomized and anchored, and a key from clips to systems.

File names, orders and the test's id come from the operating system's randomness. Nothing in the page, in file names or in file
times reveals the system of a clip.
"""

import collections
import dataclasses
import importlib.resources
import itertools
import json
import os
import pathlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sage_jax.corpus.splits import subsample_evenly
from sage_jax.errors import UserError
from sage_jax.files import write_json
from sage_jax.music.midi import read_midi
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.rendering.audio import MAX_SECONDS, render_mp3

TICKS_PER_QUARTER = 96  # fine enough to keep the timing of the file
FORMS = 60  # randomized orders of clips; each listener gets one
RESPONSE_SECONDS = 12.0  # estimated time of a response, without listening
PATTERNS = ("*.mid", "*.midi")


@dataclasses.dataclass(frozen=True)
class ListeningConfig:
    """Settings of a listening test. Raises UserError naming the flag.

    clips: the maximum number of pieces of each system. ratings: clips that a listener rates from 1 to 5.
    pairs: pairs of clips with the same prompt that a listener compares. prompt_bars: bars of the prompt.
    anchors: systems of known quality, such as the reference and a baseline. title: of the page.
    post: URL that accepts answers by POST; empty for download only.
    """

    clips: int = 10
    ratings: int = 15
    pairs: int = 10
    prompt_bars: int = 4
    anchors: tuple[str, ...] = ()
    title: str = "Listening test"
    post: str = ""

    def __post_init__(self):
        for field, low in (("clips", 1), ("ratings", 0), ("pairs", 0), ("prompt_bars", 0)):
            if getattr(self, field) < low:
                raise UserError(f"--{field} is {getattr(self, field)}; give at least {low}")
        if not self.ratings + self.pairs:
            raise UserError("--ratings and --pairs are both 0; set at least one")
        if self.post and not self.post.startswith(("http://", "https://")):
            raise UserError(f"--post is {self.post!r}; give a URL that begins with https://")


def example_outputs(examples: pathlib.Path, into: pathlib.Path) -> dict[str, pathlib.Path]:
    """Sorts the files PROMPT-SYSTEM.mid of a folder of launch.examples into a folder of each system in `into`, for make_test.

    Raises UserError for a folder without such files.
    """
    outputs: dict[str, pathlib.Path] = {}
    for path in sorted(examples.glob("*-*.mid")):
        prompt, _, system = path.stem.partition("-")
        outputs[system] = into / system
        outputs[system].mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, outputs[system] / f"{prompt}.mid")
    if not outputs:
        raise UserError(f"--examples: {examples} has no files PROMPT-SYSTEM.mid; give a folder of launch.examples")
    return outputs


def make_test(
    outputs: Mapping[str, pathlib.Path],
    site: pathlib.Path,
    config: ListeningConfig,
    say: Callable[[str], None] = print,
) -> pathlib.Path:
    """Writes the page and its clips to the new folder `site`, and the key next to it. Returns the path of the key.

    outputs: a folder of MIDI files for each system; files of the same name continue the same prompt.
    Raises UserError for folders with different files, files without notes, and an existing `site`.
    """
    if not outputs:
        raise UserError("--outputs: give a folder for each system, such as --outputs model=generated truth=originals")
    for anchor in config.anchors:
        if anchor not in outputs:
            raise UserError(f"--anchors: there is no output named {anchor}; choose from {', '.join(outputs)}")
    if len(outputs) < 2 and not config.ratings:
        raise UserError("--outputs: pairs need at least two systems")
    site = site.resolve()
    key = key_path(site)
    for path in (site, key):
        if path.exists():
            raise UserError(f"{path} exists, and answers may belong to it; choose another --output, or move it away")
    names = _common_names(outputs)
    if not config.anchors:
        say("no --anchors: without a system of known quality, ratings are not comparable with those of another test")
    rng = np.random.default_rng(secrets.randbits(128))
    try:
        site.parent.mkdir(parents=True, exist_ok=True)
        staging = tempfile.TemporaryDirectory(dir=site.parent, prefix=f".{site.name}.")
    except OSError as error:
        raise UserError(f"cannot write {site}: {error.strerror}; choose another --output") from error
    with staging:  # renamed to `site` when complete
        made = pathlib.Path(staging.name) / "site"
        (made / "clips").mkdir(parents=True)
        clips, owners = {}, {}
        for name in subsample_evenly(names, config.clips):
            for system, folder in outputs.items():
                clip = secrets.token_hex(6)
                piece = read_midi(folder / name, TICKS_PER_QUARTER)
                if not len(piece.notes):
                    raise UserError(f"{folder / name} has no notes and cannot be judged; remove it from every folder")
                if piece.seconds(piece.end) > MAX_SECONDS:
                    raise UserError(f"{folder / name} is longer than {MAX_SECONDS / 60:.0f} minutes; give shorter files")
                seconds = render_mp3(piece, made / "clips" / f"{clip}.mp3").seconds
                clips[clip] = _piano_roll(piece, seconds, config.prompt_bars)
                owners[clip] = {"system": system, "piece": name}
            say(f"{name}: {len(outputs)} clips")
        clips = dict(sorted(clips.items()))
        for clip in clips:
            os.utime(made / "clips" / f"{clip}.mp3", (0, 0))
        forms = [_form(owners, config, rng) for _ in range(FORMS)]
        listening = sum(clips[clip]["seconds"] for form in forms for item in form for clip in item) / FORMS
        test = {
            "id": secrets.token_hex(6),
            "title": config.title,
            "post": config.post,
            "format": "mp3",
            "minutes": (listening + RESPONSE_SECONDS * len(forms[0])) / 60,
            "clips": clips,
            "forms": forms,
        }
        page = importlib.resources.files("sage_jax.evaluation").joinpath("listening.html").read_text()
        # A closing tag inside a title must not end the script.
        (made / "index.html").write_text(page.replace("/*TEST*/", json.dumps(test).replace("<", "\\u003c")))
        answer = {"test": test["id"], "systems": list(outputs), "anchors": list(config.anchors), "clips": owners}
        write_json(key, answer, indent=1)
        made.rename(site)
    return key


def key_path(site: pathlib.Path) -> pathlib.Path:
    """The path of the key of the test in the folder `site`: next to it, so that the folder can be published as it is."""
    site = site.resolve()
    return site.with_name(f"{site.name}.key.json")


def _common_names(outputs: Mapping[str, pathlib.Path]) -> list[str]:
    """The file names that all folders share, sorted. Raises UserError if the folders differ."""
    found = {}
    for system, folder in outputs.items():
        if not folder.is_dir():
            raise UserError(f"--outputs: {system} is {folder}, which is not a folder; give a folder of MIDI files")
        found[system] = {path.name for pattern in PATTERNS for path in folder.glob(pattern)}
        if not found[system]:
            raise UserError(f"--outputs: {folder} of {system} has no MIDI file")
    everything = sorted(set.union(*found.values()))
    for name in everything:
        lacking = [system for system in outputs if name not in found[system]]
        if lacking:
            owner = next(system for system in outputs if name in found[system])
            raise UserError(
                f"--outputs: {lacking[0]} lacks {name}, which {owner} has; files of one name continue one prompt, so add "
                f"{outputs[lacking[0]] / name}, or remove {name} from every folder"
            )
    return everything


def _piano_roll(piece: Piece, seconds: float, prompt_bars: int) -> dict[str, Any]:
    """The piano roll of the page: notes as [start, end, pitch, voice] in seconds, voice -1 for drums; the end of the prompt."""
    notes = piece.notes
    programs = [program for program in dict.fromkeys(notes["program"].tolist()) if program != DRUMS]
    voices = {program: number for number, program in enumerate(programs)} | {DRUMS: -1}
    starts, ends = (np.round(piece.seconds(ticks), 3) for ticks in (notes["onset"], notes["onset"] + notes["duration"]))
    rows = zip(starts.tolist(), ends.tolist(), notes["pitch"].tolist(), notes["program"].tolist(), strict=True)
    prompt_end = float(piece.seconds(piece.bar_start(prompt_bars))) if prompt_bars else 0.0
    return {
        "seconds": round(seconds, 3),
        "prompt": round(prompt_end, 3),
        "notes": [[start, end, pitch, voices[program]] for start, end, pitch, program in rows],
    }


def _form(owners: Mapping[str, Mapping[str, str]], config: ListeningConfig, rng: np.random.Generator) -> list[list[str]]:
    """A randomized order: first single clips, balanced over systems, then pairs, balanced over pairs of systems.

    The same prompt does not follow itself where avoidable. The order within a pair is random.
    """
    by_system: dict[str, list[str]] = {}
    for clip, owner in owners.items():
        by_system.setdefault(owner["system"], []).append(clip)
    singles = _balanced([[[clip] for clip in clips] for clips in by_system.values()], config.ratings, rng)
    couples = []
    for one, other in itertools.combinations(by_system, 2):
        pieces = {owners[clip]["piece"]: clip for clip in by_system[other]}
        couples.append([list(rng.permutation([clip, pieces[owners[clip]["piece"]]])) for clip in by_system[one]])
    pairs = _balanced(couples, config.pairs, rng)
    piece = lambda item: owners[item[0]]["piece"]
    return [*_apart(singles, piece), *_apart(pairs, piece)]


def _balanced(groups: list[list[Any]], count: int, rng: np.random.Generator) -> list[Any]:
    """At most `count` items, taken in turn from the shuffled groups, in random order."""
    shuffled = [[group[place] for place in rng.permutation(len(group))] for group in groups]
    shuffled = [shuffled[place] for place in rng.permutation(len(shuffled))]
    turns = [group[turn] for turn in range(max(map(len, shuffled), default=0)) for group in shuffled if turn < len(group)]
    return [turns[place] for place in rng.permutation(min(count, len(turns)))]


def _apart(items: list[Any], piece: Callable[[Any], str]) -> list[Any]:
    """Orders `items` so that none follows one of the same piece where avoidable: greedily by the most remaining items."""
    waiting, order = list(items), []
    while waiting:
        left = collections.Counter(map(piece, waiting))
        others = [place for place, item in enumerate(waiting) if not order or piece(item) != piece(order[-1])]
        place = max(others or range(len(waiting)), key=lambda place: left[piece(waiting[place])])
        order.append(waiting.pop(place))
    return order
