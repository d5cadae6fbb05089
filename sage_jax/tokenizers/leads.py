"""Leads: how much earlier or later than its own time a model knows what is given."""

import dataclasses

import numpy as np

from sage_jax.errors import UserError
from sage_jax.music.notes import BarGrid


@dataclasses.dataclass(frozen=True)
class Lead:
    """When the model learns of a given note. Exactly one of the fields is set.

    bars: all notes of a bar are known when the bar that is so many bars earlier begins; 1 is a bar ahead.
    quarters_late: a note is known so many quarters after its onset; 0 is at once.
    span: everything is known before the model's first note, as in infilling.
    """

    bars: int | None = None
    quarters_late: float | None = None
    span: bool = False

    @property
    def name(self) -> str:
        """As a user writes it: span, 1bar, 0, -0.5."""
        if self.span:
            return "span"
        return f"{self.bars}bar" if self.bars is not None else f"{-self.quarters_late:g}" if self.quarters_late else "0"

    @property
    def earlier_by(self) -> float:
        """How much more than others it lets the model know, for sorting: the span first, the latest last."""
        return np.inf if self.span else 1000.0 * self.bars if self.bars is not None else -(self.quarters_late or 0.0)

    def late_ticks(self, ticks_per_quarter: int) -> int:
        """How many ticks after its onset a note is known, for a lead in quarters."""
        return round((self.quarters_late or 0.0) * ticks_per_quarter)

    def keys(self, ticks: np.ndarray, bars: BarGrid, ticks_per_quarter: int, start: int = 0) -> np.ndarray:
        """The tick from which on the model knows each of `ticks` [N], int64 [N], never decreasing for increasing ticks.

        start: the tick at which a span begins. What lies before it is known at its own time.
        """
        if self.span:
            return np.minimum(ticks, start)
        if self.bars is not None:
            return bars.start(np.maximum(bars.locate(ticks)[0] - self.bars, 0))
        return ticks + self.late_ticks(ticks_per_quarter)


SPAN, AT_ONCE, BAR_AHEAD = Lead(span=True), Lead(quarters_late=0.0), Lead(bars=1)
LATE = tuple(Lead(quarters_late=late) for late in (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0))
# The ids of the vocabulary are in this order; new ones go to the end.
LEADS = (SPAN, Lead(bars=2), BAR_AHEAD, AT_ONCE, *LATE)


def lead_of(name: str) -> Lead:
    """The lead that a user wrote. Raises UserError for one that no model was trained on."""
    text = name.strip().lower().removeprefix("+").replace("bars", "bar")
    for lead in LEADS:
        if text == lead.name or _as_number(text) == _as_number(lead.name):
            return lead
    raise UserError(f"lead is {name!r}, which no model is trained on; choose one of {', '.join(each.name for each in LEADS)}")


def _as_number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
