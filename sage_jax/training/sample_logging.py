"""Sampled continuations of a few validation prompts during training, as piano rolls for TensorBoard."""

import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from sage_jax.config import RunConfig
from sage_jax.corpus.shards import TokenShards
from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.continuation import first_bars
from sage_jax.decoding.engine import Engine
from sage_jax.decoding.request import Request
from sage_jax.decoding.scheduler import Scheduler
from sage_jax.music.notes import Piece
from sage_jax.tokenizers.base import Tokenizer

NUM_PROMPTS = 3
PROMPT_BARS, NEW_BARS = 4, 8
MAX_EVENTS = 512


class SampleLogger:
    """Continues the first bars of a few validation pieces, each time with the same prompts and random keys.

    Continuations are as long as the context allows, sampled at temperature 1. The first `draw` compiles the
    programs, later ones none. remarks: the reason, if there are no prompts.
    """

    def __init__(self, run: RunConfig, representation: Tokenizer, shards: pathlib.Path):
        self._run, self._representation = run, representation
        self._engine: Engine | None = None
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
        if self._engine is None:
            context = self._run.context
            # One capacity: a growing cache would compile more programs.
            self._engine = Engine(
                self._run.model, params, self._representation, context=context, rows=NUM_PROMPTS, first_capacity=context
            )
        else:
            self._engine.set_params(params)
        limits = Limits(first_bar=PROMPT_BARS, stop_bar=PROMPT_BARS + NEW_BARS)
        scheduler = Scheduler(self._engine)
        requests = []
        for number, prompt in enumerate(self._prompts.values()):
            encoded = self._representation.encode(prompt)[:-1]
            space = self._engine.limit - min(len(encoded), scheduler.window_length)
            most = min(self._run.representation.steps(MAX_EVENTS), space)
            requests.append(Request(encoded, limits, max_events=most, number=number))
        takes = {take.request.number: take.events for take in scheduler.run(requests)}
        self._engine.reset()
        wholes = [np.concatenate([request.events, takes[request.number]]) for request in requests]
        return [
            _draw(self._representation.decode(whole), prompt.bar_start(PROMPT_BARS), f"{name}, step {step:,}")
            for whole, (name, prompt) in zip(wholes, self._prompts.items(), strict=True)
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
