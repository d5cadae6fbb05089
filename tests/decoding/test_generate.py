"""Decoding: valid music whatever the model says, the same in every batch, and compiled once."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.decoding.generate import Generator, bucket, capacities
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.models.transformer import Transformer
from sage_jax.music import events as ev
from sage_jax.music.events import NoteEvents
from sage_jax.music.notes import DRUMS, Piece
from tests.models.small import parameters, random_events, tiny_config

TOKENIZER = NoteEvents()
WILD = SamplingConfig(temperature=3.0)
MANY = 90  # events: most tests ask for as many, even to look at a few, as other rooms would be other programs to compile


def prompt(bars: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = {(int(t), int(p), int(n)): (12, 65) for t, p, n in zip(
        rng.integers(0, 48 * bars, 6 * bars), rng.choice([0, 33, DRUMS], 6 * bars), rng.integers(30, 80, 6 * bars), strict=True
    )}
    return TOKENIZER.encode(Piece.from_notes([(*key, *value) for key, value in sorted(rows.items())]))[:-1]


PROMPTS = [prompt(2), prompt(4, 1), prompt(1, 2), prompt(3, 3)]


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(tiny_config(), parameters(tiny_config()), TOKENIZER)


@pytest.fixture(scope="module")
def wild(generator):
    return generator.generate(PROMPTS, max_events=MANY, sampling=WILD, seed=5, stop_at_end=False)


def assert_canonical(whole: np.ndarray) -> None:
    """Encoding what `whole` decodes to gives it back, but for rests at its end; no note comes twice or goes back in time."""
    piece = TOKENIZER.decode(whole)
    again = TOKENIZER.encode(piece)[:-1]
    assert np.array_equal(again, whole[: len(again)]) and (whole[len(again) :, ev.INSTRUMENT] == ev.REST).all()
    assert len(whole) - len(again) < 5
    keys = piece.notes[["onset", "program", "pitch"]]
    assert len(np.unique(keys)) == len(keys) and (np.diff(piece.notes["onset"]) >= 0).all()


def test_nothing_ill_formed_comes_out(wild):
    """A model of noise at temperature 3: still every event is canonical."""
    for start, continuation in zip(PROMPTS, wild.continuations, strict=True):
        assert len(continuation) == MANY
        assert_canonical(np.concatenate([start, continuation]))


@pytest.mark.parametrize("form", ["nested", "compound"])
def test_nothing_ill_formed_comes_out_of_other_forms(form):
    generator = Generator(tiny_config(form=form), parameters(tiny_config(form=form)), TOKENIZER)
    out = generator.generate(PROMPTS, max_events=60, sampling=WILD, seed=5, stop_at_end=False)
    for start, continuation in zip(PROMPTS, out.continuations, strict=True):
        assert_canonical(np.concatenate([start, continuation]))
    alone = generator.generate(PROMPTS[1:2], max_events=60, sampling=WILD, seed=jax.random.fold_in(jax.random.key(5), 1)[None])
    assert not np.array_equal(out.continuations[0], out.continuations[1]) and len(alone.continuations[0])


@pytest.mark.parametrize(
    "form", [{}, dict(form="pooled"), dict(form="nested"), dict(form="compound", pooling="concat")], ids=str
)
def test_in_bfloat16_the_logits_are_those_of_the_trained_parameters(form):
    """Training rounds neither the scales of norms nor the embeddings that it adds up."""
    config = tiny_config(**form, dtype="bfloat16")
    params = parameters(config)
    generator = Generator(config, params, TOKENIZER)
    # XLA may leave out a rounding in the middle of a program, which would hide one before it.
    logits = jax.jit(generator.model.apply, compiler_options={"xla_allow_excess_precision": False})
    events = random_events(config, 1, 4)
    of_generator, trained = (logits({"params": each}, events) for each in (generator.params, params))
    jax.tree.map(np.testing.assert_array_equal, of_generator, trained)


@pytest.mark.parametrize("integer", [np.int32, np.int64, np.uint32])
def test_a_seed_may_be_an_integer_of_numpy(generator, wild, integer):
    again = generator.generate(PROMPTS, max_events=MANY, sampling=WILD, seed=integer(5), stop_at_end=False)
    assert np.array_equal(again.continuations[0], wild.continuations[0])


def test_a_row_in_a_batch_is_the_row_alone(generator, wild):
    alone = generator.generate([prompt(2)], max_events=MANY, sampling=WILD, seed=5, stop_at_end=False)
    assert np.array_equal(alone.continuations[0], wild.continuations[0])


def test_seeds_reproduce_and_differ(generator):
    runs = [
        generator.generate([prompt(1)], max_events=MANY, sampling=WILD, seed=seed, stop_at_end=False).continuations[0]
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])


def test_the_loop_draws_what_the_full_forward_pass_would(generator):
    """Greedy decoding, checked token by token against the model without a cache and the grammar's masks by hand."""
    start = prompt(2)
    result = generator.generate([start], max_events=MANY, sampling=SamplingConfig(temperature=0), stop_at_end=False)
    whole = np.concatenate([start, result.continuations[0][:5]])
    padded = jnp.zeros((1, 64, 5), jnp.int32).at[0, : len(whole)].set(whole)
    logits = jax.jit(Transformer(tiny_config()).apply)({"params": parameters(tiny_config())}, padded)
    for n in range(len(start), len(whole)):
        scores = [logits[0][0, n - 1]] + [logits[a][0, n] for a in range(1, 5)]
        for a in range(5):
            legal = [i for i in np.argsort(-np.asarray(scores[a]))[:60] if _is_canonical(whole[:n], whole[n], a, i)]
            assert legal[0] == whole[n, a]


def _is_canonical(before, event, attribute, value) -> bool:
    """Whether some event that begins like `event` and has `value` next keeps the sequence canonical."""
    kinds = [5, 6, *range(7, 136)] if attribute == 0 else [value if attribute == 1 else int(event[1])]
    for kind in reversed(kinds):
        low, high = TOKENIZER.pitch_ranges[int(ev.pitch_range_of(np.array(kind)))]
        note = kind >= ev.FIRST_PROGRAM
        tail = (ev.FIRST, ev.FIRST) if note else (ev.NONE, ev.NONE)
        pitch = value if attribute == 2 else int(event[2]) if attribute > 2 else high - 1
        tail = tuple(int(value if attribute == a else t) for a, t in zip((3, 4), tail, strict=True))
        onset = value if attribute == 0 else int(event[0])
        candidate = np.array([onset, kind, pitch, *tail])
        if kind == ev.REST:
            if attribute < 2 and onset == ev.FIRST + 3 * TOKENIZER.max_position:
                return True
            continue
        try:
            whole = np.concatenate([before, candidate[None]])
            piece = TOKENIZER.decode(whole)
            if np.array_equal(TOKENIZER.encode(piece)[:-1], whole):
                return True
        except (ValueError, IndexError):
            continue
    return False


@pytest.mark.parametrize("first_bar", [2, 4, 5, 6, 12])
def test_bars_are_a_bound_on_both_sides(generator, first_bar):
    """However far the first bar wanted lies behind the prompt's last event, nothing but rests comes before it."""
    start = prompt(2)
    result = generator.generate(
        [start], max_events=MANY, first_bar=first_bar, stop_bar=first_bar + 2, sampling=WILD, stop_at_end=False
    )
    whole = np.concatenate([start, result.continuations[0]])
    piece = TOKENIZER.decode(whole)
    assert np.array_equal(TOKENIZER.encode(piece)[:-1][: len(whole)], whole[: len(TOKENIZER.encode(piece)) - 1])
    # A model of noise may jump past the last bar at once; what it does play lies within bounds.
    bars = piece.bars.locate(piece.notes["onset"])[0][len(TOKENIZER.decode(start).notes) :]
    assert (bars >= first_bar).all() and (bars < first_bar + 2).all()
    changes = [change["tick"][-1] for change in (piece.tempos, piece.meters) if len(change) > 1]
    assert all(piece.bars.locate(np.array([tick]))[0][0] >= first_bar for tick in changes)
    assert result.finished.all() and result.steps == len(result.continuations[0]) + 1


def test_finished_rows_stay_as_they_are(generator):
    result = generator.generate(PROMPTS, max_events=MANY, sampling=WILD, finished=np.array([True, False, True, False]))
    assert [len(events) for events in result.continuations][::2] == [0, 0]
    assert all(len(events) for events in result.continuations[1::2])


def test_only_the_programs_asked_for_play(generator):
    allowed = [40, DRUMS]
    result = generator.generate([prompt(2)], max_events=MANY, sampling=WILD, programs=allowed, stop_at_end=False)
    notes = TOKENIZER.decode(result.continuations[0]).notes
    assert len(notes) and set(notes["program"]) <= set(allowed)


def test_the_end_of_the_piece_ends_the_row():
    """A model that always wants EOS gives one EOS event, and the other rows go on."""
    params = parameters(tiny_config())
    generator = Generator(tiny_config(), {**params, "head_0": params["head_0"].at[:].set(0.0)}, TOKENIZER)
    result = generator.generate([prompt(1)], max_events=MANY, sampling=SamplingConfig(temperature=0))
    assert result.continuations[0].tolist() == [[ev.EOS] * 5] and result.steps == 1


def test_nothing_is_compiled_while_playing():
    """Once prepared: 20 lengths of prompt, and a piece that crosses three sizes of the cache."""
    generator = Generator(tiny_config(), parameters(tiny_config()), TOKENIZER, first_capacity=64)
    assert capacities(64, 260, first=64) == [96, 192, 384] and capacities(96, 260, first=64) == [128, 256, 384]
    generator.prepare(1, longest_prompt=80, max_events=260, sampling=WILD)
    compiled = generator.compilations
    assert compiled == len(generator._programs) == 2 + 5 + 4  # prompts, rooms, steps from room to room
    for length in range(4, 84, 4):
        events = np.concatenate([prompt(2)[:1], np.repeat(prompt(2)[1:2], length - 1, axis=0)])
        assert generator.generate([events], max_events=3, sampling=WILD).compile_seconds == 0
    long = generator.generate(
        [prompt(1)], max_events=260, stop_bar=10**6, sampling=SamplingConfig(temperature=3, min_p=0.01), stop_at_end=False
    )
    assert long.steps == len(long.continuations[0]) == 260 and long.compile_seconds == 0
    assert generator.compilations == compiled


def test_growing_does_not_show(generator):
    """A cache that grows twice, and one that is large from the start: the same events, of ragged rows, bit for bit."""
    growing = Generator(tiny_config(), generator.params, TOKENIZER, first_capacity=64)
    small, large = (
        each.generate(PROMPTS[:2], max_events=140, sampling=WILD, seed=3, stop_at_end=False) for each in (growing, generator)
    )
    assert growing.compilations == 1 + 3 + 2 and small.steps == 140
    for left, right in zip(small.continuations, large.continuations, strict=True):
        assert np.array_equal(left, right)


def test_ten_events_are_five_and_five(generator):
    limits, knobs = generator.limits(2, may_end=False), WILD.knobs
    at_once = generator.advance(generator.start(PROMPTS[:2], 256), 10, knobs, limits)
    state = generator.start(PROMPTS[:2], 256)
    for events in (5, 6, 7, 10):
        state = generator.advance(state, events, knobs, limits)
        assert int(state.step) == events
    assert np.array_equal(state.events, at_once.events) and (state.events[:, :10] > 0).all()
    np.testing.assert_array_equal(state.carry, at_once.carry)


def test_a_full_cache_ends_the_loop(generator):
    state = generator.start([prompt(1)], 70, width=64)
    state = generator.advance(state, 100, WILD.knobs, generator.limits(1, may_end=False))
    assert int(state.step) == 6 and int(state.cache.length) == 70


def test_buckets_grow_and_hold():
    sizes = [bucket(size) for size in range(1, 3000)]
    assert all(size <= length for size, length in enumerate(sizes, 1)) and sizes == sorted(sizes)
    assert len(set(sizes)) < 15


@pytest.mark.parametrize("sharing", [dict(sharing="mha"), *(dict(scope=scope) for scope in ("all", "own", "mixed"))], ids=str)
def test_the_cache_is_written_in_place(sharing):
    """The loop is given the state for good, and nothing of the cache's size is copied in it: the cost of a step, if it were."""
    config = tiny_config(**sharing)
    generator = Generator(config, parameters(config), TOKENIZER)
    text = generator._decode_program(1, 77, 0).as_text()
    assert "input_output_alias" in text
    for buffer in generator._state_shapes(1, 77).cache.layers[0]:
        cache = re.escape(f"f32[{','.join(map(str, buffer.shape))}]")
        assert re.search(rf"= {cache}\S* \S*fusion\(", text)
        assert not re.search(rf"= {cache}\S* copy\(", text)
