"""A model by what a user calls it: the name of published weights, their folder, or the folder of a run."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from sage_jax.config import RunConfig
from sage_jax.corpus.shards import music_fingerprint
from sage_jax.errors import UserError
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.training.metrics import METRICS_FILE, read_metrics
from sage_jax.training.run_manifest import read_manifest
from sage_jax.weights import format

SHIPPED = pathlib.Path(__file__).with_name("shipped")  # a folder of weights for each name


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """A trained model on disk. params: float32. sections: the whole config that it was saved with, for sampling.

    valid: the last validation up to this step, as its step and the nats per note; None if it is not known.
    music: the fingerprint of the music it was trained on (corpus/shards.py); None if it is not known.
    contents: as in model.json; {} where they are not known.
    """

    params: Any
    run: RunConfig
    step: int
    tokenizer: Tokenizer
    sections: dict[str, Any]
    valid: tuple[int, float] | None
    music: str | None
    contents: dict[str, Any]

    @classmethod
    def open(cls, source: str | os.PathLike, best: bool = False) -> "SavedModel":
        """The model that `source` names: a name in `names()`, a folder of launch.export, or the folder of a run.

        best: of a run, the checkpoint with the lowest validation loss instead of the newest one. Raises UserError if there is
        no such model, or if it can't be used.
        """
        folder = find(source)
        if format.is_weights(folder):
            found = format.read(folder)
            step, loss = found.training["step"], found.training["valid_nats_per_note"]
            valid = None if loss is None else (step, loss)
            music = found.training["music"]
            return cls(found.params, found.run, step, found.tokenizer, found.sections, valid, music, found.contents)
        from sage_jax.training.checkpoint import load_for_sampling  # imports orbax, which published weights do without

        params, run, step, tokenizer = load_for_sampling(folder, best)
        manifest = read_manifest(folder)
        valid = [(line["step"], line["loss"]) for line in read_metrics(folder / METRICS_FILE, "valid") if line["step"] <= step]
        sections, music = manifest["config"] if manifest else {}, music_fingerprint(shards_folder(folder, run))
        return cls(params, run, step, tokenizer, sections, valid[-1] if valid else None, music, {})


def shards_folder(workdir: pathlib.Path, run: RunConfig | None) -> pathlib.Path:
    """The folder of a workdir's token shards; `run` is None for a workdir that has no more."""
    return pathlib.Path(run.data.shards) if run and run.data.shards else workdir / "data"


def names() -> list[str]:
    """The names of the weights that came with this installation."""
    return sorted(path.name for path in SHIPPED.iterdir() if format.is_weights(path)) if SHIPPED.is_dir() else []


def find(source: str | os.PathLike) -> pathlib.Path:
    """The folder of `source`. A folder comes before a name. Raises UserError if there is neither."""
    folder = pathlib.Path(source)
    if folder.is_dir():
        return folder
    if os.fspath(source) in names():
        return SHIPPED / source
    known = f"the names of weights here are {', '.join(names())}" if names() else "no weights came with this installation"
    raise UserError(
        f"there is no model in {source}; give the folder that launch.train has as --workdir, a folder of launch.export, or a "
        f"name ({known})"
    )


def with_settings(sections: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Any]:
    """`sections`, 'sampling' and 'continuation' among them, with the fields of `settings`; None leaves a field as it is."""
    changed = {"sampling": {}, "continuation": {}, **sections}
    for name, fields in (settings or {}).items():
        changed[name] = {**changed.get(name, {}), **{field: value for field, value in fields.items() if value is not None}}
    return changed
