"""The continuation task: prompts and references from a held-out split, and the baselines' continuations."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from sage_jax.corpus.shards import VOCABULARY, TokenShards, read_json, shards_with_pieces
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.evaluation.baselines import MarkovChain, next_bars, other_piece, repeat_prompt
from sage_jax.evaluation.generation import SystemOutput
from sage_jax.evaluation.nmsi import MAX_BARS, MIN_BARS
from sage_jax.evaluation.prompts import Prompt, choose_prompts
from sage_jax.music.notes import Piece
from sage_jax.tokenizers.note_events import NoteEvents


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Settings of an evaluation. Raises UserError naming the field.

    split: the split of the token shards.
    prompts: the maximum number of prompts. prompt_bars: bars of each prompt. max_bars: the maximum bars to continue it by.
    samples: continuations of each prompt. batch_size: rows decoded at once. max_events: the maximum events of a continuation.
    seed: of all sampling. sampling: temperature and truncation of the models' distributions.
    use_best_checkpoint: evaluates the checkpoint with the lowest validation loss instead of the newest.
    likelihood_pieces: pieces of the split to compute the likelihood of, spread evenly over it; 0 for all.
    memorization: computes the longest note n-grams shared with the training split.
    candidates_include_prompt: whether the files of --candidates begin with their prompt.
    num_midi_examples: prompts for which every system's continuation is written as MIDI.
    prompt_instruments: continuations have the prompt's instruments alone, each within its pitches in the training split or the
    prompt, as those of launch.sample by default; else any.
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
    use_best_checkpoint: bool
    likelihood_pieces: int
    memorization: bool
    candidates_include_prompt: bool
    num_midi_examples: int
    prompt_instruments: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EvaluationConfig":
        try:
            return cls(**{**values, "sampling": SamplingConfig(**values["sampling"])})
        except (TypeError, UserError) as error:
            raise UserError(f"config.{error}" if isinstance(error, UserError) else f"config: {error}") from error

    def __post_init__(self):
        lows = dict(prompts=2, prompt_bars=1, max_bars=MIN_BARS, samples=1, batch_size=1, max_events=1)
        for field, low in {**lows, "seed": 0, "likelihood_pieces": 0, "num_midi_examples": 0}.items():
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**31:
                raise UserError(f"{field} is {value!r}; give a whole number of at least {low}")
        if self.max_bars > MAX_BARS:
            raise UserError(f"max_bars is {self.max_bars}; NMSI is defined for at most {MAX_BARS}")


@dataclasses.dataclass(frozen=True)
class Task:
    """Prompts of a split and their reference continuations.

    shards: the evaluated split. training: the training split. tokenizer: of both. pieces: the decoded pieces of the split.
    prompts, hop: the prompts, and the bars between two of them in a piece, from `choose_prompts`.
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
        """The task on the token shards in `folder`. Raises UserError for unusable shards, naming `workdir` in the remedy."""
        vocabulary = read_json(folder / VOCABULARY)
        if vocabulary is None:
            raise UserError(f"{folder} holds no token shards; run launch.preprocess with --workdir={workdir} first")
        tokenizer = NoteEvents.from_dict(vocabulary["tokenizer"])
        shards, training = (shards_with_pieces(folder, split, tokenizer) for split in (config.split, "train"))
        pieces = [tokenizer.decode(events) for events in shards]
        prompts, hop = choose_prompts(shards.names, pieces, config.prompts, config.prompt_bars, config.max_bars)
        return cls(config, shards, training, tokenizer, pieces, prompts, hop)

    def baselines(self) -> dict[str, SystemOutput]:
        """The continuations of each of BASELINES, by its name."""
        config, prompts = self.config, self.prompts
        chain = MarkovChain(self.tokenizer, list(self.training))
        samples = {
            "loop": [repeat_prompt(prompts)],
            "other": [other_piece(prompts)],
            "later": [next_bars(prompts)],
            "markov": [chain.continuations(prompts, config.seed + sample) for sample in range(config.samples)],
        }
        return {name: SystemOutput([list(each) for each in zip(*pieces, strict=True)]) for name, pieces in samples.items()}
