"""The 64 instruments of the Multitrack Music Transformer (arXiv 2207.06983), numbered from 1, and their MIDI programs."""

import numpy as np

from sage_jax.music.notes import DRUMS

# Groups of programs that are one instrument; the instrument decodes to the first program of its group. These are pianos,
# electric pianos, organs, electric guitars, electric, slap and synth basses, violin and fiddle, strings, synth strings, voices,
# trumpets, synth brasses, leads, pads and synth drums. Blown bottle, shakuhachi, whistle, effects, most percussion and all
# sounds have no instrument.
SHARED = (
    (0, 1, 2, 3), (4, 5), (16, 17, 18, 20), (26, 27, 28, 29, 30, 31), (33, 34, 35), (36, 37), (38, 39), (40, 110),
    (49, 44, 45, 48), (50, 51), (52, 53, 54), (56, 59), (62, 63), tuple(range(80, 88)), tuple(range(88, 96)), (118, 119),
)  # fmt: skip
WITHOUT_INSTRUMENT = (*range(76, 79), *range(96, 104), *range(112, 117), *range(120, 128))


def _instruments() -> tuple[np.ndarray, np.ndarray]:
    grouped = {program for group in SHARED for program in group}
    alone = ((program,) for program in range(DRUMS) if program not in grouped and program not in WITHOUT_INSTRUMENT)
    groups = sorted([*SHARED, *alone])
    instruments = np.zeros(DRUMS + 1, np.int64)
    for number, group in enumerate(groups, 1):
        instruments[list(group)] = number
    return instruments, np.array([-1, *(group[0] for group in groups)])


# INSTRUMENT_OF: int [129], the instrument of each program, 0 for none. PROGRAM_OF: int [65], the program of each instrument,
# increasing; -1 for instrument 0.
INSTRUMENT_OF, PROGRAM_OF = _instruments()
