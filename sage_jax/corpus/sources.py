"""Named corpora as lists of MIDI files."""

import os
import pathlib
from collections.abc import Iterator

from sage_jax.corpus.music21_scores import write_scores
from sage_jax.errors import UserError

SUFFIXES = (".mid", ".midi", ".kar", ".rmi")
_PACKAGED = pathlib.Path(__file__).parent / "embedded"  # where setup.py copies third_party/midi in a wheel
EMBEDDED = _PACKAGED if _PACKAGED.is_dir() else pathlib.Path(__file__).parents[2] / "third_party" / "midi"


def list_corpus(name: str) -> list[tuple[str, str]]:
    """(name within the corpus, absolute path) of each MIDI file, sorted by name.

    name: 'embedded', 'music21', 'music21:COMPOSER' or 'folder:PATH'. Raises UserError for other names, and for a
    missing or empty corpus.
    """
    kind, _, argument = name.partition(":")
    takes_one = {"embedded": (False,), "music21": (False, True), "folder": (True,)}.get(kind, ())
    if bool(argument) not in takes_one or name.endswith(":"):
        raise UserError(f"data.corpus is {name!r}; choose embedded, music21, music21:COMPOSER or folder:PATH")
    folder = CORPORA[kind](argument)
    files = sorted((os.path.relpath(path, folder).replace(os.sep, "/"), path) for path in _walk(folder))
    if not files:
        raise UserError(f"data.corpus: no {', '.join(SUFFIXES)} file in {folder} or its subfolders; choose another folder")
    return files


def full_name(name: str) -> str:
    """The name of a corpus, with the absolute path if it is a folder. Raises UserError for a missing folder."""
    kind, _, argument = name.partition(":")
    return f"{kind}:{_folder(argument)}" if kind == "folder" else name


def _embedded(_: str) -> str:
    if not EMBEDDED.is_dir():
        raise UserError(f"data.corpus: {EMBEDDED} is missing; install sage_jax again, or use folder:PATH")
    return str(EMBEDDED)


def _music21(composer: str) -> str:
    scores = write_scores()
    composers = sorted(path.name for path in scores.iterdir() if path.is_dir())
    if composer and composer not in composers:
        raise UserError(f"data.corpus is 'music21:{composer}'; the composers there are {', '.join(composers)}")
    return str(scores / composer)


def _folder(path: str) -> str:
    folder = os.path.abspath(os.path.expanduser(path))
    if not os.path.isdir(folder):
        raise UserError(f"data.corpus: {folder} is not a folder; give folder:PATH with the path of one")
    return folder


CORPORA = {"embedded": _embedded, "music21": _music21, "folder": _folder}


def _walk(folder: str) -> Iterator[str]:
    """MIDI files in `folder` and its subfolders. Links are followed; each folder is entered once, so loops end."""
    unreadable: list[OSError] = []
    entered = {os.path.realpath(folder)}
    for root, subfolders, files in os.walk(folder, onerror=unreadable.append, followlinks=True):
        for subfolder in sorted(subfolders):
            real = os.path.realpath(os.path.join(root, subfolder))
            if real in entered:
                subfolders.remove(subfolder)
            entered.add(real)
        subfolders.sort()
        yield from (os.path.join(root, file) for file in files if file.lower().endswith(SUFFIXES))
    yield from (error.filename for error in unreadable)  # folders that cannot be listed: reported as unreadable files
