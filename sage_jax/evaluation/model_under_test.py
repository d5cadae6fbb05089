"""A trained model under test: its continuations of the prompts and its log-likelihood of the split."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from sage_jax.corpus.contents import Contents
from sage_jax.corpus.splits import subsample_evenly
from sage_jax.decoding.engine import Engine
from sage_jax.errors import UserError
from sage_jax.evaluation import likelihood
from sage_jax.evaluation.generation import DecodingConfig, ProgressCallback, SystemOutput, generate_continuations
from sage_jax.evaluation.statistics import ratio
from sage_jax.evaluation.task import Task
from sage_jax.models.registry import inference_config
from sage_jax.tokenizers.config import retokenize
from sage_jax.weights.saved_model import SavedModel

CHUNK = 64  # events of one prefill: nobody waits for one event here, and 32 at once take almost twice as long for each


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A checkpoint that is ready to generate and to score.

    context: the training context, in steps. max_steps: the maximum steps of a continuation. step: the training step.
    train_data_fingerprint: of the music that the model was trained on; None if its shards are gone.
    """

    name: str
    engine: Engine
    context: int
    max_steps: int
    step: int
    train_data_fingerprint: str | None

    @classmethod
    def of(cls, name: str, saved: SavedModel, task: Task) -> "TrainedModel":
        """The model `saved`. Raises UserError if its vocabulary differs from the task's."""
        run = saved.run
        if run.tokenizer.fingerprint != task.tokenizer.fingerprint:
            raise UserError(
                f"{name} was trained with another vocabulary than the shards of the first --workdir; evaluate it alone"
            )
        max_steps = run.representation.steps(task.config.max_events)
        config, rows = inference_config(run.model, jax.devices()[0]), task.config.batch_size
        engine = Engine(config, saved.params, saved.tokenizer, context=run.context, rows=rows, chunk=CHUNK)
        return cls(name, engine, run.context, max_steps, saved.step, saved.music)

    def write(self, task: Task, folder: pathlib.Path, progress: ProgressCallback = lambda done, total: None) -> SystemOutput:
        """Continues the task's prompts. `folder` keeps the generated events, so that a stopped call resumes."""
        config = task.config
        decoding = DecodingConfig(config.samples, self.max_steps, config.seed, config.sampling)
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(self.engine.params):
            digest.update(np.asarray(leaf).tobytes())
        identity = {
            "model": self.engine.config.name,
            "tokenizer": self.engine.tokenizer.fingerprint,
            "step": self.step,
            "params": digest.hexdigest()[:16],
        }
        contents = Contents.of(task.training, task.tokenizer).to_dict() if config.prompt_instruments else None
        return generate_continuations(self.engine, task.prompts, decoding, identity, folder, progress, contents)

    def log_likelihood(self, task: Task, progress: ProgressCallback = lambda done, total: None) -> dict[str, Any]:
        """The likelihood of `likelihood_pieces` of the task's pieces.

        Returns bits_per_note and bits_per_second (Estimates), attributes (bits per note of each attribute's tokens), opening
        (bits per note of the first meter and tempo), notes, seconds, context, folders (bits_per_note by the first folder in
        the names of the pieces), and pieces (the names, bits and notes of each piece).
        """
        indices = list(range(len(task.shards)))
        chosen = subsample_evenly(indices, task.config.likelihood_pieces or len(indices))
        tokenizer = self.engine.tokenizer
        found = likelihood.bits(
            self.engine.config,
            self.engine.params,
            tokenizer,
            [retokenize(task.shards[index], task.tokenizer, tokenizer) for index in chosen],
            self.context,
            max(1, 1024 // self.context),
            progress,
        )
        pieces, bits = np.arange(len(chosen)), found.bits.sum(axis=1)
        return {
            "bits_per_note": ratio(bits, found.notes, pieces),
            "bits_per_second": ratio(bits, found.seconds, pieces),
            "attributes": dict(zip(tokenizer.attributes, found.bits.sum(axis=0) / found.notes.sum(), strict=True)),
            "opening": found.opening.sum() / found.notes.sum(),
            "notes": int(found.notes.sum()),
            "seconds": float(found.seconds.sum()),
            "context": self.context,
            "pieces": {
                "names": [task.shards.names[index] for index in chosen],
                "bits": bits,
                "notes": found.notes,
            },
            "folders": {
                folder: {"bits_per_note": ratio(bits[inside], found.notes[inside], pieces[inside])}
                for folder, inside in folders_of([task.shards.names[index] for index in chosen]).items()
            },
        }


def folders_of(names: Sequence[str]) -> dict[str, np.ndarray]:
    """The first folder in `names`, which have / between folders -> indices of its pieces; {} where they are all in one."""
    folders = np.array([name.rpartition("/")[0].partition("/")[0] for name in names])
    known = sorted(set(folders.tolist()))
    return {folder: np.flatnonzero(folders == folder) for folder in known} if len(known) > 1 else {}
