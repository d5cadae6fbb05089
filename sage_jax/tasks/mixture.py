"""The tasks that training crops become, drawn at random from plain crops."""

import dataclasses

import numpy as np

from sage_jax.tasks.config import TASKS, TasksConfig
from sage_jax.tasks.crop_items import CropItems
from sage_jax.tasks.generator import generator_of
from sage_jax.tasks.weave import Part, Woven, plain, weave
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.leads import AT_ONCE, BAR_AHEAD, LATE, LEADS, SPAN
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.tokenizers.role_events import RoleEvents

HEADER = 12  # events that head and header take, about
SPAN_BARS = (1, 2, 4, 8)
AHEAD = tuple(lead for lead in LEADS if lead.bars is not None)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Makes a random task of each crop. All random numbers come from the crop's generator.

    source: the tokenizer of the crops. context_events: the capacity of a sequence; longer ones lose their last bars.
    """

    config: TasksConfig
    source: NoteEvents
    target: RoleEvents
    context_events: int

    def __call__(self, crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """`crop`, int [N, 5], as a sequence of `target` with its floors: int16 [M, 6], see `weave`."""
        woven = self._task(crop, rng)
        return np.concatenate([woven.events, woven.floors[:, None]], axis=1)

    def fixed(self, crop: np.ndarray) -> np.ndarray:
        """The same with a generator that follows from the crop, for validation."""
        return self(crop, generator_of(crop.astype(np.int16)))

    def _task(self, crop: np.ndarray, rng: np.random.Generator) -> Woven:
        task = TASKS[int(np.searchsorted(np.cumsum(self.config.shares)[:-1], rng.random(), "right"))]
        if task == "plain":
            return plain(crop, self.target)
        items = CropItems.of(crop, self.source)
        excess = len(items) + items.num_bars // 2 + HEADER - self.context_events  # about what will be too long
        items = items.without_last(excess) if excess > 0 else items
        while len(tracks := np.unique(items.rows[items.is_note, ev.INSTRUMENT])):
            alone = len(tracks) == 1 and task in ("accompany", "live")  # nobody to accompany
            part = getattr(self, "_infill" if alone else f"_{task}")(items, tracks, rng)
            woven = weave(items, part, self.target)
            if len(woven.events) <= self.context_events:
                return woven
            # Rests and the header have made it longer than the crop: the last bars are left out.
            items = items.without_last(len(woven.events) - self.context_events)
        return plain(crop, self.target)  # a bar alone is too long, or there is less than a bar

    def _accompany(self, items: CropItems, tracks: np.ndarray, rng: np.random.Generator) -> Part:
        lead = (AT_ONCE, *AHEAD)[rng.integers(1 + len(AHEAD))]
        return Part(_of_some(items, tracks, rng), lead, 0, items.end, items.end)

    def _live(self, items: CropItems, tracks: np.ndarray, rng: np.random.Generator) -> Part:
        lead = (AT_ONCE, *LATE)[rng.integers(1 + len(LATE))]
        return Part(_of_some(items, tracks, rng), lead, 0, items.end, items.end)

    def _scattered(self, items: CropItems, tracks: np.ndarray, rng: np.random.Generator) -> Part:
        own = rng.random(len(items)) < rng.uniform(0.1, 0.9)
        return Part(own, (AT_ONCE, BAR_AHEAD)[rng.integers(2)], 0, items.end, items.end)

    def _infill(self, items: CropItems, tracks: np.ndarray, rng: np.random.Generator) -> Part:
        bars = items.num_bars
        length = int(rng.choice([each for each in SPAN_BARS if each <= bars]))
        first = int(rng.integers(bars - length + 1))
        start, stop = items.bars.start_of(first), min(items.bars.start_of(first + length), items.end)
        everything = len(tracks) == 1 or rng.random() < 0.5
        own = np.ones(len(items), bool) if everything else _of_some(items, tracks, rng)
        return Part(own, SPAN, start, stop, items.end)


def _of_some(items: CropItems, tracks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which items are of some of `tracks`, at least one and not all: bool [M]. Half of the time it is one track."""
    count = 1 if rng.random() < 0.5 else int(rng.integers(1, len(tracks)))
    return np.isin(items.rows[:, ev.INSTRUMENT], rng.permutation(tracks)[:count])
