"""Finalizes the shards of a corpus: removes duplicates, assigns splits, and writes the report and the index."""

import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from sage_jax.corpus.near_duplicates import duplicate_groups, near_duplicates
from sage_jax.corpus.record_table import RecordTable
from sage_jax.corpus.report import format_report, make_report
from sage_jax.corpus.shards import INDEX, REPORT, read_header, remove_shards, shard_path
from sage_jax.corpus.splits import SPLITS, assign_splits, cross_split_duplicates
from sage_jax.errors import UserError
from sage_jax.files import replacing, write_json


def finalize_corpus(folder: pathlib.Path, identity: dict[str, Any], listing: str, records: RecordTable) -> dict[str, Any]:
    """Writes the report and the index, removes shards without current files, and returns the report.

    listing: hash of the corpus's files and stamps, stored in the index.
    The result depends only on the records, whichever runner wrote them and in any order. Raises UserError if no file is kept.
    """
    names = records.names
    kept, copies = _without_copies(records)
    hashes = [each.decode() for each in records["hash"][kept].tolist()]
    split_of = assign_splits(hashes)
    hash_splits = [split_of[each] for each in hashes]
    groups = near_duplicates(records["sketch"][kept])
    left_out = cross_split_duplicates(hash_splits, groups.tolist())
    near = {
        "groups": [[names[kept[piece]] for piece in group] for group in duplicate_groups(groups)],
        "left_out": {
            names[kept[piece]]: {"split": hash_splits[piece], "like": names[kept[like]]} for piece, like in left_out.items()
        },
    }
    used = np.ones(len(kept), bool)
    used[list(left_out)] = False
    splits = {split: kept[(np.array(hash_splits, object) == split) & used] for split in SPLITS}
    report = make_report(identity, records, splits, copies, near)
    write_json(folder / REPORT, report, indent=2)
    with replacing(folder / "report.txt") as temporary:
        temporary.write_text(format_report(report))
    if not len(kept):
        raise UserError(f"data.corpus: no file of {identity['corpus']} can be used; {folder / 'report.txt'} lists the reasons")
    shards = np.unique(records["shard"]).tolist()
    _write_index(folder, listing, records, splits, shards)
    remove_shards(folder, keep=set(shards))
    return {**report, "reused": False}


def _without_copies(records: RecordTable) -> tuple[np.ndarray, dict[str, str]]:
    """The rows of readable files without identical copies, and a mapping from each copy's name to the kept file's name.

    The first file with given events is kept.
    """
    readable = records.readable()
    _, first, inverse = np.unique(records["digest"][readable], return_index=True, return_inverse=True)
    originals = readable[first[inverse]]
    copied = readable != originals
    pairs: Iterable[tuple[int, int]] = zip(readable[copied].tolist(), originals[copied].tolist(), strict=True)
    return readable[~copied], {records.names[copy]: records.names[original] for copy, original in pairs}


def _write_index(
    folder: pathlib.Path, listing: str, records: RecordTable, splits: dict[str, np.ndarray], shards: list[int]
) -> None:
    pieces = {}
    for split, rows in splits.items():
        locations = {f"{field}s": records[field][rows].tolist() for field in ("shard", "start", "length")}
        pieces[split] = {"names": [records.names[row] for row in rows.tolist()], **locations}
    num_events = {str(number): read_header(shard_path(folder, number))["rows"] for number in shards}
    write_json(folder / INDEX, {"listing": listing, "shards": num_events, "splits": pieces})
