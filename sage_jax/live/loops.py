"""Loops of sustained notes: where a recording may jump back while the note is held, without a click or a beat."""

import numpy as np

LOOP_START, LOOP_END = 1.6, 3.8  # seconds; the start is moved to where the sound fits the end best
SEARCH = 0.06  # seconds that the start may move, either way
CROSSFADE = 0.25  # seconds before the end that turn into those before the start
HELD = 0.2  # a note holds if its level at the end is this share of that after its attack
EARLY = (0.4, 1.0)  # seconds after the attack


def looped(sample: np.ndarray, rate: int) -> tuple[np.ndarray, tuple[float, float] | None]:
    """`sample`, float [frames] at `rate` a second, made to repeat, with the loop's seconds; unchanged, None, if it decays.

    The level within the loop is made even. The last CROSSFADE seconds before its end turn into those before its start, at a
    constant power that takes into account how alike the two are.
    """
    start, end, fade = (round(seconds * rate) for seconds in (LOOP_START, LOOP_END, CROSSFADE))
    level = lambda low, high: float(np.sqrt(np.mean(np.square(sample[low:high], dtype=np.float64))))
    if len(sample) < end or level(end - fade, end) < HELD * level(*(round(seconds * rate) for seconds in EARLY)):
        return sample, None
    sample = sample[:end].astype(np.float32)
    before, after = level(start - fade, start), level(end - fade, end)
    if min(before, after) > 0:
        ramp = np.linspace(0, np.log(np.clip(before / after, 0.5, 2)), end - start, dtype=np.float32)
        sample[start:] *= np.exp(ramp)
    start, likeness = _best_start(sample, start, end, fade, round(SEARCH * rate))
    rise = np.linspace(0, 1, fade, dtype=np.float32)
    weight = np.sqrt(rise**2 + (1 - rise) ** 2 + 2 * rise * (1 - rise) * max(likeness, 0.0))
    sample[end - fade :] = (sample[end - fade :] * (1 - rise) + sample[start - fade : start] * rise) / weight
    return sample, (start / rate, end / rate)


def _best_start(sample: np.ndarray, start: int, end: int, width: int, search: int) -> tuple[int, float]:
    """The frame near `start` whose `width` frames before it are most like those before `end`, and their correlation."""
    ending = sample[end - width : end].astype(np.float64)
    region = sample[start - search - width : start + search].astype(np.float64)
    size = 1 << (len(region) + width).bit_length()
    spectrum = np.fft.rfft(region, size) * np.conj(np.fft.rfft(ending, size))
    products = np.fft.irfft(spectrum, size)[: 2 * search + 1]
    sums = np.concatenate([[0.0], np.cumsum(region**2)])
    energies = sums[width:] - sums[: len(sums) - width]
    found = products / np.sqrt(np.maximum(energies[: len(products)] * float(ending @ ending), 1e-20))
    best = int(np.argmax(found))
    return start - search + best, float(found[best])
