"""Each baseline follows its definition, and their scores have the expected order."""

import dataclasses

import numpy as np

from sage_jax.evaluation.baselines import MarkovChain, next_bars, other_piece, repeat_prompt
from sage_jax.evaluation.nmsi import score
from sage_jax.evaluation.prompts import choose_prompts
from sage_jax.music.notes import DRUMS, METER, Piece
from sage_jax.tokenizers.note_events import NoteEvents
from tests.evaluation.fixed import fixed_prompts
from tests.evaluation.test_prompts import steady

TOKENIZER = NoteEvents()


def test_repeat_prompt_fills_all_bars():
    prompts, _ = choose_prompts(["a"], [steady(40)], 2)
    looped, _ = repeat_prompt(prompts)
    given = prompts[0].prompt.notes
    assert len(looped.notes) == 4 * len(given)
    for turn in range(4):
        part = looped.notes[turn * len(given) : (turn + 1) * len(given)]
        assert np.array_equal(part["pitch"], given["pitch"])
        assert np.array_equal(part["onset"], given["onset"] + 192 * turn)
    short, _ = choose_prompts(["a"], [steady(14)], 2)  # five bars to generate
    assert repeat_prompt(short)[0].notes["onset"].max() < 5 * 48


def test_other_piece_and_next_bars_take_the_right_reference():
    prompts, _ = choose_prompts(["a", "b", "c"], [steady(60), steady(61), steady(62)], 6)
    for prompt, piece in zip(prompts, other_piece(prompts), strict=True):
        assert not any(piece is each.reference for each in prompts if each.name == prompt.name)
    alone, _ = choose_prompts(["a"], [steady(60)], 2)
    assert other_piece(alone) == [alone[1].reference, alone[0].reference]
    # The other reference has enough bars, so that its score does not measure silence.
    mixed, _ = choose_prompts(["a", "b", "c"], [steady(24), steady(60), steady(61)], 3)
    assert [prompt.bars for prompt in mixed] == [10, 16, 16]
    assert other_piece(mixed)[1] is mixed[2].reference and other_piece(mixed)[2] is mixed[1].reference
    assert all(piece is prompt.next_bars for piece, prompt in zip(next_bars(prompts), prompts, strict=True))


def test_a_chain_fitted_to_one_piece_continues_it():
    piece = steady(60)
    chain = MarkovChain(TOKENIZER, [TOKENIZER.encode(TOKENIZER.quantize(piece))])
    prompts, _ = choose_prompts(["a"], [TOKENIZER.quantize(piece)], 2)
    for prompt, sampled in zip(prompts, chain.continuations(prompts, 0), strict=True):
        assert np.array_equal(sampled.notes[sampled.notes["onset"] < prompt.length], prompt.reference.notes)


def test_a_chain_keeps_time_order_instruments_and_the_prompts_meter():
    rng = np.random.default_rng(0)
    training = []
    for seed in range(4):
        rows = sorted((int(tick), [0, 33, DRUMS][tick % 3], 36 + int(tick) % 40, 6, 64) for tick in rng.integers(0, 2400, 300))
        notes = Piece.from_notes(rows).notes
        meters = np.array([(0, 4, 4), (480, 3, 4)][: 1 + seed % 2], METER)
        training.append(TOKENIZER.quantize(dataclasses.replace(Piece.from_notes(notes), meters=meters)))
    chain = MarkovChain(TOKENIZER, [TOKENIZER.encode(piece) for piece in training])
    waltz = TOKENIZER.quantize(Piece.from_notes([(12 * n, 0, 60 + n % 9, 12, 64) for n in range(120)], meter=(3, 4)))
    prompts, _ = choose_prompts(["a"], [waltz], 2)
    first, again, another = (chain.continuations(prompts, seed) for seed in (0, 0, 1))
    assert first == again and first != another
    for prompt, piece in zip(prompts, first, strict=True):
        assert len(piece.notes) and piece.notes["onset"].min() >= 0
        assert set(piece.notes["program"].tolist()) <= {0, 33, DRUMS}
        bars = prompt.reference.bars.locate(piece.notes["onset"])[0]
        assert bars.max() <= prompt.bars + 1


def test_baselines_score_in_the_order_of_their_information():
    prompts = fixed_prompts()
    references, bars = [prompt.reference for prompt in prompts], [prompt.bars for prompt in prompts]
    means = [score(references, function(prompts), bars).nmsi.mean() for function in (other_piece, repeat_prompt, next_bars)]
    assert means[0] < means[1] - 5 and means[0] < means[2] - 5
    assert all(40 < mean < 90 for mean in means)
