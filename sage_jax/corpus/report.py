"""The report of preprocessing: kept and dropped files, splits, near-duplicates and quantization statistics."""

import collections
from collections.abc import Iterator
from typing import Any

import numpy as np

from sage_jax.corpus.near_duplicates import duplicate_groups
from sage_jax.corpus.record_table import TIMES, RecordTable
from sage_jax.music.quantization_stats import stats_rows

SHOWN = 20  # entries of each list in the text; the JSON has all entries
COUNTS = {"notes": "notes", "bars": "bars", "events": "length"}  # per split: name in the report -> column of the table


def make_report(
    identity: dict[str, Any],
    records: RecordTable,
    splits: dict[str, np.ndarray],
    copies: dict[str, str],
    near: dict[str, Any],
) -> dict[str, Any]:
    """The report as a JSON-serializable dictionary.

    splits: rows of the kept files, by split. copies: dropped file -> identical kept file.
    near: near-duplicates. 'groups' holds lists of names; 'left_out' maps each dropped file to the 'split' of its content hash
    and to a kept file that it is 'like'.
    """
    dropped = collections.defaultdict(dict)
    for row, (reason, message) in sorted(records.dropped.items()):
        dropped[reason][records.names[row]] = message
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
        "versions": [[records.names[used[piece]] for piece in group] for group in duplicate_groups(versions)],
        "splits": {split: _counts(records, pieces) for split, pieces in splits.items()},
        "loss": records.total_stats().to_dict(),
        "worker_seconds": seconds,
        "files_per_second_per_core": len(read) / max(seconds, 1e-9),
        "parsing_share": parsing / max(seconds, 1e-9),
    }


def _counts(records: RecordTable, pieces: np.ndarray) -> dict[str, int]:
    return {"pieces": len(pieces), **{name: int(records[field][pieces].sum()) for name, field in COUNTS.items()}}


def format_report(report: dict[str, Any]) -> str:
    """The report as text."""
    return "".join(f"{line.rstrip()}\n" for part in (_files, _splits, _loss, _lists) for line in part(report))


def _files(report: dict[str, Any]) -> Iterator[str]:
    reasons = [f"{len(files):,} {reason}" for reason, files in report["dropped"].items()]
    copies, versions = report["identical_copies"], report["versions"]
    yield _row("corpus", _printable(report["corpus"]))
    yield _row("files", f"{report['files']:,} found, {report['kept']:,} kept")
    yield _row("dropped", ", ".join(reasons) or "none")
    yield _row(
        "duplicates",
        f"{len(copies):,} identical copies left out; {sum(map(len, versions)):,} versions of {len(versions):,} pieces",
        "(another key, tempo or instrumentation); versions stay in one split",
    )
    yield from _near(report["near_duplicates"])
    yield _row(
        "speed",
        f"{report['files_per_second_per_core']:.1f} files per second per core;",
        f"parsing MIDI takes {report['parsing_share']:.1%} of the time",
    )


def _near(near: dict[str, Any]) -> Iterator[str]:
    sizes, splits = [len(group) for group in near["groups"]], [each["split"] for each in near["left_out"].values()]
    yield _row(
        "similar",
        f"{sum(sizes):,} near-duplicates (pieces with much the same melody)",
        f"in {len(sizes):,} groups of up to {max(sizes, default=0):,};",
        f"{len(splits):,} left out ({splits.count('valid'):,} from valid, {splits.count('test'):,} from test)",
        "because a similar piece is in an earlier split",
    )


def _splits(report: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield _row("split", "".join(f"{name:>12}" for name in ("pieces", *COUNTS)))
    for split, counts in report["splits"].items():
        yield _row(split, "".join(f"{count:12,}" for count in counts.values()))
    empty = [split for split, counts in report["splits"].items() if not counts["pieces"]]
    if empty:
        yield f"No piece in {' and '.join(empty)}: at least three different pieces are needed to fill all splits."


def _loss(report: dict[str, Any]) -> Iterator[str]:
    loss = report["loss"]
    yield ""
    yield f"Changes to {loss['notes']:,} notes, quantized to {report['tokenizer']['ticks_per_quarter']} ticks per quarter"
    for subject, text, _ in stats_rows(loss):
        yield _row(subject, text)


def _lists(report: dict[str, Any]) -> Iterator[str]:
    dropped = [(name, f"{reason}: {why}") for reason, files in report["dropped"].items() for name, why in files.items()]
    copies = [(copy, f"a copy of {kept}") for copy, kept in report["identical_copies"].items()]
    left_out = report["near_duplicates"]["left_out"]
    near = [(name, f"from {each['split']}, similar to {each['like']}") for name, each in left_out.items()]
    for title, rows in (("Dropped", dropped), ("Identical copies left out", copies), ("Near-duplicates left out", near)):
        if rows:
            yield ""
            yield title
        for name, text in rows[:SHOWN]:
            yield _printable(f"{name}  {text}")
        if len(rows) > SHOWN:
            yield f"and {len(rows) - SHOWN:,} more in report.json"


def _row(label: str, *parts: str) -> str:
    return f"{label:<12}{' '.join(parts)}"


def _printable(text: str) -> str:
    """`text` on one line, with unprintable characters escaped: file names may contain any bytes."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
