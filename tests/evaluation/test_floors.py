"""Floors are what they say, and lie in the order that they must."""

import dataclasses

import numpy as np

from sage_jax.evaluation.floors import MarkovChain, later, loop, other
from sage_jax.evaluation.nmsi import score
from sage_jax.evaluation.prompts import choose_prompts
from sage_jax.music.events import NoteEvents
from sage_jax.music.notes import DRUMS, METER, Piece
from tests.evaluation.fixed import fixed_prompts
from tests.evaluation.test_prompts import steady

TOKENIZER = NoteEvents()


def test_the_loop_repeats_the_prompt_until_the_bars_are_full():
    prompts, _ = choose_prompts(["a"], [steady(40)], 2)
    looped, _ = loop(prompts)
    given = prompts[0].prompt.notes
    assert len(looped.notes) == 4 * len(given)
    for turn in range(4):
        part = looped.notes[turn * len(given) : (turn + 1) * len(given)]
        assert np.array_equal(part["pitch"], given["pitch"])
        assert np.array_equal(part["onset"], given["onset"] + 192 * turn)
    short, _ = choose_prompts(["a"], [steady(14)], 2)  # five bars to be written
    assert loop(short)[0].notes["onset"].max() < 5 * 48


def test_the_other_piece_is_another_piece():
    prompts, _ = choose_prompts(["a", "b", "c"], [steady(60), steady(61), steady(62)], 6)
    for prompt, piece in zip(prompts, other(prompts), strict=True):
        assert not any(piece is mine.reference for mine in prompts if mine.name == prompt.name)
    alone, _ = choose_prompts(["a"], [steady(60)], 2)
    assert other(alone) == [alone[1].reference, alone[0].reference]
    # One that has as many bars to fill, so that silence is not what is measured.
    mixed, _ = choose_prompts(["a", "b", "c"], [steady(24), steady(60), steady(61)], 3)
    assert [prompt.bars for prompt in mixed] == [10, 16, 16]
    assert other(mixed)[1] is mixed[2].reference and other(mixed)[2] is mixed[1].reference
    assert all(piece is prompt.later for piece, prompt in zip(later(prompts), prompts, strict=True))


def test_a_chain_that_heard_one_piece_plays_it_on():
    piece = steady(60)
    chain = MarkovChain(TOKENIZER, [TOKENIZER.encode(TOKENIZER.quantize(piece))])
    prompts, _ = choose_prompts(["a"], [TOKENIZER.quantize(piece)], 2)
    for prompt, drawn in zip(prompts, chain.continuations(prompts, 0), strict=True):
        assert np.array_equal(drawn.notes[drawn.notes["onset"] < prompt.length], prompt.reference.notes)


def test_a_chain_keeps_time_drums_and_the_meter_of_the_prompt():
    rng = np.random.default_rng(0)
    heard = []
    for seed in range(4):
        rows = sorted((int(tick), [0, 33, DRUMS][tick % 3], 36 + int(tick) % 40, 6, 64) for tick in rng.integers(0, 2400, 300))
        notes = Piece.from_notes(rows).notes
        meters = np.array([(0, 4, 4), (480, 3, 4)][: 1 + seed % 2], METER)
        heard.append(TOKENIZER.quantize(dataclasses.replace(Piece.from_notes(notes), meters=meters)))
    chain = MarkovChain(TOKENIZER, [TOKENIZER.encode(piece) for piece in heard])
    waltz = TOKENIZER.quantize(Piece.from_notes([(12 * n, 0, 60 + n % 9, 12, 64) for n in range(120)], meter=(3, 4)))
    prompts, _ = choose_prompts(["a"], [waltz], 2)
    first, again, another = (chain.continuations(prompts, seed) for seed in (0, 0, 1))
    assert first == again and first != another
    for prompt, piece in zip(prompts, first, strict=True):
        assert len(piece.notes) and piece.notes["onset"].min() >= 0
        assert set(piece.notes["program"].tolist()) <= {0, 33, DRUMS}
        bars = prompt.reference.bars.locate(piece.notes["onset"])[0]
        assert bars.max() <= prompt.bars + 1


def test_floors_lie_in_the_order_of_how_much_they_know():
    prompts = fixed_prompts()
    truth, bars = [prompt.reference for prompt in prompts], [prompt.bars for prompt in prompts]
    means = [score(truth, floor(prompts), bars).nmsi.mean() for floor in (other, loop, later)]
    assert means[0] < means[1] - 5 and means[0] < means[2] - 5
    assert all(40 < mean < 90 for mean in means)
