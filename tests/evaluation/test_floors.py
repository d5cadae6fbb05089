"""Floors are proper distributions over the tokens that the likelihood counts, and do not depend on other pieces."""

import jax
import numpy as np
import pytest

from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.grammars.note_events import Grammar
from sage_jax.evaluation.floors import FLOORS, allowed_ids, floor_bits
from sage_jax.evaluation.markov import ORDER, Tokens, best_chain, markov, unigram
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.note_events import NoteEvents
from tests.music.midi_files import random_piece

TOKENIZER = NoteEvents()
SIZES = TOKENIZER.vocab_sizes


def encoded(seed: int, notes: int) -> np.ndarray:
    return TOKENIZER.encode(TOKENIZER.quantize(random_piece(seed, notes)))


def repetitive(bars: int) -> np.ndarray:
    """Four equal piano notes in each bar."""
    return TOKENIZER.encode(TOKENIZER.quantize(Piece.from_notes([(12 * beat, 0, 60, 12, 64) for beat in range(4 * bars)])))


def replaced(tokens: Tokens, place: int) -> Tokens:
    """The context of the token at `place`, once with each id of its attribute."""
    size = SIZES[tokens.attribute[place]]
    before = np.repeat(tokens.before[place : place + 1], size, axis=0)
    return Tokens(np.full(size, tokens.attribute[place]), np.arange(size), before)


def toy(attributes: list[int], tokens: list[int], before: list[list[int]]) -> Tokens:
    return Tokens(np.array(attributes), np.array(tokens), np.array(before).reshape(len(tokens), -1))


def test_tokens_have_what_comes_before_them():
    events = encoded(0, 3)
    tokens = Tokens.of([events[:3], events, events[:1]])
    assert len(tokens.token) == 5 * (2 + len(events) - 1) and tokens.before.shape[1] == ORDER
    assert tokens.token[10:].tolist() == events[1:].ravel().tolist()
    assert tokens.attribute[10:].tolist() == list(range(5)) * (len(events) - 1)
    assert (tokens.before[[0, 10]] == ev.BOS).all()
    assert tokens.before[-1].tolist() == events.ravel()[-ORDER - 1 : -1].tolist()


def test_probabilities_sum_to_one():
    training, scored = Tokens.of([encoded(0, 60), repetitive(8)]), Tokens.of([encoded(1, 30), repetitive(4)])
    for place in (0, 1, 2, 13, 14, 57, len(scored.token) - 40, len(scored.token) - 5, len(scored.token) - 4):
        every = replaced(scored, place)
        for model in (unigram, markov):
            found = model(SIZES, training, every)
            assert (found > 0).all() and found.sum() == pytest.approx(1, abs=1e-12)
            assert found[scored.token[place]] == pytest.approx(model(SIZES, training, scored)[place], rel=1e-12)


def test_a_small_example_by_hand():
    """One attribute of four ids and contexts of one token: a b a b a c after a start s, with s, a, b, c = 0, 1, 2, 3."""
    training = toy([0] * 6, [1, 2, 1, 2, 1, 3], [[0], [1], [2], [1], [2], [1]])
    scored = toy([0] * 4, [2, 3, 0, 1], [[1], [1], [1], [3]])
    # Order 0 has six tokens of three kinds: q(b) = (2 + 3/4) / 9, q(c) = (1 + 3/4) / 9, q(s) = (3/4) / 9, q(a) = (3 + 3/4) / 9.
    # After a there are b, b and c: three tokens of two kinds. Nothing follows c.
    expected = [(2 + 2 * 2.75 / 9) / 5, (1 + 2 * 1.75 / 9) / 5, (2 * 0.75 / 9) / 5, 3.75 / 9]
    np.testing.assert_allclose(markov([4], training, scored), expected, rtol=1e-14)
    np.testing.assert_allclose(unigram([4], training, scored), [3 / 10, 2 / 10, 1 / 10, 4 / 10], rtol=1e-14)


def test_contexts_of_two_attributes_differ():
    training = toy([0, 1, 0, 1], [1, 2, 1, 2], [[2], [1], [2], [1]])
    found = markov([3, 5], training, toy([0, 1], [1, 2], [[1], [1]]))
    order_zero = (2 + 1 / 3) / 3, (2 + 1 / 5) / 3
    np.testing.assert_allclose(found, [order_zero[0], (2 + order_zero[1]) / 3], rtol=1e-14)
    unused = markov([3, 5], toy([0], [1], [[2]]), toy([1], [2], [[2]]))  # an attribute that the training split lacks
    np.testing.assert_allclose(unused, [1 / 5])


def test_uniform_counts_the_ids_that_the_grammar_allows():
    rows = [(0, 0, 60, 12, 80), (0, 0, 64, 12, 80), (0, DRUMS, 36, 6, 90), (500, 33, 40, 12, 64)]
    events = TOKENIZER.encode(TOKENIZER.quantize(Piece.from_notes(rows)))
    assert (events[:, ev.INSTRUMENT] == ev.REST).any()
    grammar, limits = Grammar(TOKENIZER), jax.tree.map(np.asarray, Limits().constraints())
    state, expected = grammar.start(1), []
    for event in events[1:].astype(np.int32):
        so_far = []
        for token in event:
            inside = so_far and so_far[0] == ev.EOS
            allowed = None if inside else np.asarray(grammar.allowed(state, so_far, limits))[0]
            assert allowed is None or allowed[token]
            expected.append(1 if allowed is None else allowed.sum())
            so_far.append(np.array([token]))
        state = grammar.advance(state, event[None])
    found = allowed_ids(TOKENIZER, [events])[0]
    assert found.ravel().tolist() == expected
    assert found[-1, 1:].tolist() == [1, 1, 1, 1] and found[2].tolist()[2:] == [128, SIZES[3] - 4, SIZES[4] - 4]
    bits = floor_bits(TOKENIZER, [events], [events])["uniform"]
    assert bits[0] == pytest.approx(np.log2(expected).sum(), rel=1e-12)


def test_learning_more_takes_fewer_bits():
    training, piece = [repetitive(30), repetitive(10), encoded(0, 100)], repetitive(20)
    bits = floor_bits(TOKENIZER, training, [piece])
    assert tuple(bits) == FLOORS
    assert bits["markov"][0] < bits["unigram"][0] / 3 and bits["unigram"][0] < bits["uniform"][0]
    assert bits["markov"][0] / 80 < 1


def test_the_order_suits_the_training_split():
    """Equal pieces give a long context; pieces of chance give a short one."""
    same, chance = [repetitive(12)] * 3, [encoded(seed, 60) for seed in range(12)]
    assert best_chain(SIZES, same)[0] > 4 > best_chain(SIZES, chance)[0]
    assert best_chain(SIZES, same[:1]) == (ORDER, 1)
    training, scored = Tokens.of(chance), Tokens.of([encoded(20, 60)])
    bits = floor_bits(TOKENIZER, chance, [encoded(20, 60)])["markov"][0]
    assert bits == pytest.approx(-np.log2(markov(SIZES, training, scored, *best_chain(SIZES, chance))).sum())
    assert bits < -np.log2(markov(SIZES, training, scored)).sum()


def test_pieces_do_not_affect_each_other():
    training = [encoded(9, 50)]
    pieces = [encoded(seed, notes) for seed, notes in enumerate([5, 400, 60] + [3] * 20)]
    together = floor_bits(TOKENIZER, training, pieces)
    for number in (0, 1, 2, 22):
        alone = floor_bits(TOKENIZER, training, [pieces[number]])
        for name in FLOORS:
            assert together[name][number] == pytest.approx(alone[name][0], rel=1e-12)
    assert all(found.shape == (0,) for found in floor_bits(TOKENIZER, training, []).values())
    only_bos = floor_bits(TOKENIZER, training, [pieces[0][:1]])
    assert [found.tolist() for found in only_bos.values()] == [[0], [0], [0]]


def test_mistakes_raise_errors():
    piece = encoded(0, 20)
    for empty in ([], [piece[:1]]):
        with pytest.raises(ValueError, match="training split has no tokens"):
            floor_bits(TOKENIZER, empty, [piece])
    backwards, unknown, after_end = piece.copy(), piece.copy(), piece.copy()
    backwards[9, ev.DURATION] = ev.NONE
    unknown[4, ev.PITCH] = SIZES[ev.PITCH]
    after_end[-1, ev.VELOCITY] = ev.NONE
    for wrong, message in (
        (backwards, "event 9 of piece 1 is .* which the grammar forbids"),
        (after_end, f"event {len(piece) - 1} of piece 1 is .* which the grammar forbids"),
        (unknown, "event 4 of piece 1 is .* which the vocabulary lacks"),
        (piece[1:], "piece 1 begins with .* not with BOS"),
        (piece[:, :4], r"piece 1 has the shape .* give events \[N, 5\]"),
    ):
        with pytest.raises(ValueError, match=message):
            floor_bits(TOKENIZER, [piece], [piece, wrong])
