"""Generation is well-formed for any model, independent of the batch, and compiled once."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.decoding.generate import Generator, bucket_length, cache_capacities
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.models.transformer import Transformer
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.note_events import NoteEvents
from tests.models.small import parameters, random_events, tiny_config

TOKENIZER = NoteEvents()
WILD = SamplingConfig(temperature=3.0)
MANY = 90  # events; shared by most tests, because other cache capacities need other programs


def prompt(bars: int, seed: int = 0) -> np.ndarray:
    """Events of `bars` bars of random notes, without EOS."""
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
    return generator.generate(PROMPTS, max_events=MANY, sampling=WILD, seed=5, stop_at_eos=False)


def assert_canonical(whole: np.ndarray) -> None:
    """Checks that `whole` round-trips through the tokenizer, except for final rests, with unique notes in order of time."""
    piece = TOKENIZER.decode(whole)
    again = TOKENIZER.encode(piece)[:-1]
    assert np.array_equal(again, whole[: len(again)]) and (whole[len(again) :, ev.INSTRUMENT] == ev.REST).all()
    assert len(whole) - len(again) < 5
    keys = piece.notes[["onset", "program", "pitch"]]
    assert len(np.unique(keys)) == len(keys) and (np.diff(piece.notes["onset"]) >= 0).all()


def test_every_event_is_canonical(wild):
    """With random parameters at temperature 3."""
    for start, continuation in zip(PROMPTS, wild.continuations, strict=True):
        assert len(continuation) == MANY
        assert_canonical(np.concatenate([start, continuation]))


@pytest.mark.parametrize("architecture", ["nested", "compound"])
def test_event_level_models_generate_canonical_events(architecture):
    config = tiny_config(architecture=architecture)
    generator = Generator(config, parameters(config), TOKENIZER)
    out = generator.generate(PROMPTS, max_events=60, sampling=WILD, seed=5, stop_at_eos=False)
    for start, continuation in zip(PROMPTS, out.continuations, strict=True):
        assert_canonical(np.concatenate([start, continuation]))
    key = jax.random.fold_in(jax.random.key(5), 1)[None]
    alone = generator.generate(PROMPTS[1:2], max_events=60, sampling=WILD, seed=key, stop_at_eos=False)
    assert np.array_equal(alone.continuations[0], out.continuations[1])
    assert not np.array_equal(out.continuations[0], out.continuations[1])


@pytest.mark.parametrize(
    "fields",
    [{}, dict(architecture="pooled"), dict(architecture="nested"), dict(architecture="compound", pooling="concat")],
    ids=str,
)
def test_casting_parameters_to_bfloat16_does_not_change_logits(fields):
    """As in training, norm scales and summed embeddings stay in float32."""
    config = tiny_config(**fields, dtype="bfloat16")
    params = parameters(config)
    generator = Generator(config, params, TOKENIZER)
    # With excess precision XLA may omit casts inside the program, which would hide a difference.
    logits = jax.jit(generator.model.apply, compiler_options={"xla_allow_excess_precision": False})
    events = random_events(config, 1, 4)
    cast, trained = (logits({"params": each}, events) for each in (generator.params, params))
    jax.tree.map(np.testing.assert_array_equal, cast, trained)


@pytest.mark.parametrize("integer", [np.int32, np.int64, np.uint32])
def test_seed_can_be_a_numpy_integer(generator, wild, integer):
    again = generator.generate(PROMPTS, max_events=MANY, sampling=WILD, seed=integer(5), stop_at_eos=False)
    assert np.array_equal(again.continuations[0], wild.continuations[0])


def test_row_does_not_depend_on_its_batch(generator, wild):
    alone = generator.generate([prompt(2)], max_events=MANY, sampling=WILD, seed=5, stop_at_eos=False)
    assert np.array_equal(alone.continuations[0], wild.continuations[0])


def test_seeds_are_reproducible_and_differ(generator):
    runs = [
        generator.generate([prompt(1)], max_events=MANY, sampling=WILD, seed=seed, stop_at_eos=False).continuations[0]
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])


def test_greedy_decoding_equals_the_full_forward_pass(generator):
    """Token by token: the most likely id that keeps the events canonical, from a model without a cache."""
    start = prompt(2)
    result = generator.generate([start], max_events=MANY, sampling=SamplingConfig(temperature=0), stop_at_eos=False)
    whole = np.concatenate([start, result.continuations[0][:5]])
    padded = jnp.zeros((1, 64, 5), jnp.int32).at[0, : len(whole)].set(whole)
    logits = jax.jit(Transformer(tiny_config()).apply)({"params": parameters(tiny_config())}, padded)
    for n in range(len(start), len(whole)):
        scores = [logits[0][0, n - 1]] + [logits[a][0, n] for a in range(1, 5)]
        for a in range(5):
            ranked = np.argsort(-np.asarray(scores[a]))[:60]
            assert next(i for i in ranked if _is_canonical(whole[:n], whole[n], a, i)) == whole[n, a]


def _is_canonical(before, event, attribute, value) -> bool:
    """Whether `value` as the next attribute of `event` can keep the sequence canonical."""
    kinds = [5, 6, *range(7, 136)] if attribute == 0 else [value if attribute == 1 else int(event[1])]
    for kind in reversed(kinds):
        _, high = TOKENIZER.pitch_ranges[int(ev.pitch_range_of(np.array(kind)))]
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
def test_events_are_restricted_to_the_bars(generator, first_bar):
    """Only rests precede the first allowed bar, however long after the prompt it begins."""
    start = prompt(2)
    result = generator.generate(
        [start], max_events=MANY, first_bar=first_bar, stop_bar=first_bar + 2, sampling=WILD, stop_at_eos=False
    )
    whole = np.concatenate([start, result.continuations[0]])
    piece = TOKENIZER.decode(whole)
    assert np.array_equal(TOKENIZER.encode(piece)[:-1][: len(whole)], whole[: len(TOKENIZER.encode(piece)) - 1])
    # There may be no new note at all, if the first event is after the stop bar.
    bars = piece.bars.locate(piece.notes["onset"])[0][len(TOKENIZER.decode(start).notes) :]
    assert (bars >= first_bar).all() and (bars < first_bar + 2).all()
    changes = [change["tick"][-1] for change in (piece.tempos, piece.meters) if len(change) > 1]
    assert all(piece.bars.locate(np.array([tick]))[0][0] >= first_bar for tick in changes)
    assert result.finished.all() and result.steps == len(result.continuations[0]) + 1


def test_finished_rows_stay_unchanged(generator):
    result = generator.generate(PROMPTS, max_events=MANY, sampling=WILD, finished=np.array([True, False, True, False]))
    assert [len(events) for events in result.continuations][::2] == [0, 0]
    assert all(len(events) for events in result.continuations[1::2])


def test_only_allowed_programs_are_generated(generator):
    allowed = [40, DRUMS]
    result = generator.generate([prompt(2)], max_events=MANY, sampling=WILD, programs=allowed, stop_at_eos=False)
    notes = TOKENIZER.decode(result.continuations[0]).notes
    assert len(notes) and set(notes["program"]) <= set(allowed)


def test_eos_ends_the_row():
    """A model that prefers EOS generates a single EOS event."""
    params = parameters(tiny_config())
    generator = Generator(tiny_config(), {**params, "head_0": params["head_0"].at[:].set(0.0)}, TOKENIZER)
    result = generator.generate([prompt(1)], max_events=MANY, sampling=SamplingConfig(temperature=0))
    assert result.continuations[0].tolist() == [[ev.EOS] * 5] and result.steps == 1


def test_nothing_is_compiled_after_warmup():
    """For 20 prompt lengths, and a continuation that needs three cache capacities."""
    config = tiny_config(kv_sharing="mqa")  # fewer keys and values: quickly compiled
    generator = Generator(config, parameters(config), TOKENIZER, first_capacity=64)
    assert cache_capacities(64, 260, first=64) == [96, 192, 384] and cache_capacities(96, 260, first=64) == [128, 256, 384]
    generator.warmup(1, longest_prompt=80, max_events=260, sampling=WILD)
    compiled = generator.compilations
    assert compiled == len(generator._programs) == 2 + 5 + 4  # prefill, decode, resize
    for length in range(4, 84, 4):
        events = np.concatenate([prompt(2)[:1], np.repeat(prompt(2)[1:2], length - 1, axis=0)])
        assert generator.generate([events], max_events=3, sampling=WILD).compile_seconds == 0
    long = generator.generate(
        [prompt(1)], max_events=260, stop_bar=10**6, sampling=SamplingConfig(temperature=3, min_p=0.01), stop_at_eos=False
    )
    assert long.steps == len(long.continuations[0]) == 260 and long.compile_seconds == 0
    assert generator.compilations == compiled


def test_resizing_the_cache_does_not_change_events(generator):
    """A cache that grows twice and one that is large from the start, with ragged prompts."""
    growing = Generator(tiny_config(), generator.params, TOKENIZER, first_capacity=64)
    small, large = (
        each.generate(PROMPTS[:2], max_events=140, sampling=WILD, seed=3, stop_at_eos=False) for each in (growing, generator)
    )
    assert growing.compilations == 1 + 3 + 2 and small.steps == 140
    for left, right in zip(small.continuations, large.continuations, strict=True):
        assert np.array_equal(left, right)


def test_decoding_in_several_calls_gives_the_same_events(generator):
    constraints, sampling_params = generator.constraints(2, allow_eos=False), WILD.sampling_params
    one_call = generator.decode(generator.prefill(PROMPTS[:2], 256), 10, sampling_params, constraints)
    state = generator.prefill(PROMPTS[:2], 256)
    for events in (5, 6, 7, 10):
        state = generator.decode(state, events, sampling_params, constraints)
        assert int(state.step) == events
    assert np.array_equal(state.events, one_call.events) and (state.events[:, :10] > 0).all()
    np.testing.assert_array_equal(state.carry, one_call.carry)


def test_decoding_stops_when_the_cache_is_full(generator):
    state = generator.prefill([prompt(1)], 70, width=64)
    state = generator.decode(state, 100, WILD.sampling_params, generator.constraints(1, allow_eos=False))
    assert int(state.step) == 6 and int(state.cache.length) == 70


def test_bucket_lengths_are_few_and_large_enough():
    sizes = [bucket_length(size) for size in range(1, 3000)]
    assert all(size <= length for size, length in enumerate(sizes, 1)) and sizes == sorted(sizes)
    assert len(set(sizes)) < 15


@pytest.mark.parametrize(
    "sharing", [dict(kv_sharing="mha"), *(dict(attribute_scope=scope) for scope in ("all", "own", "mixed"))], ids=str
)
def test_cache_is_written_in_place(sharing):
    """The state is donated, and the compiled loop copies no array of the size of a cache buffer."""
    config = tiny_config(**sharing)
    generator = Generator(config, parameters(config), TOKENIZER)
    text = generator._decode_program(1, 77, 0).as_text()
    assert "input_output_alias" in text
    for buffer in generator._state_shapes(1, 77).cache.layers[0]:
        cache = re.escape(f"f32[{','.join(map(str, buffer.shape))}]")
        assert re.search(rf"= {cache}\S* \S*fusion\(", text)
        assert not re.search(rf"= {cache}\S* copy\(", text)
