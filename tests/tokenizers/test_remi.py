"""REMI+ is lossless after quantization, has MidiTok's token order, and refuses invalid streams."""

import dataclasses
import warnings

import numpy as np
import pytest
from hypothesis import given

from sage_jax.corpus.sources import EMBEDDED
from sage_jax.music.midi import read_midi, save_midi
from sage_jax.music.notes import DRUMS, METER, TEMPO, Piece
from sage_jax.music.quantization_stats import QuantizationStats
from sage_jax.tokenizers.remi import BOS, EOS, KINDS, Remi
from tests.music.pieces import pieces

REMI = Remi()


def names(tokens) -> list[str]:
    return [REMI.name(token) for token in tokens.tolist()]


@given(pieces())
def test_round_trip(piece):
    quantized = REMI.quantize(piece)
    tokens = REMI.encode(quantized)
    assert REMI.decode(tokens) == quantized
    assert REMI.quantize(quantized) == quantized
    assert tokens[0] == BOS and tokens[-1] == EOS and (tokens[1:-1] > EOS).all()
    # Notes are those of NoteEvents; only meters that cut a bar may change.
    assert np.array_equal(quantized.notes, REMI.grid.quantize(piece).notes)


@pytest.mark.parametrize(("end", "meters"), [(40, 1), (60, 2)])
def test_a_change_that_moves_beyond_the_end_is_dropped(end, meters):
    """No meter has a bar of one tick: the change would move to the next bar line, at tick 48."""
    piece = dataclasses.replace(
        Piece.from_notes([(0, 0, 60, end, 64)]), meters=np.array([(0, 4, 4), (1, 3, 4)], METER)
    )
    stats = QuantizationStats()
    quantized = REMI.quantize(piece, stats)
    assert len(quantized.meters) == meters and stats.changes_after_the_end == 2 - meters
    assert REMI.quantize(quantized) == quantized == REMI.decode(REMI.encode(quantized))


@pytest.mark.parametrize("path", sorted(EMBEDDED.rglob("*.mid"))[::8], ids=lambda path: path.stem)
def test_round_trip_of_real_files(path):
    quantized = REMI.quantize(read_midi(path))
    assert REMI.decode(REMI.encode(quantized)) == quantized


def test_token_order():
    """Piano, bass and drums in one bar, and a bass note in the next bar."""
    rows = [(0, 0, 60, 12, 80), (0, 0, 64, 12, 80), (0, 33, 36, 24, 90), (0, DRUMS, 36, 1, 100), (12, DRUMS, 38, 1, 100),
            (24, 0, 67, 6, 70), (48, 33, 41, 12, 90)]  # fmt: skip
    tokens = names(REMI.encode(REMI.quantize(Piece.from_notes(rows, qpm=120))))
    kinds = [name.split("_")[0] for name in tokens]
    assert tokens[:4] == ["BOS", "Bar_None", "TimeSig_4/4", "Position_0"]
    note = ["Program", "Pitch", "Velocity", "Duration"]
    drum = ["Program", "PitchDrum", "Velocity", "Duration"]
    bar = ["Bar", "TimeSig", "Position"]
    assert kinds == ["BOS", *bar, "Tempo", *note * 3, *drum, "Position", *drum, "Position", *note, *bar, *note, "EOS"]
    assert tokens[5:7] == ["Program_0", "Pitch_60"] and tokens[17:19] == ["Program_-1", "PitchDrum_36"]


def test_empty_bars_and_tempo_changes_are_encoded():
    piece = Piece.from_notes([(0, 0, 60, 12, 64), (48 * 5, 0, 60, 12, 64)])
    piece = dataclasses.replace(piece, tempos=np.array([(0, 120.0), (100, 90.0)], TEMPO))
    tokens = names(REMI.encode(REMI.quantize(piece)))
    assert tokens.count("Bar_None") == 6 and sum(name.startswith("Tempo") for name in tokens) == 2
    assert tokens[tokens.index("Position_4") + 1].startswith("Tempo_")


def test_a_bar_that_is_cut_short_gets_a_meter_of_its_length():
    rows = [(0, 0, 60, 12, 64), (12, 0, 62, 12, 64), (60, 0, 64, 12, 64)]
    pickup = dataclasses.replace(Piece.from_notes(rows), meters=np.array([(0, 4, 4), (12, 4, 4)], METER))
    loss = QuantizationStats()
    quantized = REMI.quantize(pickup, loss)
    assert quantized.meters.tolist() == [(0, 1, 4), (12, 4, 4)] and loss.meters_replaced == 1
    with pytest.raises(ValueError, match="cuts a bar short"):
        REMI.encode(REMI.grid.quantize(pickup))
    # No meter has five ticks, so the change moves to the next bar line.
    rows.append((100, 0, 65, 12, 64))
    odd = dataclasses.replace(Piece.from_notes(rows), meters=np.array([(0, 4, 4), (53, 3, 4)], METER))
    assert REMI.quantize(odd).meters.tolist() == [(0, 4, 4), (96, 3, 4)]


def test_decode_refuses_an_invalid_stream():
    piece = REMI.quantize(Piece.from_notes([(0, 0, 60, 12, 64), (12, DRUMS, 38, 12, 64)]))
    tokens = REMI.encode(piece)
    kinds = REMI.kinds(tokens)
    for drop, message in (
        ("TimeSig", "Position may not follow Bar"),
        ("Velocity", "Duration may not follow Pitch"),
        ("Bar", "TimeSig may not follow Special"),
    ):
        place = int(np.flatnonzero(kinds == KINDS.index(drop))[0])
        with pytest.raises(ValueError, match=message):
            REMI.decode(np.delete(tokens, place))
    swapped = tokens.copy()
    places = np.flatnonzero(kinds == KINDS.index("Position"))
    swapped[places] = tokens[places[::-1]]
    with pytest.raises(ValueError, match="does not increase"):
        REMI.decode(swapped)
    with pytest.raises(ValueError, match="PitchDrum may not follow|Pitch may not follow"):
        wrong = tokens.copy()
        wrong[np.flatnonzero(kinds == KINDS.index("Program"))[0]] = REMI.starts[KINDS.index("Program")] + DRUMS
        REMI.decode(wrong)
    with pytest.raises(ValueError, match="not in the vocabulary"):
        REMI.decode(np.array([REMI.vocab_size]))
    # An incomplete last note is skipped.
    last = int(np.flatnonzero(kinds == KINDS.index("Velocity"))[-1])
    assert len(REMI.decode(tokens[: last + 1]).notes) == 1
    assert len(REMI.decode(tokens[:1]).notes) == 0


def comparable(names: list[str]) -> list[tuple]:
    """Tokens as (kind, value) without what the two tokenizers define differently.

    Durations are in ticks. Velocities and tempos have no value, since their tables differ. Notes of one position and program
    are sorted; MidiTok sorts them by duration and then pitch.
    """
    tokens = []
    for name in names:
        kind, _, value = name.partition("_")
        if kind == "Duration" and "." in value:
            beats, part, of = map(int, value.split("."))
            value = str((beats * of + part) * 12 // of)
        tokens.append((kind, "" if kind in ("Velocity", "Tempo") else value))
    order, place = [], 0
    while place < len(tokens):
        if tokens[place][0] != "Program":
            order.append(tokens[place])
            place += 1
            continue
        end = place
        while end < len(tokens) and tokens[end] == tokens[place]:
            end += 4
        order += sorted(tuple(tokens[note : note + 4]) for note in range(place, end, 4))
        place = end
    return order


FILES = [path for path in sorted(EMBEDDED.rglob("*.mid"))[::5] if path.parent.name == "freedoom"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_tokens_equal_miditok(path, tmp_path):
    """On real files. MidiTok cuts a note that sounds on while an equal one begins; these files have none."""
    import miditok  # slow to import, and needed here alone

    piece = REMI.quantize(read_midi(path))
    in_order = dataclasses.replace(piece, tracks=())  # at an onset MidiTok has the order of tracks, and REMI+ that of programs
    save_midi(in_order, tmp_path / "piece.mid")
    meters = {}
    for numerator, denominator in REMI.grid.meters:
        meters.setdefault(denominator, []).append(numerator)
    config = miditok.TokenizerConfig(
        pitch_range=(0, 127), drums_pitch_range=(0, 127), beat_res={(0, 64): 12}, num_velocities=32, tempo_range=(20, 320),
        num_tempos=301, time_signature_range=meters, use_programs=True, use_time_signatures=True, use_tempos=True,
        one_token_stream_for_programs=True, delete_equal_successive_tempo_changes=True,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = miditok.REMI(config)(tmp_path / "piece.mid").tokens
    assert comparable(names(REMI.encode(piece)[1:-1])) == comparable(theirs)
