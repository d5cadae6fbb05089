"""A run's checkpoint as published weights."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from sage_jax.corpus.contents import Contents
from sage_jax.corpus.shards import INDEX, TokenShards, music_fingerprint
from sage_jax.errors import UserError
from sage_jax.models.config import DTYPES
from sage_jax.training.metrics import METRICS_FILE, read_metrics
from sage_jax.training.run_manifest import read_manifest
from sage_jax.weights.format import Weights, is_weights
from sage_jax.weights.saved_model import SavedModel, shards_folder, with_settings


@dataclasses.dataclass(frozen=True)
class Exported:
    """What `export` wrote: the file of numbers, the weights, and a line on what is not in them."""

    path: pathlib.Path
    weights: Weights
    remarks: Sequence[str] = ()


def export(
    workdir: str | os.PathLike,
    output: str | os.PathLike,
    *,
    best: bool = True,
    dtype: str = "bfloat16",
    compress: bool = False,
    shards: str | os.PathLike | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Exported:
    """Writes the model of the run in `workdir` to the folder `output`, as weights/format.py describes.

    best: the checkpoint with the lowest validation loss, else the newest. Of a run with train.ema_decay the average is written.
    dtype: of the numbers, and of what an accelerator computes with them, whatever the run was trained in.
    compress: by xz; about 30% smaller, and slower to read. shards: the training shards, for the instruments and
    meters in them; by default those of the run. settings: as in sage_jax.load: how the model samples by default. Raises
    UserError for whatever a user can mend.
    """
    if dtype not in DTYPES:
        raise UserError(f"--dtype is {dtype!r}; choose one of {', '.join(DTYPES)}")
    workdir = pathlib.Path(workdir)
    if is_weights(workdir):
        raise UserError(f"{workdir} has published weights already; give the folder that launch.train has as --workdir")
    saved = SavedModel.open(workdir, best)
    folder = pathlib.Path(shards) if shards else shards_folder(workdir, saved.run)
    losses = [line for line in read_metrics(workdir / METRICS_FILE, "valid") if line["step"] == saved.step]
    manifest = read_manifest(workdir)
    training = {
        "step": saved.step,
        "valid_nats_per_note": losses[-1]["loss"] if losses else None,
        "checkpoint": "best" if best else "newest",
        "averaged": saved.run.train.ema_decay > 0,
        "commit": manifest["starts"][-1]["commit"] if manifest else None,
        "music": music_fingerprint(folder),
    }
    contents, remarks = {}, ()
    if (folder / INDEX).exists():
        grid = saved.run.tokenizer
        contents = Contents.of(TokenShards(folder, "train", grid), grid).to_dict()
    elif shards:
        raise UserError(f"{folder} holds no token shards; give the folder `data` in the --workdir of launch.preprocess")
    else:
        remarks = (f"there are no shards in {folder}, so the file does not say what the model was trained on; give --shards",)
    # Paths of this machine mean nothing elsewhere.
    corpus = saved.run.data.corpus.partition(":")[0]
    run = dataclasses.replace(saved.run, data=dataclasses.replace(saved.run.data, corpus=corpus, shards=""))
    run = dataclasses.replace(run, train=dataclasses.replace(run.train, init_from=pathlib.Path(run.train.init_from).name))
    # The kernel of an event step knows bfloat16 alone.
    impl = "auto" if run.model.decode_impl == "fused" and dtype != "bfloat16" else run.model.decode_impl
    run = dataclasses.replace(run, model=dataclasses.replace(run.model, dtype=dtype, decode_impl=impl))
    weights = Weights(saved.params, run, with_settings(saved.sections, settings), saved.tokenizer, training, contents)
    return Exported(weights.write(output, dtype, compress), weights, remarks)
