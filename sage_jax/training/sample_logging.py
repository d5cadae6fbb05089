"""Sampled continuations of a few validation prompts during training, as piano rolls for TensorBoard."""

import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import jax

from sage_jax.config import RunConfig
from sage_jax.corpus.shards import TokenShards
from sage_jax.decoding.continuation import Request, continue_batch, first_bars
from sage_jax.decoding.generate import Generator
from sage_jax.music.notes import Piece
from sage_jax.tokenizers.base import Tokenizer

NUM_PROMPTS = 3
PROMPT_BARS, NEW_BARS = 4, 8
MAX_EVENTS = 512


class SampleLogger:
    """Continues the first bars of a few validation pieces, each time with the same prompts and random keys.

    Continuations are as long as the context allows, sampled at temperature 1. The first `draw` compiles two functions, later
    ones none. remarks: the reason, if there are no prompts.
    """

    def __init__(self, run: RunConfig, representation: Tokenizer, shards: pathlib.Path):
        self._run, self._representation = run, representation
        self._generator: Generator | None = None
        self._prompts: dict[str, Piece] = {}
        self.remarks: tuple[str, ...] = ()
        if jax.process_count() > 1:
            self.remarks = ("no piano rolls for TensorBoard: the parameters are sharded over several hosts",)
            return
        for name, prompt in self._find_prompts(TokenShards(shards, "valid", run.tokenizer)):
            self._prompts[name] = prompt
            if len(self._prompts) == NUM_PROMPTS:
                return
        if not self._prompts:
            self.remarks = (f"no piano rolls for TensorBoard: no piece of the validation split has {PROMPT_BARS} bars",)

    def draw(self, params: Any, step: int) -> list[bytes]:
        """A PNG for each prompt and its continuation, sampled with the parameters `params` of `step`."""
        if not self._prompts:
            return []
        params = jax.device_get(params)  # they may be sharded
        if self._generator is None:
            self._generator = Generator(self._run.model, params, self._representation, first_capacity=sys.maxsize)
        else:
            self._generator.set_params(params)
        encoded = [self._representation.encode(prompt)[:-1] for prompt in self._prompts.values()]
        requests = [Request(number, events, PROMPT_BARS, PROMPT_BARS + NEW_BARS) for number, events in enumerate(encoded)]
        max_events = self._run.representation.steps(MAX_EVENTS)
        continue_batch(self._generator, requests, max_events=max_events, context=self._run.context)
        return [
            _draw(self._representation.decode(request.events), prompt.bar_start(PROMPT_BARS), f"{name}, step {step:,}")
            for request, (name, prompt) in zip(requests, self._prompts.items(), strict=True)
        ]

    def _find_prompts(self, pieces: TokenShards) -> Iterator[tuple[str, Piece]]:
        for name, events in zip(pieces.names, pieces, strict=True):
            piece = self._representation.quantize(self._run.tokenizer.decode(events))
            if len(piece.notes) and piece.num_bars - piece.first_bar >= PROMPT_BARS:
                yield pathlib.PurePath(name).stem, first_bars(piece, PROMPT_BARS, name)


def _draw(piece: Piece, prompt_end: int, title: str) -> bytes:
    from sage_jax.rendering.piano_roll import draw_piano_roll  # imports matplotlib, which is slow and rarely needed here

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "sample.png"
        draw_piano_roll(piece, path, prompt_end=prompt_end, title=title)
        return path.read_bytes()
