"""LiveSettings: how one live session plays."""

import dataclasses

from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, DRUMS
from sage_jax.tokenizers.grid import Grid

MODES = ("answer", "trade", "accompany")
ACCOMPANISTS = (33, DRUMS)  # the model's instruments in accompany where none are named: electric bass and drums
SAMPLING_FIELDS = ("temperature", "top_p", "min_p")


@dataclasses.dataclass(frozen=True)
class LiveSettings:
    """How a session plays. Raises UserError naming the field.

    mode: "answer", the model plays when the player pauses; "trade", bars of both in turn; "accompany", both at once.
    qpm: quarters per minute. meter: (numerator, denominator).
    instruments: programs that the model may play, 128 for drums. None: the player's own; in accompany, bass and drums.
    player_program: of the player's notes that come without one.
    pause: answer: quarters of silence after which the model plays. answer_bars: its longest answer. trade_bars: of each turn.
    lead: accompany: quarters between what the model knows and what it writes.
    temperature, top_p, min_p: as in SamplingConfig; None for the model's own.
    """

    mode: str = "answer"
    qpm: float = DEFAULT_QPM
    meter: tuple[int, int] = DEFAULT_METER
    instruments: tuple[int, ...] | None = None
    player_program: int = 0
    pause: float = 1.0
    answer_bars: int = 4
    trade_bars: int = 2
    lead: float = 4.0
    temperature: float | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int = 0

    def __post_init__(self):
        for field in ("meter", "instruments"):
            value = getattr(self, field)
            if isinstance(value, list):
                object.__setattr__(self, field, tuple(value))
        if self.mode not in MODES:
            raise UserError(f"live.mode is {self.mode!r}; choose {', '.join(MODES[:-1])} or {MODES[-1]}")
        for field, low, high in (("pause", 0.25, 16), ("lead", 0.0625, 64)):
            self._check_number(field, low, high)
        for field, low, high in (
            ("player_program", 0, DRUMS), ("answer_bars", 1, 64), ("trade_bars", 1, 16), ("seed", 0, 2**31 - 1)
        ):  # fmt: skip
            self._check_number(field, low, high, is_whole=True)
        self._check_number("qpm", 1, 1000)
        is_meter = isinstance(self.meter, tuple) and len(self.meter) == 2 and all(_is_whole(part) for part in self.meter)
        if not is_meter or min(self.meter) < 1:
            raise UserError(f"live.meter is {self.meter!r}; give a time signature like (3, 4)")
        if self.instruments is not None:
            if not isinstance(self.instruments, tuple) or not self.instruments:
                raise UserError(f"live.instruments is {self.instruments!r}; give a tuple of programs, or None")
            for program in self.instruments:
                if not _is_whole(program) or not 0 <= program <= DRUMS:
                    raise UserError(f"live.instruments has {program!r}; give programs from 0 to 127, or 128 for drums")
        for field in SAMPLING_FIELDS:
            if getattr(self, field) is not None:
                try:
                    SamplingConfig(**{field: getattr(self, field)})
                except UserError as error:
                    raise UserError(str(error).replace("sampling.", "live.", 1)) from None

    def _check_number(self, field: str, low: float, high: float, is_whole: bool = False) -> None:
        value = getattr(self, field)
        kinds = int if is_whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            number = "a whole number" if is_whole else "a number"
            raise UserError(f"live.{field} is {value!r}; give {number} from {low:g} to {high:g}")

    def check(self, grid: Grid) -> None:
        """Raises UserError for a tempo or meter that the vocabulary `grid` lacks, with the nearest that it has.

        A tempo between those of the vocabulary is rounded for the model, and played as it is.
        """
        low, high = float(grid.tempos[0]), float(grid.tempos[-1])
        if not low <= self.qpm <= high:
            nearest = low if self.qpm < low else high
            raise UserError(f"live.qpm is {self.qpm:g}, which the vocabulary lacks; the nearest that it has is {nearest:g}")
        if self.meter not in grid.meters:
            quarters = lambda meter: 4 * meter[0] / meter[1]
            near = sorted(
                grid.meters, key=lambda meter: (abs(quarters(meter) - quarters(self.meter)), abs(meter[1] - self.meter[1]))
            )[:2]
            has = " and ".join(f"{numerator}/{denominator}" for numerator, denominator in near)
            raise UserError(
                f"live.meter is {self.meter[0]}/{self.meter[1]}, which the vocabulary lacks; the nearest that it has are {has}"
            )

    def sampling(self, default: SamplingConfig) -> SamplingConfig:
        """The model's own sampling with the fields that are set here."""
        given = {field: getattr(self, field) for field in SAMPLING_FIELDS if getattr(self, field) is not None}
        return dataclasses.replace(default, **given)

    def programs(self, played: set[int]) -> tuple[int, ...]:
        """The programs that the model may play, where the player has `played` these."""
        if self.instruments is not None:
            return self.instruments
        if self.mode == "accompany":
            return ACCOMPANISTS
        return tuple(sorted(played)) or (self.player_program,)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
