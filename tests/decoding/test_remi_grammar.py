"""RemiGrammar: random ids always decode, and every encoded piece is allowed, with and without byte-pair encoding."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.corpus.sources import EMBEDDED
from sage_jax.decoding.constraints import Constraints
from sage_jax.decoding.grammars.remi import RemiGrammar
from sage_jax.music.midi import read_midi
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.tokenizers.bpe import RemiBpe
from sage_jax.tokenizers.remi import (
    BAR,
    BOS,
    DRUM,
    DURATION,
    EOS,
    METER_OF,
    PAD,
    PITCH,
    POSITION,
    PROGRAM,
    SPECIAL,
    TEMPO_OF,
    VELOCITY,
)
from tests.decoding.small import constraints_of

# (per_track, merge_scope, merges)
TOKENIZERS = [
    (False, "bar", 0),
    (True, "bar", 0),
    (False, "note", 400),
    (True, "beat", 400),
    (False, "bar", 400),
    (True, "bar", 400),
]
ROWS, STEPS, STRIDE = 50, 200, 37


@functools.cache
def pieces() -> list[Piece]:
    files = sorted(EMBEDDED.rglob("*.mid"))[::12]
    return [RemiBpe().quantize(read_midi(path)) for path in files]


@functools.cache
def grammar(per_track: bool, merge_scope: str, merges: int) -> RemiGrammar:
    return RemiGrammar(RemiBpe.learn(pieces(), merges=merges, within=merge_scope, per_track=per_track))


def constraints(first_bar=0, allow_eos=False, programs=None) -> Constraints:
    return constraints_of(ROWS, first_bar=first_bar, allow_eos=allow_eos, programs=programs)


@functools.cache
def advance_of(settings):
    """The compiled step of the grammar's state."""
    return jax.jit(grammar(*settings).advance)


@functools.cache
def sampler(settings):
    """(constraints, logits [ROWS, V], noise [ROWS, V + STEPS STRIDE]) -> ids, whether any was allowed, and the bar after it.

    Each is [STEPS, ROWS]. The noise of a step begins STRIDE later than that of the step before: to draw it anew would take
    unoptimized code seconds.
    """
    rules = grammar(*settings)
    V = rules.vocab_sizes[0]

    @jax.jit
    def draw(constraints, logits, noise):
        def step(state, first):
            allowed = rules.allowed(state, [], constraints)
            scores = logits + jax.lax.dynamic_slice_in_dim(noise, first, V, axis=1)
            ids = jnp.where(allowed, scores, -jnp.inf).argmax(axis=-1).astype(jnp.int32)
            state = rules.advance(state, ids[:, None])
            return state, (ids, allowed.any(axis=-1), state.bar)

        return jax.lax.scan(step, rules.start(ROWS), jnp.arange(STEPS) * STRIDE)[1]

    return draw


def random_steps(settings, bounds: Constraints, seed: int, eos_logit: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(steps [ROWS, 1 + STEPS, 1], bars [ROWS]): BOS and random ids. Each row prefers ids that begin with one kind of token."""
    rules, rng = grammar(*settings), np.random.default_rng(seed)
    V = rules.vocab_sizes[0]
    logits = rng.normal(size=(ROWS, V)) * 2
    preferred = np.resize([SPECIAL, BAR, POSITION, PROGRAM, DURATION], ROWS)
    logits += 6 * (rules.representation.spans.first == preferred[:, None])
    logits[:, EOS] = eos_logit
    noise = rng.gumbel(size=(ROWS, V + STEPS * STRIDE))  # the largest sum is a sample of the softmax
    ids, possible, bars = sampler(settings)(bounds, logits.astype(np.float32), noise.astype(np.float32))
    assert np.asarray(possible).all()
    return np.pad(np.asarray(ids).T[..., None], ((0, 0), (1, 0), (0, 0)), constant_values=BOS), np.asarray(bars)[-1]


@pytest.mark.parametrize("settings", TOKENIZERS, ids=str)
def test_ten_thousand_random_steps_decode(settings):
    representation = grammar(*settings).representation
    remi = representation.remi
    for steps, bar in zip(*random_steps(settings, constraints(), 0), strict=True):
        piece = representation.decode(steps)
        assert len(piece.notes) == representation.num_notes(steps).sum()
        tokens = representation.expand(steps[:, 0])[0]
        kinds = remi.kinds(tokens)
        assert bar == max((kinds == BAR).sum() - 1, 0)
        # Every position lies inside its bar.
        value = tokens - remi.starts[kinds]
        meter = np.maximum.accumulate(np.where(kinds == METER_OF, np.arange(len(tokens)), 0))
        assert (value < representation.grid.meter_ticks[value[meter] * (kinds[meter] == METER_OF)])[kinds == POSITION].all()
        # Notes are in order, each once: re-encoding gives the same tokens, except for tempos that change nothing.
        without_tempos = lambda tokens: tokens[~np.isin(remi.kinds(tokens), (TEMPO_OF, POSITION))]
        again, tokens = without_tempos(remi.encode(representation.quantize(piece)))[:-1], without_tempos(tokens)
        assert np.array_equal(again[: len(tokens)], tokens[: len(again)])


@pytest.mark.parametrize("settings", TOKENIZERS, ids=str)
def test_real_pieces_are_allowed_at_every_step(settings):
    rules = grammar(*settings)
    encoded = [rules.representation.encode(piece)[:1000] for piece in pieces()]
    encoded += [rules.representation.window(steps, 400)[0] for steps in encoded]
    padded = np.full((len(encoded), 1001, 1), PAD, np.int32)
    for row, steps in zip(padded, encoded, strict=True):
        row[1 : len(steps) + 1] = steps  # left-padded, like a batch of prompts
    bounds = constraints_of(len(encoded), allow_eos=True)

    def check(state, step):
        allowed = jnp.take_along_axis(rules.allowed(state, [], bounds), step, axis=1)[:, 0]
        return rules.advance(state, step), allowed | (step[:, 0] <= BOS)

    allowed = jax.jit(lambda steps: jax.lax.scan(check, rules.start(len(encoded)), steps)[1])(padded.swapaxes(0, 1))
    wrong = np.argwhere(~np.asarray(allowed).T)
    assert not len(wrong), f"row and step {wrong[0]}"


@pytest.mark.parametrize("settings", [*TOKENIZERS[:2], *TOKENIZERS[-2:]], ids=str)
def test_constraints_hold(settings):
    """No note, tempo or EOS before the first bar, and only the allowed programs."""
    representation = grammar(*settings).representation
    first_bars = np.resize([0, 1, 5], ROWS)
    for seed, programs in enumerate(([40, DRUMS], [5])):
        rows, _ = random_steps(settings, constraints(first_bars, True, programs), seed, eos_logit=2.0)
        for steps, first_bar in zip(rows, first_bars, strict=True):
            piece = representation.decode(steps)
            assert set(piece.notes["program"].tolist()) <= set(programs)
            for ticks in (piece.notes["onset"], piece.tempos["tick"][1:]):
                assert (piece.bars.locate(ticks)[0] >= first_bar).all()
            stop = np.flatnonzero(steps == EOS)
            if len(stop):
                kinds = representation.remi.kinds(representation.expand(steps[: stop[0], 0])[0])
                assert (kinds == BAR).sum() > first_bar and kinds[-1] in (METER_OF, TEMPO_OF, DURATION)
        assert (rows == EOS).any() and representation.num_notes(rows).any()
    silent, _ = random_steps(settings, constraints(0, False, []), 3)
    assert not representation.num_notes(silent).any()


@pytest.mark.parametrize("settings", [*TOKENIZERS[:2], *TOKENIZERS[-2:]], ids=str)
def test_incomplete_note_of_a_prompt_is_completed(settings):
    """Even if its program is not allowed and its bar is before the first allowed one."""
    rules = grammar(*settings)
    representation = rules.representation
    kinds = (PROGRAM, PITCH, VELOCITY, DURATION, TEMPO_OF, METER_OF, BAR)
    prompts = []
    for piece, kind in zip(itertools.cycle(pieces()), itertools.islice(itertools.cycle(kinds), ROWS), strict=False):
        steps = representation.encode(piece)
        ends = np.flatnonzero(representation.spans.last[steps[:200, 0]] == kind)
        prompts.append(steps[: (ends[-1] if len(ends) else 100) + 1])
    prompts = [prompt for prompt in prompts if representation.spans.last[prompt[-1, 0]] != POSITION]
    padded = np.zeros((ROWS, 200, 1), np.int32)
    for row, prompt in zip(padded, prompts, strict=False):
        row[200 - len(prompt) :] = prompt
    advance = advance_of(settings)
    state = functools.reduce(advance, padded.swapaxes(0, 1), rules.start(ROWS))
    bounds = constraints(99, False, [3])
    follow = jax.jit(lambda state: rules.allowed(state, [], bounds))
    rng, new_steps = np.random.default_rng(0), []
    for _ in range(12):
        allowed = np.asarray(follow(state))
        assert allowed.any(axis=1).all()
        new_steps.append(np.argmax(rng.random(allowed.shape) * allowed, axis=1).astype(np.int32)[:, None])
        state = advance(state, new_steps[-1])
    for row, prompt in enumerate(prompts):
        whole = np.concatenate([prompt, np.stack(new_steps, axis=1)[row]])
        is_incomplete = representation.spans.last[prompt[-1, 0]] in (PROGRAM, PITCH, DRUM, VELOCITY)
        assert len(representation.decode(whole).notes) >= len(representation.decode(prompt).notes) + is_incomplete


@pytest.mark.parametrize("settings", [*TOKENIZERS[:2], *TOKENIZERS[-2:]], ids=str)
def test_window_has_the_same_grammar_state_as_the_whole(settings):
    """Ids that are allowed after the window are then also allowed after the whole sequence."""
    rules = grammar(*settings)
    rows, _ = random_steps(settings, constraints(), 4)
    windows, bars = zip(*(rules.representation.window(steps, 60) for steps in rows), strict=True)
    padded = np.stack([np.pad(window, ((60 - len(window), 0), (0, 0))) for window in windows])
    advance = advance_of(settings)
    whole, short = (functools.reduce(advance, steps.swapaxes(0, 1), rules.start(ROWS)) for steps in (rows, padded))
    assert np.array_equal(short.bar + np.array(bars), whole.bar)
    for name in ("kind", "position", "bar_ticks", "program", "min_note", "back"):
        assert np.array_equal(getattr(short, name), getattr(whole, name)), name


@pytest.mark.parametrize(
    ("per_track", "positions", "programs"),
    [(False, [0, 24], [33, DRUMS, 33]), (True, [0, 0, 24, 0], [33, 33, DRUMS])],
)
def test_state_follows_position_and_program(per_track, positions, programs):
    """Token by token over a bar of bass and drums."""
    rules = RemiGrammar(RemiBpe(per_track=per_track))
    representation = rules.representation
    rows = [(0, 33, 36, 12, 80), (0, DRUMS, 36, 12, 80), (24, 33, 40, 12, 80)]
    state, seen = rules.start(1), {POSITION: [], PROGRAM: []}
    for step in representation.encode(representation.quantize(Piece.from_notes(rows, meter=(3, 4)))):
        state = rules.advance(state, step[None])
        kind = int(representation.remi.kinds(step)[0])
        if kind in seen:
            seen[kind].append(int((state.position if kind == POSITION else state.program)[0]))
    assert seen == {POSITION: positions, PROGRAM: programs}
    assert int(state.bar[0]) == 0 and int(state.bar_ticks[0]) == 36
