"""A folder of published weights: model.safetensors (or model.safetensors.xz) and model.json.

model.json has everything but the numbers:
  format       1
  config       the sections of the run's config, among them sampling and continuation
  tokenizer    its settings, and the fingerprint of its vocabulary
  dtype        of the numbers: "bfloat16" or "float32"
  parameters   their count
  training     step, valid_nats_per_note, checkpoint ("best" or "newest"), averaged (whether they are a moving average), commit,
               music (the fingerprint of the training shards); null for what is not known
  contents     instruments and meters of the training split (corpus/contents.py); {} if they are not known
  file         name, sha256 and bytes of the file of numbers
  sha256       of the other entries, as JSON with sorted keys and without spaces

A tensor's name is its path in the parameter tree, joined by "/". An .xz file is a safetensors file as `xz` compresses it.
"""

import dataclasses
import hashlib
import json
import lzma
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.config import RunConfig
from sage_jax.errors import UserError
from sage_jax.files import replacing, write_json
from sage_jax.models.registry import abstract_params
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.config import as_saved

FORMAT = 1
ABOUT, NUMBERS, COMPRESSED = "model.json", "model.safetensors", "model.safetensors.xz"
DTYPES: Mapping[str, Any] = {"BF16": jnp.bfloat16, "F32": np.float32}


@dataclasses.dataclass(frozen=True)
class Weights:
    """Published weights. params: nested dict of arrays. Other fields as the entries of model.json."""

    params: Any
    run: RunConfig
    sections: dict[str, Any]
    tokenizer: Tokenizer
    training: dict[str, Any]
    contents: dict[str, Any]

    def write(self, folder: str | os.PathLike, dtype: str = "bfloat16", compress: bool = False) -> pathlib.Path:
        """Writes the folder and returns the path of its file of numbers. Raises UserError where it can't be written."""
        from safetensors.numpy import save  # here, so that runs and their checkpoints do without safetensors

        folder = pathlib.Path(folder)
        params = {path: np.asarray(jax.device_get(leaf)).astype(jnp.dtype(dtype)) for path, leaf in named(self.params).items()}
        numbers = save(params)
        if compress:
            numbers = lzma.compress(numbers, preset=9 | lzma.PRESET_EXTREME)
        path = folder / (COMPRESSED if compress else NUMBERS)
        with replacing(path) as temporary:
            temporary.write_bytes(numbers)
        about = {
            "format": FORMAT,
            "config": {**self.sections, **self.run.to_dict()},
            "tokenizer": {**self.tokenizer.to_dict(), "fingerprint": self.tokenizer.fingerprint},
            "dtype": dtype,
            "parameters": sum(leaf.size for leaf in params.values()),
            "training": self.training,
            "contents": self.contents,
            "file": {"name": path.name, "sha256": hashlib.sha256(numbers).hexdigest(), "bytes": len(numbers)},
        }
        write_json(folder / ABOUT, {**about, "sha256": _digest(about)}, indent=1)
        for other in {NUMBERS, COMPRESSED} - {path.name}:
            (folder / other).unlink(missing_ok=True)
        return path


def is_weights(folder: str | os.PathLike) -> bool:
    """Whether `folder` has published weights, intact or not."""
    return (pathlib.Path(folder) / ABOUT).exists()


def read(folder: str | os.PathLike) -> Weights:
    """The weights in `folder`, in float32.

    Raises UserError, naming the file, if a file is missing or damaged, or if the weights have another format, vocabulary or
    config than this version of sage_jax.
    """
    folder = pathlib.Path(folder)
    about = _read_about(folder / ABOUT)
    tokenizer = as_saved(about["tokenizer"], folder)
    try:
        run = RunConfig.from_dict(about["config"])
    except UserError as error:
        raise UserError(f"{folder / ABOUT} is for another version of sage_jax: {error}") from error
    params = _nested(folder, run, _read_numbers(folder, about["file"]))
    return Weights(params, run, about["config"], tokenizer, about["training"], about["contents"])


def named(params: Any) -> dict[str, Any]:
    """Path -> leaf of a tree; the keys of a path are joined by /."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _digest(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _read_about(path: pathlib.Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text())
        written, digest = about.pop("sha256"), _digest(about)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; get the whole folder again") from error
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); get the folder again") from error
    if about.get("format") != FORMAT:
        raise UserError(f"{path} has format {about.get('format')!r}, and this version of sage_jax reads {FORMAT}; update it")
    if digest != written:
        raise UserError(f"{path} is damaged: its sha256 is {digest[:12]} and not {written[:12]}; get the folder again")
    return about


def _read_numbers(folder: pathlib.Path, file: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Name -> array of the file of numbers, once its digest is checked."""
    from safetensors import deserialize

    path = folder / file["name"]
    try:
        numbers = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); get the whole folder again") from error
    if hashlib.sha256(numbers).hexdigest() != file["sha256"]:
        size = f"{len(numbers):,} bytes, and was written with {file['bytes']:,}"
        raise UserError(f"{path} is damaged: its sha256 is not that of {ABOUT} (it has {size}); get the folder again")
    if path.suffix == ".xz":
        numbers = lzma.decompress(numbers)
    return {
        name: np.frombuffer(tensor["data"], DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        for name, tensor in deserialize(numbers)
    }


def _nested(folder: pathlib.Path, run: RunConfig, arrays: dict[str, np.ndarray]) -> Any:
    """The parameter tree of `run` from its arrays by name, in float32. Raises UserError for other names or shapes."""
    abstract = abstract_params(run.model)
    wanted = named(abstract)
    unknown, missing = sorted(arrays.keys() - wanted.keys()), sorted(wanted.keys() - arrays.keys())
    other = [name for name, leaf in wanted.items() if name in arrays and arrays[name].shape != leaf.shape]
    for names, fault in ((missing, "lacks"), (unknown, "has the unknown"), (other, "has another shape of")):
        if names:
            raise UserError(
                f"{folder}: the file of weights {fault} {names[0]}, so it does not fit the config in {ABOUT}; export it again"
            )
    return jax.tree.unflatten(jax.tree.structure(abstract), [jnp.asarray(arrays[name], jnp.float32) for name in wanted])
