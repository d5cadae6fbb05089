"""The estimated marginal agrees with a sum over all segmentations."""

import functools

import jax
import numpy as np
import pytest

from sage_jax.evaluation.likelihood import bits
from sage_jax.evaluation.segmentations import marginal_gap, matching_ids
from sage_jax.models.config import ModelConfig
from sage_jax.models.transformer import Transformer
from sage_jax.music.notes import Piece
from sage_jax.tokenizers.bpe import RemiBpe
from sage_jax.tokenizers.remi_windows import HEAD
from tests.models.small import parameters, tiny_config


def piece(beats: int) -> Piece:
    return RemiBpe().quantize(Piece.from_notes([(12 * beat, 0, 60 + beat % 2, 12, 64) for beat in range(beats)]))


@functools.cache
def learned(merges: int) -> RemiBpe:
    return RemiBpe.learn([piece(32)], merges=merges, within="bar")


def config(tokenizer: RemiBpe) -> ModelConfig:
    return tiny_config(vocab_sizes=tokenizer.vocab_sizes, kv_sharing="mqa")


def gap(tokenizer: RemiBpe, pieces: list[np.ndarray], **settings) -> list[tuple[float, float, int]]:
    return marginal_gap(config(tokenizer), parameters(config(tokenizer)), tokenizer, pieces, **settings)


def segmentations(tokenizer: RemiBpe, tokens: list[int]) -> list[tuple[int, ...]]:
    """All rows of ids whose tokens are `tokens`, by trying every id."""
    spelled = [tokenizer.expand(np.array([number]))[0].tolist() for number in range(tokenizer.vocab_sizes[0])]

    def cuts(start: int) -> list[tuple[int, ...]]:
        found = [()] if start == len(tokens) else []
        for number, spelling in enumerate(spelled):
            if tokens[start : start + len(spelling)] == spelling:
                found += [(number, *others) for others in cuts(start + len(spelling))]
        return found

    return cuts(0)


def exact(tokenizer: RemiBpe, head: np.ndarray, rows: list[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """(probability, weight) of each of all segmentations `rows` after the ids `head`, float64 [R]."""
    events = np.zeros((len(rows), len(head) + max(map(len, rows)), 1), np.int32)
    for event, row in zip(events, rows, strict=True):
        event[: len(head) + len(row), 0] = (*head, *row)
    model = Transformer(config(tokenizer))
    (logits,) = jax.jit(model.apply)({"params": parameters(config(tokenizer))}, events)
    chance = np.asarray(jax.nn.softmax(logits), np.float64)
    probability, weight = np.ones(len(rows)), np.ones(len(rows))
    for number, row in enumerate(rows):
        for at, chosen in enumerate(row):
            following = chance[number, len(head) + at - 1]
            probability[number] *= following[chosen]
            weight[number] *= sum(following[each] for each in {other[at] for other in rows if other[:at] == row[:at]})
    return probability, weight


@pytest.mark.parametrize(("steps", "count", "notes"), [(HEAD + 1, 5, 1), (100, 30, 2)])
def test_the_estimate_agrees_with_all_segmentations(steps, count, notes):
    tokenizer, draws = learned(6), 1000
    ids = tokenizer.encode(piece(2))
    rows = segmentations(tokenizer, tokenizer.expand(ids[HEAD:steps, 0])[0].tolist())
    assert len(rows) == count and len(ids) == HEAD + 3
    probability, weight = exact(tokenizer, ids[:HEAD, 0], rows)
    marginal = probability.sum()
    drawn = probability / weight  # with which a segmentation is drawn
    assert drawn.sum() == pytest.approx(1, rel=1e-4)
    itself = rows.index(tuple(ids[HEAD:steps, 0].tolist()))
    weight[itself] = 0  # the canonical one counts as it is
    error = np.sqrt((drawn * weight**2).sum() - (drawn * weight).sum() ** 2) / marginal / np.sqrt(draws)
    assert error < 0.2
    ((canonical, estimate, found),) = gap(tokenizer, [ids], steps=steps, draws=draws)
    assert canonical == pytest.approx(-np.log2(probability[itself]), rel=1e-5)
    assert abs(2 ** -(estimate + np.log2(marginal)) - 1) < 4 * error
    assert -np.log2(marginal) < canonical and found == notes


def test_more_draws_or_fewer_the_canonical_ids_are_part_of_it():
    """So the estimate is never above their bits, however few are drawn."""
    tokenizer = learned(6)
    for seed in range(20):
        for canonical, estimate, _ in gap(tokenizer, [tokenizer.encode(piece(4))], steps=100, draws=1, seed=seed):
            assert estimate <= canonical


def test_without_merges_both_are_equal():
    tokenizer = RemiBpe()
    steps = tokenizer.encode(piece(3))
    ((canonical, marginal, notes),) = gap(tokenizer, [steps], steps=100, draws=3)
    assert marginal == pytest.approx(canonical, rel=1e-6) and notes == 3
    params = parameters(config(tokenizer))
    whole = bits(config(tokenizer), params, tokenizer, [steps], context=32, batch_size=1)
    assert canonical == pytest.approx(whole.bits.sum() - whole.opening[0], rel=1e-5)


def test_each_piece_has_its_own_draws():
    tokenizer = learned(6)
    pieces = [tokenizer.encode(piece(beats)) for beats in (2, 9, 1)]
    together = gap(tokenizer, pieces, steps=12, draws=20)
    assert [notes for _, _, notes in together] == [2, int(tokenizer.num_notes(pieces[1][:12]).sum()), 1]
    alone = gap(tokenizer, pieces[:1], steps=12, draws=20)
    np.testing.assert_allclose(alone[0], together[0], rtol=1e-5)
    assert gap(tokenizer, pieces[:1], steps=12, draws=20, seed=1)[0][1] != alone[0][1]
    assert gap(tokenizer, [], steps=12, draws=20) == []


def test_matching_ids():
    """Those of one and more tokens; none reaches beyond the end."""
    tokenizer = learned(6)
    tokens = tokenizer.expand(tokenizer.encode(piece(2))[HEAD:, 0])[0][:-2]  # without the last Duration and EOS
    ids, sizes = matching_ids(tokenizer, tokens)
    spelled = [[tokenizer.expand(np.array([each]))[0].tolist() for each in row[row >= 0]] for row in ids]
    for place, texts in enumerate(spelled):
        assert all(tokens[place : place + len(text)].tolist() == text for text in texts)
        assert [len(text) for text in texts] == sizes[place][ids[place] >= 0].tolist()
    assert [len(texts) for texts in spelled] == [3, 1, 2, 1, 1, 2, 1, 1]


def test_mistakes_raise_errors():
    tokenizer = learned(6)
    ids = tokenizer.encode(piece(2))
    for wrong, steps, number in ((ids[:HEAD], 100, 1), (ids[:, 0], 100, 1), (ids, HEAD, 0)):
        with pytest.raises(ValueError, match=rf"piece {number} has the shape .* give ids \[N, 1\], more than 5 of them"):
            gap(tokenizer, [ids, wrong], steps=steps, draws=2)
    with pytest.raises(ValueError, match="draws is 0; give at least 1"):
        gap(tokenizer, [ids], steps=10, draws=0)
