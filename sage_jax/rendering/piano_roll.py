"""Piano rolls of pieces as PNG files: one colour per track, drums in a separate panel."""

import dataclasses
import math
import os
import warnings
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sage_jax.files import replacing
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.music.tracks import default_name

WIDTH, HEIGHT, DPI = 1600, 700, 100  # pixels
LEFT, RIGHT, TOP, BOTTOM, GAP = 84, 232, 88, 40, 10  # margins of the panels and the gap between them, pixels
DRUM_ROW = 19  # height in pixels, below a panel of pitched notes
PALETTE = (
    "#2f6fc4", "#e5791a", "#2a9d57", "#d03a4b", "#8658c4", "#0f9fb4", "#b8860b", "#dd559c", "#6f7d1c", "#8a4b32",
    "#6db4ee", "#f3a963", "#83cb74", "#ef8585", "#b79be6", "#62cfc6", "#d8b93c", "#f0a3cc", "#1d4b77", "#7b2150",
)  # fmt: skip
TRACK_FIELDS, LONGEST_NAME = ["program", "track"], 24  # characters of a name in the legend
INK, FAINT, DRUM_INK = "#22262e", "#8a919e", "#3b424f"
PROMPT_PAPER, BLACK_KEY = "#f6efdc", "#f3f5f8"
ABOVE = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "annotation_clip": False}  # of labels
MIN_OPACITY = 0.32  # of velocity 1; velocity 127 is opaque
DRUM_FAMILIES = {  # General MIDI percussion keys, from the bottom row up
    "Kick": (35, 36),
    "Snare, clap": (37, 38, 39, 40),
    "Toms": (41, 43, 45, 47, 48, 50),
    "Hi-hat": (42, 44, 46),
    "Cymbals": (49, 51, 52, 53, 55, 57, 59),
    "Percussion": (),  # all other keys
}


def draw_piano_roll(
    piece: Piece,
    path: str | os.PathLike,
    *,
    prompt_end: int | None = None,
    written: tuple[int, int] | None = None,
    title: str | None = None,
) -> None:
    """Writes a PNG of 1600 x 700 pixels. Raises UserError if `path` can't be written.

    prompt_end: end of the prompt, in ticks; the prompt is shaded and labelled. None or 0: no prompt.
    written: the ticks between which a model wrote, which are shaded and labelled instead.
    """
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    is_drum = piece.notes["program"] == DRUMS
    pitched, drums = piece.notes[~is_drum], piece.notes[is_drum]
    time = TimeAxis.fit(piece, prompt_end)
    colours = track_colours(pitched)

    families = drum_rows(drums["pitch"])
    panels, bottom = [], BOTTOM
    if len(drums):
        height = DRUM_ROW * len(families) if len(pitched) else HEIGHT - TOP - BOTTOM
        panels.append(_panel(figure, bottom, height))
        _draw_drums(panels[-1], drums, families, time)
        bottom += height + GAP
    if len(pitched) or not len(drums):
        panels.append(_panel(figure, bottom, HEIGHT - TOP - bottom))
        _draw_notes(panels[-1], pitched, colours, time)
    _draw_bars(panels, piece, time)
    if prompt_end:
        _draw_prompt(panels, prompt_end, time)
    elif written:
        _draw_written(panels, *written)
    _draw_titles(figure, piece, title)
    _draw_legend(figure, piece, colours)
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the font lacks some scripts
        figure.savefig(temporary, format="png", metadata={"Software": None})


@dataclasses.dataclass(frozen=True)
class TimeAxis:
    """The horizontal axis: ticks 0 to `end`, the end of the last bar, with `quarter` ticks per quarter note."""

    end: int
    quarter: int

    @classmethod
    def fit(cls, piece: Piece, prompt_end: int | None) -> "TimeAxis":
        last_tick = np.array([max(piece.end, prompt_end or 0, 1) - 1])
        bar, _, _ = piece.bars.locate(last_tick)
        return cls(int(piece.bars.start(bar + 1)[0]), piece.ticks_per_quarter)

    def pixels(self, ticks: float) -> float:
        return ticks * (WIDTH - LEFT - RIGHT) / self.end

    def ticks(self, pixels: float) -> float:
        return pixels * self.end / (WIDTH - LEFT - RIGHT)


def track_colours(notes: np.ndarray) -> dict[tuple[int, int], str]:
    """(program, track) -> colour, in order of the first onset, so that all continuations of a prompt share its colours."""
    tracks, first = np.unique(notes[TRACK_FIELDS], return_index=True)
    order = tracks[np.argsort(first, kind="stable")].tolist()
    return {track: PALETTE[index % len(PALETTE)] for index, track in enumerate(order)}


def drum_rows(keys: np.ndarray) -> dict[str, np.ndarray]:
    """Drum family -> mask (bool, shape of `keys`) of its notes, for the families that occur, from the bottom row up."""
    known = np.concatenate(list(DRUM_FAMILIES.values()))
    rows = {name: np.isin(keys, family) if family else ~np.isin(keys, known) for name, family in DRUM_FAMILIES.items()}
    return {name: chosen for name, chosen in rows.items() if chosen.any()}


def unison_lanes(notes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(lane, number of lanes) of each note: tracks that play the same pitch at the same time share its height."""
    order = np.lexsort((notes["onset"], notes["pitch"]))
    pitch, onset = notes["pitch"][order].astype(np.int64), notes["onset"][order].astype(np.int64)
    offset = pitch << 40  # so that notes of different pitches never overlap
    ends = np.maximum.accumulate(offset + onset + notes["duration"][order])
    groups = np.cumsum(np.append(True, (offset + onset)[1:] >= ends[:-1])) - 1  # chains of overlapping notes

    _, track = np.unique(notes[TRACK_FIELDS][order], return_inverse=True)
    voices, voice = np.unique(groups * len(notes) + track, return_inverse=True)
    group = voices // len(notes)
    lane, lanes = np.empty(len(notes), np.int64), np.empty(len(notes), np.int64)
    lane[order] = (np.arange(len(voices)) - np.searchsorted(group, group))[voice]
    lanes[order] = np.bincount(group)[groups]
    return lane, lanes


def _panel(figure: Figure, bottom: float, height: float) -> Axes:
    axes = figure.add_axes((LEFT / WIDTH, bottom / HEIGHT, (WIDTH - LEFT - RIGHT) / WIDTH, height / HEIGHT))
    axes.tick_params(length=0, labelsize=9, labelcolor=INK, pad=5)
    axes.set_xticks([])
    for spine in axes.spines.values():
        spine.set_color(FAINT)
        spine.set_linewidth(0.8)
    return axes


def _opacity(velocity: np.ndarray) -> np.ndarray:
    return MIN_OPACITY + (1 - MIN_OPACITY) * (velocity - 1) / 126


def _boxes(left: np.ndarray, bottom: np.ndarray, right: np.ndarray, top: np.ndarray) -> list[np.ndarray]:
    corners = [(left, bottom), (left, top), (right, top), (right, bottom)]
    return list(np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1).astype(np.float64))


def _draw_notes(axes: Axes, notes: np.ndarray, colours: dict[tuple[int, int], str], time: TimeAxis) -> None:
    axes.set_xlim(0, time.end)
    if not len(notes):
        axes.set(yticks=[], ylim=(0, 1))
        axes.text(time.end / 2, 0.5, "no notes", ha="center", va="center", fontsize=16, color=FAINT, backgroundcolor="white")
        return
    low, high = int(notes["pitch"].min()) - 2, int(notes["pitch"].max()) + 2
    spare = max(0, 24 - (high - low))
    low, high = low - spare // 2, high + spare - spare // 2
    axes.set_ylim(low - 0.5, high + 0.5)
    for pitch in range(low, high + 1):
        if pitch % 12 in (1, 3, 6, 8, 10):
            axes.axhspan(pitch - 0.5, pitch + 0.5, color=BLACK_KEY, lw=0, zorder=0)
        elif pitch % 12 == 0:
            axes.axhline(pitch - 0.5, color=FAINT, lw=0.7, alpha=0.6, zorder=1)
    octaves = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0]
    axes.set_yticks(octaves, [f"C{pitch // 12 - 1}" for pitch in octaves])

    lane, lanes = unison_lanes(notes)
    bottom = notes["pitch"] - 0.44 + 0.88 * lane / lanes
    right = notes["onset"] + np.maximum(notes["duration"], time.ticks(1.5))
    faces = np.empty((len(notes), 4))
    faces[:, :3] = [to_rgb(colours[track]) for track in notes[TRACK_FIELDS].tolist()]
    faces[:, 3] = _opacity(notes["velocity"])
    edges = np.concatenate([0.62 * faces[:, :3], faces[:, 3:]], axis=1)
    narrow = time.pixels(float(np.median(notes["duration"]))) < 4
    boxes = _boxes(notes["onset"], bottom, right, bottom + 0.88 / lanes)
    axes.add_collection(
        PolyCollection(boxes, facecolors=faces, edgecolors=edges, linewidths=0.2 if narrow else 0.7, zorder=3),
        autolim=False,
    )


def _draw_drums(axes: Axes, notes: np.ndarray, families: dict[str, np.ndarray], time: TimeAxis) -> None:
    axes.set_xlim(0, time.end)
    axes.set_ylim(-0.5, len(families) - 0.5)
    axes.set_yticks(range(len(families)), list(families))
    axes.tick_params(labelsize=8)
    for row in range(0, len(families), 2):
        axes.axhspan(row - 0.5, row + 0.5, color=BLACK_KEY, lw=0, zorder=0)
    # Drum notes have no meaningful duration: all have the same width, which fits sixteenth notes.
    stroke = time.ticks(float(np.clip(0.6 * time.pixels(time.quarter / 4), 1.2, 6)))
    rows = np.zeros(len(notes))
    for row, chosen in enumerate(families.values()):
        rows[chosen] = row
    faces = np.tile([*to_rgb(DRUM_INK), 1.0], (len(notes), 1))
    faces[:, 3] = _opacity(notes["velocity"])
    boxes = _boxes(notes["onset"], rows - 0.36, notes["onset"] + stroke, rows + 0.36)
    axes.add_collection(PolyCollection(boxes, facecolors=faces, linewidths=0, zorder=3), autolim=False)


def _draw_bars(panels: list[Axes], piece: Piece, time: TimeAxis) -> None:
    """Draws bar lines with numbers above and times below, beats where they fit, and meter changes."""
    lines = piece.bar_lines(time.end)
    spacing = time.pixels(time.end) / len(lines)
    step = 2 ** max(0, math.ceil(math.log2(34 / spacing)))
    beats = _beats(piece, time)
    for axes in panels:
        low, high = axes.get_ylim()
        if len(beats):
            axes.vlines(beats, low, high, color=FAINT, lw=0.5, alpha=0.22, zorder=1)
        if spacing >= 5 and step > 1:
            axes.vlines(lines, low, high, color=FAINT, lw=0.5, alpha=0.4, zorder=2)
        axes.vlines(lines[::step], low, high, color=FAINT, lw=0.7, alpha=0.8, zorder=2)

    changes = {int(np.searchsorted(lines, tick)): (over, under) for tick, over, under in piece.meters[1:].tolist()}
    place = {**ABOVE, "fontsize": 9}
    label_end = -math.inf  # of the previous label, pixels
    for bar in sorted({*range(0, len(lines), step), *changes}):
        if bar >= len(lines) or time.pixels(lines[bar]) < label_end:
            continue
        number = f"{bar + 1}  {changes[bar][0]}/{changes[bar][1]}" if bar in changes else f"{bar + 1}"
        minutes, seconds = divmod(round(float(piece.seconds(lines[bar]))), 60)
        panels[-1].annotate(number, (lines[bar], 1), (2, 4), color=INK, **place)
        panels[0].annotate(f"{minutes}:{seconds:02d}", (lines[bar], 0), (2, -13), color=FAINT, **place)
        label_end = time.pixels(lines[bar]) + (64 if bar in changes else 34)


def _beats(piece: Piece, time: TimeAxis) -> np.ndarray:
    """The ticks of the beats, counted from each bar line. Empty if they are too dense to draw."""
    lengths = 4 * time.quarter / piece.meters["denominator"]
    if time.pixels(lengths.min()) < 10:
        return np.zeros(0, np.int64)
    ticks = np.arange(time.end)
    _, position, meter = piece.bars.locate(ticks)
    return ticks[position % lengths[meter] == 0]


def _shade(panels: list[Axes], start: int, stop: int, lines: Sequence[int]) -> None:
    for axes in panels:
        axes.axvspan(start, stop, color=PROMPT_PAPER, lw=0, zorder=0.5, alpha=0.8)
        for tick in lines:
            axes.axvline(tick, color=INK, lw=1.8, zorder=4)


def _draw_prompt(panels: list[Axes], prompt_end: int, time: TimeAxis) -> None:
    _shade(panels, 0, prompt_end, [prompt_end])
    flagpole = {"arrowstyle": "-", "color": INK, "lw": 1.8, "shrinkA": 0, "shrinkB": 0}
    paper = {"boxstyle": "round,pad=0.35", "facecolor": PROMPT_PAPER, "edgecolor": "none"}
    top = (prompt_end, 1)
    panels[-1].annotate("", top, (0, 33), arrowprops=flagpole, **ABOVE)
    panels[-1].annotate("prompt", top, (-6, 21), ha="right", fontsize=10, color=INK, bbox=paper, **ABOVE)
    if prompt_end < time.end:
        panels[-1].annotate("continuation", top, (6, 21), fontsize=10, color=INK, weight="bold", **ABOVE)


def _draw_written(panels: list[Axes], start: int, stop: int) -> None:
    _shade(panels, start, stop, [start, stop])
    panels[-1].annotate("written by the model", (start, 1), (6, 21), fontsize=10, color=INK, weight="bold", **ABOVE)


def _draw_titles(figure: Figure, piece: Piece, title: str | None) -> None:
    title = " ".join((title or "").split())
    title = title if len(title) <= 80 else title[:79] + "\N{HORIZONTAL ELLIPSIS}"
    figure.text(LEFT / WIDTH, 1 - 30 / HEIGHT, title, fontsize=15, color=INK, weight="bold", va="center", parse_math=False)
    tempos, meter = piece.tempos["qpm"], piece.meters[0]
    tempo = f"{tempos.min():.0f}" if np.ptp(tempos) < 1 else f"{tempos.min():.0f}-{tempos.max():.0f}"
    seconds = round(float(piece.seconds(piece.end)))
    facts = [
        f"{piece.num_bars} bar{'s' * (piece.num_bars != 1)}",
        f"{meter['numerator']}/{meter['denominator']}",
        f"\N{QUARTER NOTE} = {tempo}",
        f"{len(piece.notes):,} note{'s' * (len(piece.notes) != 1)}",
        f"{seconds // 60}:{seconds % 60:02d}",
    ]
    figure.text(1 - 20 / WIDTH, 1 - 30 / HEIGHT, "   ".join(facts), fontsize=10, color=FAINT, va="center", ha="right")


def _draw_legend(figure: Figure, piece: Piece, colours: dict[tuple[int, int], str]) -> None:
    """Draws the legend: tracks and their note counts, from high to low mean pitch, and last all drums."""
    own = piece.notes[TRACK_FIELDS]
    own["track"][own["program"] == DRUMS] = 0
    tracks, each, counts = np.unique(own, return_inverse=True, return_counts=True)
    names = {track[:2]: track.name for track in piece.tracks}
    means = np.bincount(each, piece.notes["pitch"], len(tracks)) / counts
    heights = np.where(tracks["program"] == DRUMS, DRUMS, -means)
    order = np.argsort(heights, kind="stable")
    rows = min(len(order), 24)
    spacing = 25 if rows <= 20 else 24
    for row, index in enumerate(order[:rows]):
        (program, number), y = tracks[index].tolist(), HEIGHT - TOP - 12 - spacing * row
        track, is_drum = (program, number), program == DRUMS
        name, colour = (default_name(DRUMS), DRUM_INK) if is_drum else (names[track], colours[track])
        name = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"
        corner = ((WIDTH - RIGHT + 18) / WIDTH, (y - 6) / HEIGHT)
        figure.add_artist(Rectangle(corner, 14 / WIDTH, 12 / HEIGHT, facecolor=colour, edgecolor="none"))
        if row == rows - 1 and len(order) > rows:
            name = f"and {len(order) - rows + 1} more"
        figure.text((WIDTH - RIGHT + 40) / WIDTH, y / HEIGHT, name, fontsize=9.5, color=INK, va="center", parse_math=False)
        figure.text((WIDTH - 20) / WIDTH, y / HEIGHT, f"{counts[index]:,}", fontsize=9, color=FAINT, va="center", ha="right")
