"""A trained model under test: what it writes behind prompts, and how well it foretells pieces."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sage_jax.data.crops import evenly
from sage_jax.decoding.generate import Generator
from sage_jax.errors import UserError
from sage_jax.evaluation import likelihood
from sage_jax.evaluation.continuation import Decoding, Written, write
from sage_jax.evaluation.statistics import ratio
from sage_jax.evaluation.task import Task
from sage_jax.music.representation import Representation, retold
from sage_jax.music.shards import music_fingerprint
from sage_jax.training.config import RunConfig

SavedRun = tuple[Any, RunConfig, int, Representation]  # params, config, step, and what it tells pieces in
Show = Callable[[int, int], None]  # is told what is done, and how much there is


def shards_of(workdir: pathlib.Path, run: SavedRun | None) -> pathlib.Path:
    """Where the shards of a workdir are."""
    return pathlib.Path(run[1].data.shards) if run and run[1].data.shards else workdir / "data"


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A checkpoint, ready to be asked.

    context: the steps that it was trained on at once. most_steps: what it may draw for a continuation. heard: the fingerprint
    of the music that it was trained on, None where its shards are gone.
    """

    name: str
    generator: Generator
    context: int
    most_steps: int
    step: int
    heard: str | None

    @classmethod
    def of(cls, name: str, workdir: pathlib.Path, run: SavedRun, task: Task) -> "TrainedModel":
        """The saved `run` of `workdir`. Raises UserError where its vocabulary is not that of the task."""
        params, saved, step, representation = run
        if saved.tokenizer.fingerprint != task.tokenizer.fingerprint:
            raise UserError(
                f"{workdir} was trained with another vocabulary than the shards of the first --workdir; evaluate it by itself"
            )
        most_steps = saved.representation.steps(task.config.max_events)
        heard = music_fingerprint(shards_of(workdir, run))
        return cls(name, Generator(saved.model, params, representation), saved.context, most_steps, step, heard)

    def write(self, task: Task, folder: pathlib.Path, show: Show = lambda done, total: None) -> Written:
        """Continues the task's prompts; `folder` keeps what is decoded, so that a call that was stopped goes on."""
        config = task.config
        decoding = Decoding(config.samples, config.batch_size, self.most_steps, config.seed, config.sampling)
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(self.generator.params):
            digest.update(np.asarray(leaf).tobytes())
        told_in = self.generator.tokenizer.fingerprint
        params = digest.hexdigest()[:16]
        identity = {"model": self.generator.config.name, "told_in": told_in, "step": self.step, "params": params}
        return write(self.generator, task.prompts, decoding, self.context, identity, folder, show)

    def foretell(self, task: Task, show: Show = lambda done, total: None) -> dict[str, Any]:
        """The likelihood of `likelihood_pieces` of the task's pieces, as it goes into JSON."""
        everything = list(range(len(task.shards)))
        chosen = evenly(everything, task.config.likelihood_pieces or len(everything))
        representation = self.generator.tokenizer
        found = likelihood.bits(
            self.generator.config,
            self.generator.params,
            representation,
            [retold(task.shards[piece], task.tokenizer, representation) for piece in chosen],
            self.context,
            max(1, 1024 // self.context),
            show,
        )
        pieces, bits = np.arange(len(chosen)), found.bits.sum(axis=1)
        return {
            "bits_per_note": ratio(bits, found.notes, pieces),
            "bits_per_second": ratio(bits, found.seconds, pieces),
            "attributes": dict(zip(representation.attributes, found.bits.sum(axis=0) / found.notes.sum(), strict=True)),
            "opening": found.opening.sum() / found.notes.sum(),
            "notes": int(found.notes.sum()),
            "seconds": float(found.seconds.sum()),
            "context": self.context,
        }
