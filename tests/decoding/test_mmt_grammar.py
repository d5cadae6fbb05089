"""MmtGrammar: random steps are well-formed pieces within the constraints, and every real piece is allowed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from sage_jax.corpus.sources import EMBEDDED
from sage_jax.decoding.constraints import Constraints
from sage_jax.decoding.grammars.mmt import MmtGrammar
from sage_jax.music.midi import read_midi
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.tokenizers.mmt import BEAT, BOS, EOS, INSTRUMENT, INSTRUMENT_ROW, NOTE_ROW, PAD, START_OF_NOTES, TYPE, Mmt
from sage_jax.tokenizers.mmt_instruments import INSTRUMENT_OF, PROGRAM_OF
from tests.decoding.small import constraints_of
from tests.music.pieces import pieces

MMT = Mmt()
B, STEPS = 64, 160


def constraints(batch: int = B, first_bar=0, allow_eos: bool = False, programs=None) -> Constraints:
    return constraints_of(batch, first_bar=first_bar, allow_eos=allow_eos, programs=programs)


def mmt_encoded(rows, mmt: Mmt = MMT) -> np.ndarray:
    return mmt.encode(mmt.quantize(Piece.from_notes(rows)))


def draw(mmt: Mmt, prompt, constraints: Constraints, seed: int, slope: float, steps: int):
    """Random steps [steps, B, A] after `prompt` [N, A], the bar after each step, and whether each token had an allowed id.

    slope: decrease of the logits with the id; with a steep slope notes are close together.
    """
    padded = np.zeros((8, 6), np.int32)
    padded[8 - len(prompt) :] = prompt
    return [np.asarray(each)[:steps] for each in _draw(mmt, padded, constraints, seed, slope, steps)]


@functools.partial(jax.jit, static_argnums=0)
def _draw(mmt: Mmt, prompt, constraints: Constraints, seed, slope, steps):
    """As draw; rows of STEPS, of which the first `steps` are drawn."""
    grammar = MmtGrammar(mmt)
    state = jax.lax.fori_loop(0, len(prompt), lambda n, s: grammar.advance(s, jnp.tile(prompt[n], (B, 1))), grammar.start(B))

    def one(state, key):
        step, possible = [], []
        for attribute, size in enumerate(grammar.vocab_sizes):
            allowed = grammar.allowed(state, step, constraints)
            assert allowed.shape == (B, size) and allowed.dtype == bool
            falling = 0 if attribute == TYPE else slope * jnp.arange(size)[None, :]
            noise = 3 * jax.random.normal(jax.random.fold_in(key, attribute), (B, size)) - falling
            step.append(jnp.where(allowed, noise, -jnp.inf).argmax(axis=-1).astype(jnp.int32))
            possible.append(allowed.any(axis=-1))
        step = jnp.stack(step, axis=-1)
        state = grammar.advance(state, step)
        return state, (step, state.bar, jnp.stack(possible, axis=-1))

    keys = jax.random.split(jax.random.key(seed), STEPS)
    empty = jax.tree.map(lambda part: jnp.zeros((STEPS, *part.shape), part.dtype), jax.eval_shape(one, state, keys[0])[1])

    def record(n, carry):
        state, rows = carry
        state, drawn = one(state, keys[n])
        return state, jax.tree.map(lambda row, part: row.at[n].set(part), rows, drawn)

    return jax.lax.fori_loop(0, steps, record, (state, empty))[1]


@pytest.mark.parametrize("slope", [0.0, 0.05, 2.0, 20.0])
def test_random_steps_are_well_formed(slope):
    """10,000 steps per slope, from notes over the whole piece to the densest possible chords."""
    steps, bars, possible = draw(MMT, mmt_encoded([])[:1], constraints(), 7, slope, STEPS)
    assert possible.all() and steps.shape[:2] == (STEPS, B) and STEPS * B > 10_000
    assert slope < 1 or (steps[..., TYPE] == NOTE_ROW).sum() > 10_000
    for row, bar in zip(steps.swapaxes(0, 1), bars.T, strict=True):
        piece = MMT.decode(row)
        notes = MMT.num_notes(row[: np.append(np.flatnonzero(row[:, TYPE] == EOS), STEPS)[0]]).sum()
        assert len(piece.notes) == notes and MMT.quantize(piece) == piece
        assert (np.diff(bar) >= 0).all() and (notes == 0 or bar[-1] == piece.notes["onset"][-1] // 48)
        if (row[:, TYPE] == EOS).any():  # not allowed by the constraints, hence the only id left
            last = row[row[:, TYPE] == NOTE_ROW][-1]
            assert last[BEAT] == 256
        again = MMT.encode(piece)
        assert np.array_equal(again[again[:, TYPE] == NOTE_ROW], row[row[:, TYPE] == NOTE_ROW])


def test_successor_of_the_highest_note():
    """Only EOS follows the last possible note; the next position follows the last note of a position."""
    highest = lambda beat, position: [NOTE_ROW, beat, position, 128, 32, 64]
    head = mmt_encoded([(0, 118, 60, 12, 64)])[:3]
    for beat, position, kind, following in ((256, 12, EOS, None), (3, 12, NOTE_ROW, (4, 1)), (3, 5, NOTE_ROW, (3, 6))):
        prompt = np.concatenate([head, [highest(beat, position)]])
        steps, _, possible = draw(MMT, prompt, constraints(), 0, 100.0, 1)
        assert possible.all() and (steps[0, :, TYPE] == kind).all()
        assert following is None or (steps[0, :, 1:3] == following).all()
    # Whether a note of another instrument can follow depends on the allowed programs.
    steps, _, possible = draw(MMT, np.concatenate([head, [[5, 256, 12, 128, 32, 1]]]), constraints(), 0, 0.0, 2)
    assert possible.all() and (steps[0, :, 1:5] == [256, 12, 128, 32]).all() and (steps[0, :, INSTRUMENT] > 1).all()
    steps, *_ = map(
        np.asarray, draw(MMT, np.concatenate([head, [[5, 256, 12, 128, 32, 1]]]), constraints(programs=[0, 2]), 0, 0.0, 1)
    )
    assert (steps[0, :, TYPE] == EOS).all()


@pytest.mark.parametrize("bar_ticks", [48, 42])
@pytest.mark.parametrize("first_bar", [0, 2, 5, 60, 100])
def test_no_note_and_no_eos_before_the_first_bar(first_bar, bar_ticks):
    mmt = Mmt(bar_ticks=bar_ticks)
    prompt = mmt_encoded([(0, 0, 60, 12, 64), (90, 40, 62, 12, 64)], mmt)[:-1]
    firsts = np.where(np.arange(B) % 2, first_bar, 0)  # each row has its own
    steps, bars, possible = draw(mmt, prompt, constraints(first_bar=firsts, allow_eos=True), 3, 0.5, 40)
    assert possible.all()
    for row, bar, first in zip(steps.swapaxes(0, 1), bars.T, firsts, strict=True):
        notes = mmt.decode(np.concatenate([prompt, row])).notes[2:]
        assert (notes["onset"] >= max(first * bar_ticks, 90)).all()
        ends = np.flatnonzero(row[:, TYPE] == EOS)
        if first * bar_ticks >= 256 * 12:  # no such beat
            assert ends[0] == 0
        elif len(ends) and first > 90 // bar_ticks:
            assert ends[0] > 0 and bar[ends[0]] >= first


def test_only_allowed_programs_are_generated():
    """An instrument is allowed if one of its programs is. Without any, the piece is empty."""
    start = mmt_encoded([])[:1]
    steps, _, possible = draw(MMT, start, constraints(programs=[1, 48, DRUMS, 120]), 1, 0.3, 100)
    instruments = steps[(steps[..., TYPE] != START_OF_NOTES) & (steps[..., TYPE] != EOS)][:, INSTRUMENT]
    assert possible.all() and set(instruments) == set(INSTRUMENT_OF[[0, 49]]) and set(PROGRAM_OF[instruments]) == {0, 49}
    steps, _, possible = draw(MMT, start, constraints(programs=[DRUMS, 120]), 1, 0.3, 2)
    assert possible.all() and (steps[:, :, TYPE] == [[START_OF_NOTES], [EOS]]).all()


def test_types_follow_in_order():
    grammar = MmtGrammar(MMT)
    types = lambda state, **options: np.flatnonzero(grammar.allowed(state, [], constraints(1, **options))[0]).tolist()
    advance = lambda state, *step: grammar.advance(state, jnp.array([step], jnp.int32))
    state = grammar.start(1)
    assert types(state, allow_eos=True) == [INSTRUMENT_ROW, START_OF_NOTES]
    for special in (BOS, EOS, PAD):
        assert jax.tree.all(jax.tree.map(jnp.array_equal, advance(state, special, 2, 2, 2, 2, 2), state))
    state = advance(state, INSTRUMENT_ROW, 0, 0, 0, 0, 63)
    row = np.asarray(grammar.allowed(state, [jnp.array([INSTRUMENT_ROW])] + [jnp.array([0])] * 4, constraints(1)))
    assert np.flatnonzero(row).tolist() == [64] and types(state) == [INSTRUMENT_ROW, START_OF_NOTES]
    assert types(advance(state, INSTRUMENT_ROW, 0, 0, 0, 0, 64)) == [START_OF_NOTES]
    state = advance(state, START_OF_NOTES, 0, 0, 0, 0, 0)
    assert types(state) == [NOTE_ROW] and types(state, allow_eos=True) == [EOS, NOTE_ROW]
    assert types(state, allow_eos=True, first_bar=1) == [NOTE_ROW]
    state = advance(state, NOTE_ROW, 5, 1, 61, 12, 1)
    assert int(state.bar[0]) == 1 and types(state, allow_eos=True, first_bar=1) == [EOS, NOTE_ROW]


@functools.partial(jax.jit, static_argnums=0)
def allowed_tokens(mmt: Mmt, steps, constraints: Constraints):
    """Whether each token of `steps` [N, A] is allowed after the tokens before it."""
    grammar = MmtGrammar(mmt)

    def one(state, step):
        tokens = [step[attribute][None] for attribute in range(len(grammar.vocab_sizes))]
        allowed = [grammar.allowed(state, tokens[:index], constraints)[0, token[0]] for index, token in enumerate(tokens)]
        return grammar.advance(state, step[None]), jnp.stack(allowed)

    return jax.lax.scan(one, grammar.start(1), steps)[1]


def assert_allowed(steps: np.ndarray, programs=None) -> None:
    padded = np.zeros((-len(steps) % 512 + len(steps), 6), np.int32)
    padded[: len(steps)] = steps
    found = np.asarray(allowed_tokens(MMT, padded, constraints(1, allow_eos=True, programs=programs)))[1 : len(steps)]
    assert found.all(), steps[1:][~found.all(axis=1)][:3]


@given(pieces())
@settings(deadline=None)
def test_random_pieces_are_allowed(piece):
    quantized = MMT.quantize(piece)
    assert_allowed(MMT.encode(quantized), sorted(set(quantized.notes["program"].tolist())) or None)


@pytest.mark.parametrize("path", sorted(EMBEDDED.rglob("*.mid"))[::9], ids=lambda path: path.stem)
def test_real_pieces_are_allowed(path):
    assert_allowed(MMT.encode(MMT.quantize(read_midi(path))))
