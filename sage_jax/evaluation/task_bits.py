"""What a model with roles knows of its own notes: bits per own note by task and by lead.

The same own notes are predicted in each case, and only what is given differs. A sequence's bits are those of all decisions: its
own events, and at each given one the probability that no own event comes before it (tasks/weave.py).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.evaluation.statistics import Estimate, ratio
from sage_jax.models.config import ModelConfig
from sage_jax.models.registry import build_model
from sage_jax.music.notes import Piece
from sage_jax.programs import stored
from sage_jax.tasks.crop_items import CropItems
from sage_jax.tasks.generator import generator_of
from sage_jax.tasks.weave import Part, Woven, weave
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.leads import AT_ONCE, LEADS, SPAN
from sage_jax.tokenizers.role_events import RoleEvents
from sage_jax.training.step import TokenAccounting, cross_entropy

ALONE, OTHER = "alone", "other"  # nothing is given; what another piece has is given at once
SPANS = (1, 2, 4, 8)
CASES = (ALONE, OTHER, *(lead.name for lead in LEADS if lead is not SPAN), *(f"span {bars}" for bars in SPANS))
FILL = 0.7  # of a context that a crop takes, so that rests and headers fit as well


@dataclasses.dataclass(frozen=True)
class TaskBits:
    """The bits of P pieces in one case. bits: float64 [P, A]. notes: int [P], own notes. pieces: int [P], their numbers."""

    bits: np.ndarray
    notes: np.ndarray
    pieces: np.ndarray

    @property
    def per_note(self) -> Estimate:
        """Bits per own note, with an interval over pieces."""
        return ratio(self.bits.sum(axis=1), self.notes.astype(float), self.pieces)

    def less_than(self, other: "TaskBits") -> Estimate:
        """How many bits per own note this case needs less than `other`, over the pieces of both."""
        common, mine, theirs = np.intersect1d(self.pieces, other.pieces, return_indices=True)
        saved = other.bits.sum(axis=1)[theirs] - self.bits.sum(axis=1)[mine]
        return ratio(saved, self.notes[mine].astype(float), common)


def task_bits(
    config: ModelConfig,
    params: Any,
    tokenizer: RoleEvents,
    pieces: Sequence[Piece],
    context: int,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, TaskBits]:
    """The bits of each of CASES, over those of `pieces`, quantized, in which the case exists.

    One crop of each piece counts, and one of its tracks is own; in the spans all are. Both follow from the piece.
    """
    by_piece = enumerate(_cases(pieces, tokenizer, context))
    rows = [(case, number, woven) for number, cases in by_piece for case, woven in cases.items()]
    rows.sort(key=lambda row: len(row[2].events))
    nats, found = _compiled(config, tokenizer), []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        events = np.zeros((batch_size, context + 1, config.num_attributes), np.int32)
        floors = np.full((batch_size, context + 1), -1, np.int32)
        for number, (_, _, woven) in enumerate(batch):
            events[number, : len(woven.events)], floors[number, : len(woven.floors)] = woven.events, woven.floors
        row_nats, notes = (np.asarray(each) for each in nats(params, events, floors))
        found += list(zip(row_nats[: len(batch)].astype(np.float64) / np.log(2), notes.tolist(), strict=False))
        progress(min(start + batch_size, len(rows)), len(rows))
    results = {}
    for case in CASES:
        mine = [(number, *values) for (name, number, _), values in zip(rows, found, strict=True) if name == case]
        mine = sorted(each for each in mine if each[2]) if mine else []
        if mine:
            numbers, bits, notes = zip(*mine, strict=True)
            results[case] = TaskBits(np.stack(bits), np.array(notes), np.array(numbers))
    return results


def _cases(pieces: Sequence[Piece], tokenizer: RoleEvents, context: int) -> Iterator[dict[str, Woven]]:
    """The sequences of each piece by case. Those of a case that does not fit the context are left out."""
    crops = [_crop(piece, tokenizer, int(context * FILL)) for piece in pieces]
    for number, (events, rng) in enumerate(crops):
        items, cases = CropItems.of(events, tokenizer), {}
        kinds = items.rows[:, ev.INSTRUMENT]
        tracks = np.unique(kinds[items.is_note])
        if len(tracks) > 1:
            own_id = int(rng.choice(tracks))
            own, whole = kinds == own_id, (0, items.end, items.end)
            for lead in LEADS:
                if lead is not SPAN:
                    cases[lead.name] = weave(items, Part(own, lead, *whole), tokenizer)
            mine = items.only(own | ~items.is_note)
            cases[ALONE] = weave(mine, Part(np.ones(len(mine), bool), AT_ONCE, *whole), tokenizer)
            elsewhere = CropItems.of(crops[(number + 1) % len(crops)][0], tokenizer)
            mixed = mine.joined(elsewhere.only(elsewhere.is_note & (elsewhere.rows[:, ev.INSTRUMENT] != own_id)))
            cases[OTHER] = weave(mixed, Part(mixed.rows[:, ev.INSTRUMENT] == own_id, AT_ONCE, *whole), tokenizer)
        for bars in SPANS:
            if items.num_bars > bars:
                first = int(rng.integers(items.num_bars - bars + 1))
                start, stop = items.bars.start_of(first), min(items.bars.start_of(first + bars), items.end)
                part = Part(np.ones(len(items), bool), SPAN, start, stop, items.end)
                cases[f"span {bars}"] = weave(items, part, tokenizer)
        yield {case: woven for case, woven in cases.items() if len(woven.events) <= context + 1}


def _crop(piece: Piece, tokenizer: RoleEvents, length: int) -> tuple[np.ndarray, np.random.Generator]:
    """A crop of at most `length` events from a bar that follows from the piece, and the generator that chose it."""
    events = tokenizer.encode(piece)
    rng = generator_of(events)
    bars = tokenizer.bar_starts(events)
    bars = bars[: max(int(np.searchsorted(bars, len(events) - length)), 1)]
    return tokenizer.crop(events, int(rng.choice(bars)), length), rng


@functools.lru_cache(maxsize=4)
def _compiled(config: ModelConfig, tokenizer: RoleEvents) -> Callable:
    """(params, events [B, N + 1, A], floors [B, N + 1]) -> nats [B, A] and own notes [B] of each row."""
    model, accounting = build_model(config), TokenAccounting.of(tokenizer)

    def row_nats(params: Any, events: jax.Array, floors: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = cast(tuple[jax.Array, ...], model.apply({"params": params}, events[:, :-1]))
        one = lambda logits, events, floors: cross_entropy(logits, events, accounting, floors)
        expand = functools.partial(jax.tree.map, lambda array: jnp.expand_dims(array, 1))
        sums = jax.vmap(one)(expand(logits), expand(events), expand(floors))
        return sums.nll, sums.notes

    return stored(jax.jit(row_nats), key=config)
