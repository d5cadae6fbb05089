"""What became of a corpus in preprocessing: files, notes, splits, and what the grid lost."""

import collections
from collections.abc import Iterator
from typing import Any

import numpy as np

from sage_jax.music.loss import loss_rows
from sage_jax.music.records import TIMES, Records
from sage_jax.music.sketch import members

SHOWN = 20  # lines of a list in the text; the JSON has them all
COUNTS = {"notes": "notes", "bars": "bars", "events": "length"}  # by split: what is counted -> the records' field


def make_report(
    identity: dict[str, Any],
    records: Records,
    splits: dict[str, np.ndarray],
    copies: dict[str, str],
    near: dict[str, Any],
) -> dict[str, Any]:
    """The report, JSON-ready.

    splits: the places of the files that are used, by split. copies: file left out -> equal file kept.
    near: near-duplicates, 'groups' of names, and those that were 'left_out', each with the 'split' it would be in and what
    it is 'like'.
    """
    dropped = collections.defaultdict(dict)
    for place, (reason, message) in sorted(records.dropped.items()):
        dropped[reason][records.names[place]] = message
    read = records.readable()
    used = np.concatenate([*splits.values()])
    _, versions = np.unique(records["hash"][used], return_inverse=True)
    seconds, parsing = (float(records[field][read].sum()) for field in TIMES)
    return {
        **identity,
        "files": len(records),
        "kept": len(used),
        "dropped": {reason: dropped[reason] for reason in sorted(dropped)},
        "identical_copies": copies,
        "near_duplicates": near,
        "versions": [[records.names[used[piece]] for piece in group] for group in members(versions)],
        "splits": {split: _counts(records, pieces) for split, pieces in splits.items()},
        "loss": records.summed_loss().to_dict(),
        "worker_seconds": seconds,
        "files_per_second_per_core": len(read) / max(seconds, 1e-9),
        "parsing_share": parsing / max(seconds, 1e-9),
    }


def _counts(records: Records, pieces: np.ndarray) -> dict[str, int]:
    return {"pieces": len(pieces), **{name: int(records[field][pieces].sum()) for name, field in COUNTS.items()}}


def format_report(report: dict[str, Any]) -> str:
    """The report as lines for people."""
    return "".join(f"{line.rstrip()}\n" for part in (_files, _splits, _loss, _lists) for line in part(report))


def _files(report: dict[str, Any]) -> Iterator[str]:
    reasons = [f"{len(files):,} {reason}" for reason, files in report["dropped"].items()]
    copies, versions = report["identical_copies"], report["versions"]
    yield _row("corpus", _printable(report["corpus"]))
    yield _row("files", f"{report['files']:,}, of them {report['kept']:,} kept")
    yield _row("dropped", ", ".join(reasons) or "none")
    yield _row(
        "duplicates",
        f"{len(copies):,} identical copies left out; {sum(map(len, versions)):,} pieces are versions of {len(versions):,}",
        "(in another key, time or scoring), kept in the same split",
    )
    yield from _near(report["near_duplicates"])
    yield _row(
        "speed",
        f"{report['files_per_second_per_core']:.1f} files per second per core;",
        f"{report['parsing_share']:.1%} of the time is parsing MIDI",
    )


def _near(near: dict[str, Any]) -> Iterator[str]:
    sizes, splits = [len(group) for group in near["groups"]], [each["split"] for each in near["left_out"].values()]
    yield _row(
        "alike",
        f"{sum(sizes):,} pieces share much of their melody with others,",
        f"in {len(sizes):,} groups of up to {max(sizes, default=0):,};",
        f"{len(splits):,} left out ({splits.count('valid'):,} of valid, {splits.count('test'):,} of test),",
        "whose like is in an earlier split",
    )


def _splits(report: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield _row("split", "".join(f"{name:>12}" for name in ("pieces", *COUNTS)))
    for split, counts in report["splits"].items():
        yield _row(split, "".join(f"{count:12,}" for count in counts.values()))
    empty = [split for split, counts in report["splits"].items() if not counts["pieces"]]
    if empty:
        yield f"No piece in {' and '.join(empty)}: it takes three different pieces to fill every split."


def _loss(report: dict[str, Any]) -> Iterator[str]:
    loss = report["loss"]
    yield ""
    yield f"Lost of {loss['notes']:,} notes on a grid of {report['tokenizer']['ticks_per_quarter']} ticks per quarter"
    for subject, text, _ in loss_rows(loss):
        yield _row(subject, text)


def _lists(report: dict[str, Any]) -> Iterator[str]:
    dropped = [(name, f"{reason}: {why}") for reason, files in report["dropped"].items() for name, why in files.items()]
    copies = [(copy, f"a copy of {kept}") for copy, kept in report["identical_copies"].items()]
    left_out = report["near_duplicates"]["left_out"]
    near = [(name, f"of {each['split']}, like {each['like']}") for name, each in left_out.items()]
    for title, rows in (("Dropped", dropped), ("Identical copies left out", copies), ("Near-duplicates left out", near)):
        if rows:
            yield ""
            yield title
        for name, text in rows[:SHOWN]:
            yield _printable(f"{name}  {text}")
        if len(rows) > SHOWN:
            yield f"and {len(rows) - SHOWN:,} more, in report.json"


def _row(label: str, *parts: str) -> str:
    return f"{label:<12}{' '.join(parts)}"


def _printable(text: str) -> str:
    """`text` on one line of a terminal, whatever bytes a file is named with."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
