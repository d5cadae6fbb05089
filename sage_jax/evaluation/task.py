"""What systems are asked to do on a set of pieces that nobody trained on, and what needs no model: how that scores at least."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.evaluation.continuation import Written
from sage_jax.evaluation.floors import MarkovChain, later, loop, other
from sage_jax.evaluation.nmsi import LEAST_BARS, MAX_BARS
from sage_jax.evaluation.prompts import Prompt, choose_prompts
from sage_jax.music.events import NoteEvents
from sage_jax.music.notes import Piece
from sage_jax.music.shards import VOCABULARY, TokenShards, read_json


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How systems are compared. Raises UserError naming the field.

    split: of the token shards. prompts: how many, at most; prompt_bars: bars of each; max_bars: the most that are written
    behind one. samples: continuations of each prompt. batch_size: rows decoded at once. max_events: the most of a row. best:
    the checkpoint with the lowest validation loss instead of the newest. likelihood_pieces: how many pieces of the split are
    foretold, spread evenly over it, 0 for all. memory: whether to look for runs of notes from the training set.
    candidates_hold_prompt: whether the files of --candidates begin with their prompt. midi: prompts whose continuations by
    every system are written as MIDI.
    """

    split: str
    prompts: int
    prompt_bars: int
    max_bars: int
    samples: int
    batch_size: int
    max_events: int
    seed: int
    sampling: SamplingConfig
    best: bool
    likelihood_pieces: int
    memory: bool
    candidates_hold_prompt: bool
    midi: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EvaluationConfig":
        try:
            return cls(**{**values, "sampling": SamplingConfig(**values["sampling"])})
        except (TypeError, UserError) as error:
            raise UserError(f"config.{error}" if isinstance(error, UserError) else f"config: {error}") from error

    def __post_init__(self):
        lows = dict(prompts=2, prompt_bars=1, max_bars=LEAST_BARS, samples=1, batch_size=1, max_events=1)
        for field, low in {**lows, "seed": 0, "likelihood_pieces": 0, "midi": 0}.items():
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**31:
                raise UserError(f"{field} is {value!r}; give a whole number of at least {low}")
        if self.max_bars > MAX_BARS:
            raise UserError(f"max_bars is {self.max_bars}; NMSI is defined for at most {MAX_BARS}")


@dataclasses.dataclass(frozen=True)
class Task:
    """Prompts of a split and their true continuations.

    shards, training: the split to be evaluated on, and what models were trained on; tokenizer: of both. pieces: of the split.
    prompts: how they were chosen is told by `choose_prompts`, which also found the hop between them.
    """

    config: EvaluationConfig
    shards: TokenShards
    training: TokenShards
    tokenizer: NoteEvents
    pieces: list[Piece]
    prompts: list[Prompt]
    hop: int

    @classmethod
    def of(cls, config: EvaluationConfig, folder: pathlib.Path, workdir: pathlib.Path) -> "Task":
        """The task that the token shards in `folder` set, which `workdir` has them from. Raises UserError where they can't."""
        vocabulary = read_json(folder / VOCABULARY)
        if vocabulary is None:
            raise UserError(f"{folder} holds no token shards; run launch.preprocess with --workdir={workdir} first")
        tokenizer = NoteEvents.from_dict(vocabulary["tokenizer"])
        shards, training = (TokenShards(folder, split, tokenizer) for split in (config.split, "train"))
        for split, each in ((config.split, shards), ("train", training)):
            if not len(each):
                raise UserError(f"{folder} has no piece in its {split} split; add different pieces to the corpus")
        pieces = [tokenizer.decode(events) for events in shards]
        prompts, hop = choose_prompts(shards.names, pieces, config.prompts, config.prompt_bars, config.max_bars)
        return cls(config, shards, training, tokenizer, pieces, prompts, hop)

    def floors(self) -> dict[str, Written]:
        """What is written behind the prompts without a model, by the names of FLOORS."""
        config, prompts = self.config, self.prompts
        chain = MarkovChain(self.tokenizer, list(self.training))
        floors = {"loop": [loop(prompts)], "other": [other(prompts)], "later": [later(prompts)]}
        floors["markov"] = [chain.continuations(prompts, config.seed + sample) for sample in range(config.samples)]
        return {name: Written([list(takes) for takes in zip(*made, strict=True)]) for name, made in floors.items()}
