"""What a model in training writes behind a few openings that it does not learn from, as piano rolls."""

import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import jax

from sage_jax.decoding.continuation import Row, extend, opening
from sage_jax.decoding.generate import Generator
from sage_jax.music.notes import Piece
from sage_jax.music.representation import Representation
from sage_jax.music.shards import TokenShards
from sage_jax.training.config import RunConfig

PROMPTS = 3
PROMPT_BARS, NEW_BARS = 4, 8
MOST_EVENTS = 512


class Previews:
    """Continuations of the first bars of a few validation pieces: the same ones, with the same random keys, whenever drawn.

    They are as long as the context allows, sampled at temperature 1 from all ids. Two programs are compiled when they are drawn
    for the first time, and none later. remarks: why there are none, where there are none.
    """

    def __init__(self, run: RunConfig, representation: Representation, shards: pathlib.Path):
        self._run, self._representation = run, representation
        self._generator: Generator | None = None
        self._prompts: dict[str, Piece] = {}
        self.remarks: tuple[str, ...] = ()
        if jax.process_count() > 1:
            self.remarks = ("no piano rolls for TensorBoard: the parameters lie on several processes",)
            return
        for name, prompt in self._openings(TokenShards(shards, "valid", run.tokenizer)):
            self._prompts[name] = prompt
            if len(self._prompts) == PROMPTS:
                return
        if not self._prompts:
            self.remarks = (f"no piano rolls for TensorBoard: no piece of the validation split has {PROMPT_BARS} bars",)

    def draw(self, params: Any, step: int) -> list[bytes]:
        """A PNG for each prompt, continued with `params`, which are those of `step`."""
        if not self._prompts:
            return []
        params = jax.device_get(params)  # from whatever devices they are spread over
        if self._generator is None:
            self._generator = Generator(self._run.model, params, self._representation, first_capacity=sys.maxsize)
        else:
            self._generator.use(params)
        told = [self._representation.encode(prompt)[:-1] for prompt in self._prompts.values()]
        rows = [Row(number, events, PROMPT_BARS, PROMPT_BARS + NEW_BARS) for number, events in enumerate(told)]
        extend(self._generator, rows, max_events=self._run.representation.steps(MOST_EVENTS), context=self._run.context)
        return [
            _picture(self._representation.decode(row.events), prompt.bar_start(PROMPT_BARS), f"{name}, step {step:,}")
            for row, (name, prompt) in zip(rows, self._prompts.items(), strict=True)
        ]

    def _openings(self, pieces: TokenShards) -> Iterator[tuple[str, Piece]]:
        for name, events in zip(pieces.names, pieces, strict=True):
            piece = self._representation.quantize(self._run.tokenizer.decode(events))
            if len(piece.notes) and piece.num_bars - piece.first_bar >= PROMPT_BARS:
                yield pathlib.PurePath(name).stem, opening(piece, PROMPT_BARS, name)


def _picture(piece: Piece, prompt_end: int, title: str) -> bytes:
    from sage_jax.rendering.piano_roll import draw_piano_roll  # with matplotlib, which takes a second that few runs need

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "preview.png"
        draw_piano_roll(piece, path, prompt_end=prompt_end, title=title)
        return path.read_bytes()
