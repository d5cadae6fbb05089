"""What the shards of a corpus come to: copies and near-duplicates left out, splits, the report and the index."""

import pathlib
from typing import Any

import numpy as np

from sage_jax.errors import UserError
from sage_jax.files import replacing, write_json
from sage_jax.music.corpus import SPLITS, assign_splits, find_strays
from sage_jax.music.records import Records
from sage_jax.music.report import format_report, make_report
from sage_jax.music.shards import INDEX, REPORT, read_head, remove_shards, shard_path
from sage_jax.music.sketch import members, near_duplicates


def merge(folder: pathlib.Path, identity: dict[str, Any], listing: str, records: Records) -> dict[str, Any]:
    """Writes the report and the index, removes the shards of files that are gone or have changed, and returns the report.

    It depends on what the records say alone, not on who wrote them or in what order. Raises UserError where nothing is kept.
    """
    names = records.names
    kept, copies = _without_copies(records)
    hashes = [each.decode() for each in records["hash"][kept].tolist()]
    split_of = assign_splits(hashes)
    found = [split_of[each] for each in hashes]
    groups = near_duplicates(records["sketch"][kept])
    strays = find_strays(found, groups.tolist())
    near = {
        "groups": [[names[kept[piece]] for piece in group] for group in members(groups)],
        "left_out": {names[kept[piece]]: {"split": found[piece], "like": names[kept[like]]} for piece, like in strays.items()},
    }
    used = np.ones(len(kept), bool)
    used[list(strays)] = False
    splits = {split: kept[(np.array(found, object) == split) & used] for split in SPLITS}
    report = make_report(identity, records, splits, copies, near)
    write_json(folder / REPORT, report, indent=2)
    with replacing(folder / "report.txt") as temporary:
        temporary.write_text(format_report(report))
    if not len(kept):
        raise UserError(f"data.corpus: no file of {identity['corpus']} can be used; {folder / 'report.txt'} says why of each")
    shards = np.unique(records["shard"]).tolist()
    _write_index(folder, listing, records, splits, shards)
    remove_shards(folder, but=set(shards))
    return {**report, "reused": False}


def _without_copies(records: Records) -> tuple[np.ndarray, dict[str, str]]:
    """The places of files of which no earlier one has the same events, and each other one's name -> that earlier one's."""
    readable = records.readable()
    _, first, which = np.unique(records["digest"][readable], return_index=True, return_inverse=True)
    originals = readable[first[which]]
    copied = readable != originals
    pairs = zip(readable[copied].tolist(), originals[copied].tolist(), strict=True)
    return readable[~copied], {records.names[copy]: records.names[original] for copy, original in pairs}


def _write_index(
    folder: pathlib.Path, listing: str, records: Records, splits: dict[str, np.ndarray], shards: list[int]
) -> None:
    places = {}
    for split, pieces in splits.items():
        numbers = {f"{field}s": records[field][pieces].tolist() for field in ("shard", "start", "length")}
        places[split] = {"names": [records.names[piece] for piece in pieces.tolist()], **numbers}
    rows = {str(number): read_head(shard_path(folder, number))["rows"] for number in shards}
    write_json(folder / INDEX, {"listing": listing, "shards": rows, "splits": places})
