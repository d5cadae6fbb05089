"""What one engine draws: well-formed, within the limits, and the same however its events were read."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.engine import Engine, cache_capacities
from sage_jax.decoding.request import Request
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.models.cache import Cache
from sage_jax.models.registry import build_model
from sage_jax.models.transformer import Transformer
from sage_jax.music.notes import DRUMS
from sage_jax.tokenizers import note_events as ev
from tests.decoding.small import (
    CAPACITY,
    CHUNK,
    COMPOUND,
    CONTEXT,
    DELAY,
    FLAT,
    NESTED,
    POOLED,
    PROMPTS,
    TOKENIZER,
    WILD,
    assert_canonical,
    constraints_of,
    controls_of,
    engine_of,
    prompt,
    run,
)
from tests.models.small import SHARINGS, join_values, parameters, random_events, tiny_config

MANY = 90  # events
ENDLESS = Limits(allow_eos=False)
GREEDY = SamplingConfig(temperature=0.0)


@pytest.mark.parametrize("fields", [FLAT, NESTED, COMPOUND, DELAY], ids=join_values)
def test_every_event_is_canonical(fields):
    """With random parameters at temperature 3."""
    engine = engine_of(1 if fields == COMPOUND else 3, **fields)
    takes = run(engine, *(Request(start, ENDLESS, WILD, MANY, 5) for start in PROMPTS))
    for start, take in zip(PROMPTS, takes, strict=True):
        assert len(take.events) == MANY and not take.finished
        assert_canonical(np.concatenate([start, take.events]))
    assert not np.array_equal(takes[0].events, takes[1].events)


@pytest.mark.parametrize(
    "fields",
    [{}, dict(architecture="pooled"), dict(architecture="nested"), dict(architecture="compound", pooling="concat")],
    ids=str,
)
def test_casting_parameters_to_bfloat16_does_not_change_logits(fields):
    """As in training, norm scales and summed embeddings stay in float32."""
    config = tiny_config(**fields, dtype="bfloat16")
    params = parameters(config)
    engine = Engine(config, params, TOKENIZER, context=64)
    # With excess precision XLA may omit casts inside the program, which would hide a difference.
    logits = jax.jit(engine.decoder.model.apply, compiler_options={"xla_allow_excess_precision": False})
    events = random_events(config, 1, 4)
    cast, trained = (logits({"params": each}, events) for each in (engine.params, params))
    jax.tree.map(np.testing.assert_array_equal, cast, trained)


def test_seeds_are_reproducible_and_differ():
    """A seed may be an integer of numpy or a JAX key."""
    seeds = (1, 1, np.int32(1), np.int64(1), np.uint32(1), jax.random.key(1), 2)
    takes = run(engine_of(3, **FLAT), *(Request(PROMPTS[0], ENDLESS, WILD, 20, seed) for seed in seeds))
    assert len({take.events.tobytes() for take in takes[:-1]}) == 1
    assert not np.array_equal(takes[0].events, takes[-1].events)
    again, other = run(engine_of(3, **FLAT), *(Request(PROMPTS[0], ENDLESS, WILD, 20, 1, number) for number in (0, 1)))
    assert np.array_equal(again.events, takes[0].events) and not np.array_equal(other.events, again.events)


def test_greedy_decoding_equals_the_full_forward_pass():
    """Token by token: the most likely id that keeps the events canonical, from a model without a cache."""
    start, config = prompt(2), tiny_config(**FLAT)
    (take,) = run(engine_of(**FLAT), Request(start, ENDLESS, GREEDY, 5))
    whole = np.concatenate([start, take.events])
    padded = jnp.zeros((1, 64, 5), jnp.int32).at[0, : len(whole)].set(whole)
    logits = jax.jit(Transformer(config).apply)({"params": parameters(config)}, padded)
    for n in range(len(start), len(whole)):
        scores = [logits[0][0, n - 1]] + [logits[a][0, n] for a in range(1, 5)]
        for a in range(5):
            ranked = np.argsort(-np.asarray(scores[a]))[:60]
            assert next(i for i in ranked if _is_canonical(whole[:n], whole[n], a, i)) == whole[n, a]


def _is_canonical(before, event, attribute, value) -> bool:
    """Whether `value` as the next attribute of `event` can keep the sequence canonical."""
    kinds = [5, 6, *range(7, 136)] if attribute == 0 else [value if attribute == 1 else int(event[1])]
    for kind in reversed(kinds):
        _, high = TOKENIZER.pitch_ranges[int(TOKENIZER.pitch_range_of(np.array(kind)))]
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


def test_greedy_bfloat16_agrees_with_the_teacher_forced_logits():
    """Each chosen id has the largest logit of the allowed ones, up to rounding, in a forward pass without a cache."""
    config = tiny_config(**FLAT, dtype="bfloat16")
    engine = engine_of(**FLAT, dtype="bfloat16")
    (take,) = run(engine, Request(PROMPTS[0], ENDLESS, GREEDY, 40))
    whole = jnp.asarray(np.concatenate([PROMPTS[0], take.events]), jnp.int32)
    grammar = engine.decoder.grammar
    bounds = constraints_of(1)

    def follow(state, event):
        tokens = [token[None] for token in event]
        allowed = tuple(grammar.allowed(state, tokens[:a], bounds)[0] for a in range(len(tokens)))
        return grammar.advance(state, event[None]), allowed

    _, allowed = jax.jit(lambda events: jax.lax.scan(follow, grammar.start(1), events))(whole)
    logits = jax.jit(build_model(config).apply)({"params": parameters(config)}, whole[None])
    for a, (ids, scores) in enumerate(zip(allowed, logits, strict=True)):
        scores = np.roll(scores[0], 1, axis=0) if a == 0 else np.asarray(scores[0])
        for n in range(len(PROMPTS[0]), len(whole)):
            assert ids[n, whole[n, a]]
            assert scores[n, whole[n, a]] > scores[n][np.asarray(ids[n])].max() - 0.1 * scores.std(), (n, a)


def test_events_are_restricted_to_the_bars():
    """Only rests precede the first allowed bar, however long after the prompt it begins."""
    start = prompt(2)
    first_bars = (2, 4, 5, 6, 12)
    limits = [Limits(first_bar=first, stop_bar=first + 2, allow_eos=False) for first in first_bars]
    takes = run(engine_of(3, **FLAT), *(Request(start, each, WILD, MANY) for each in limits))
    for first_bar, take in zip(first_bars, takes, strict=True):
        assert_canonical(whole := np.concatenate([start, take.events]))
        piece = TOKENIZER.decode(whole)
        # There may be no new note at all, if the first event is after the stop bar.
        bars = piece.bars.locate(piece.notes["onset"])[0][len(TOKENIZER.decode(start).notes) :]
        assert (bars >= first_bar).all() and (bars < first_bar + 2).all()
        changes = [change["tick"][-1] for change in (piece.tempos, piece.meters) if len(change) > 1]
        assert all(piece.bars.locate(np.array([tick]))[0][0] >= first_bar for tick in changes)
        assert take.finished


@pytest.mark.parametrize("tokenizer", ["events", "remi", "mmt"])
def test_events_are_restricted_to_the_ticks(tokenizer):
    """Each row to its own ticks."""
    engine = engine_of(3, **FLAT) if tokenizer == "events" else engine_of(1, tokenizer=tokenizer, **POOLED)
    piece = engine.tokenizer.quantize(TOKENIZER.decode(prompt(1, 2)))
    start = engine.tokenizer.encode(piece)[:-1]
    bounds = [(48, 60), (50, 200), (130, 131), (0, 96), (301, None)]
    limits = [Limits(first_tick=first, stop_tick=stop, allow_eos=False) for first, stop in bounds]
    takes = run(engine, *(Request(start, each, WILD, 60, 3) for each in limits))
    count = 0
    for (first, stop), take in zip(bounds, takes, strict=True):
        whole = engine.tokenizer.decode(np.concatenate([start, take.events]))
        onsets = whole.notes["onset"][len(piece.notes) :]
        assert (onsets >= max(first, piece.notes["onset"][-1])).all() and (stop is None or (onsets < stop).all())
        assert take.finished or len(take.events) == 60
        count += len(onsets)
    assert count >= 3 and sum(take.finished for take in takes) >= 2


def test_only_allowed_programs_are_generated():
    allowed = [[40, DRUMS], [3], None]
    requests = [Request(prompt(2), Limits(allow_eos=False, programs=programs), WILD, MANY) for programs in allowed]
    for programs, take in zip(allowed, run(engine_of(3, **FLAT), *requests), strict=True):
        notes = TOKENIZER.decode(take.events).notes
        assert len(notes) and set(notes["program"]) <= set(programs or range(DRUMS + 1))


@pytest.mark.parametrize("system", [FLAT, NESTED, DELAY], ids=["flat", "nested", "delay"])
def test_each_program_stays_within_its_pitches(system):
    limits = Limits(allow_eos=False, programs=[0, DRUMS], pitches={0: (60, 63), DRUMS: (36, 36)})
    (take,) = run(engine_of(3, **system), Request(prompt(2), limits, WILD, MANY))
    notes = TOKENIZER.decode(take.events).notes
    assert set(notes["pitch"][notes["program"] == 0].tolist()) <= {60, 61, 62, 63}
    assert set(notes["pitch"][notes["program"] == DRUMS].tolist()) == {36}


def test_eos_ends_the_row():
    """A model that prefers EOS generates a single EOS event."""
    engine = engine_of(**FLAT)
    engine.set_params({**engine.params, "head_0": engine.params["head_0"].at[:].set(0.0)})
    (take,) = run(engine, Request(prompt(1), sampling=GREEDY))
    assert take.events.tolist() == [[ev.EOS] * 5] and take.finished


# Reading


def drawn_after(engine: Engine, events: np.ndarray, prefills: int, count: int = 20) -> np.ndarray:
    """`count` events after the given ones, of which `prefills` chunks are read at once and the others by event steps."""
    engine.reset()
    engine.edit(0, 0, events, controls_of(7))
    for _ in range(prefills):
        engine.prefill(0)
    end = len(events) + count + engine.decoder.lag
    engine.decode(end - int(engine.status()[0][0]))
    assert engine.status()[0][0] == end
    return engine.events(0, len(events) + count)


READERS = {
    **{join_values(fields): ("events", fields) for fields in (FLAT, NESTED, DELAY, COMPOUND)},
    "remi": ("remi", POOLED),
    "mmt": ("mmt", POOLED),
}


@pytest.mark.parametrize("reader", READERS)
def test_chunks_event_steps_and_one_chunk_read_the_same(reader, monkeypatch):
    """tests/models has every architecture, with chunks of the model alone."""
    tokenizer, fields = READERS[reader]
    engine = engine_of(1, tokenizer=tokenizer, **fields)
    events = engine.tokenizer.encode(engine.tokenizer.quantize(TOKENIZER.decode(prompt(4, 1))))[:-1][:45]
    by_step = drawn_after(engine, events, 0)
    assert len(events) > 2 * CHUNK and np.array_equal(by_step[: len(events)], events)
    for prefills in (1, 2, -(-len(events) // CHUNK)):
        assert np.array_equal(drawn_after(engine, events, prefills), by_step)
    monkeypatch.setattr("sage_jax.decoding.engine.FIRST_CHUNKS", (16,))
    engine.reset()
    engine.stage(events, controls_of(7))
    begun = engine.begin_staged(len(events))
    for _ in range(begun, len(events), CHUNK):
        engine.prefill_staged()
    engine.insert_staged(0, len(events))
    engine.decode(len(by_step) + engine.decoder.lag - len(events))
    assert begun == 16 and np.array_equal(engine.events(0, len(by_step)), by_step)
    if fields in (FLAT, DELAY):
        wide = engine.sibling()
        wide.chunk = 64
        assert np.array_equal(drawn_after(wide, events, 1), by_step)
    if fields == FLAT:
        wide.reset()
        wide.stage_chunk = 64
        wide.stage(events, controls_of(7))
        wide.prefill_staged()
        wide.insert_staged(0, len(events))
        wide.decode(len(by_step) - len(events))
        assert np.array_equal(wide.events(0, len(by_step)), by_step)


@pytest.mark.parametrize("fields", [FLAT, NESTED, DELAY], ids=join_values)
def test_going_back_and_the_same_draws_give_the_same_events(fields):
    engine = engine_of(**fields)
    start, lag = PROMPTS[2], engine.decoder.lag
    whole = drawn_after(engine, start, 1)
    other = drawn_after(engine, PROMPTS[0], 2)
    for keep in (len(start) + 13, len(start) + 12, len(start), 4):
        given = whole[: max(keep, len(start))]
        drawn_after(engine, start, 1)
        engine.edit(0, keep, given, controls_of(7))  # a rollback, or also the same events pushed again
        assert engine.status()[0][0] == keep - (keep == len(given))
        engine.decode(len(whole) + lag - int(engine.status()[0][0]))
        assert np.array_equal(engine.events(0, len(whole)), whole), keep
    engine.edit(0, 0, PROMPTS[0], controls_of(7))
    engine.decode(len(other) + lag)
    assert np.array_equal(engine.events(0, len(other)), other)


@pytest.mark.parametrize("rows", [9, 12, 17])
def test_many_rows_have_a_prompt_each(rows):
    """Each row holds what it holds alone; nine rows also draw what they draw alone."""
    engine, alone = engine_of(rows, **NESTED), engine_of(**NESTED)
    starts = [prompt(1 + number % 4, number) for number in range(rows)]
    for slot, start in enumerate(starts):
        place = slot % engine.staging_rows
        engine.stage(start[:-9], controls_of(slot), place=place)
        for _ in range(-(-len(start) // CHUNK)):
            engine.prefill_staged()
        engine.insert_staged(slot, len(start) - 9, place)
        if slot % 2:  # in the batch: as many events as a chunk, and one that is left to the next step
            engine.edit(slot, len(start) - 9, start, controls_of(slot))
            engine.prefill(slot)
    lengths = [len(start) - (1 if slot % 2 else 9) for slot, start in enumerate(starts)]
    assert engine.status()[0].tolist() == lengths
    if rows > 9:
        return
    engine.decode(12)
    for slot in (0, 1, 4, 7, 8):
        given = starts[slot] if slot % 2 else starts[slot][:-9]
        alone.edit(0, 0, given, controls_of(slot))
        alone.decode(lengths[slot] + 12)
        assert np.array_equal(engine.events(slot, lengths[slot] + 12), alone.events(0, lengths[slot] + 12))


@pytest.mark.parametrize("fields", [FLAT, NESTED, DELAY], ids=join_values)
def test_rows_that_are_prefilled_together_are_what_each_is_alone(fields, monkeypatch):
    """To the bit, whatever their lengths, places and times."""
    monkeypatch.setattr("sage_jax.decoding.engine.FIRST_CHUNKS", (16,))
    engine = engine_of(3, **fields)
    long, short = prompt(4, 1), prompt(1, 2)

    def read(place: int, events: np.ndarray) -> list[np.ndarray]:
        """The row after some draws: its events and its carry, which depends on all keys and values."""
        engine.insert_staged(place, len(events), place)
        engine.decode(12)
        state = engine.state
        return [np.array(leaf)[place] for leaf in jax.tree.leaves((state.carry, state.cache.length, state.events))]

    def stage(place: int, events: np.ndarray) -> int:
        engine.stage(events, controls_of(7), place=place)
        return engine.begin_staged(len(events), place)

    alone = []
    for place, events in ((0, long), (1, short), (1, long)):
        engine.reset()
        for _ in range(stage(place, events), len(events), CHUNK):
            engine.prefill_staged()
        alone.append(read(place, events))
    engine.reset()
    begun = stage(0, long)
    engine.prefill_staged()
    assert begun == 16 and stage(1, short) == len(short) == 9
    for _ in range(begun + CHUNK, len(long), CHUNK):
        engine.prefill_staged()
    together = [read(0, long), read(1, short)]
    jax.tree.map(np.testing.assert_array_equal, together, alone[:2])
    jax.tree.map(np.testing.assert_array_equal, alone[2][:-2], alone[0][:-2])


def test_what_begins_a_row_is_chosen_by_its_length(monkeypatch):
    monkeypatch.setattr("sage_jax.decoding.engine.FIRST_CHUNKS", (16, 32, 256))
    engine = engine_of(**FLAT)
    events, begun = prompt(20, 1), {}
    for count in (1, CHUNK, CHUNK + 1, 16, 21, 22, 40, 85, 86, 110):
        engine.stage(events[:count], controls_of(7))
        begun[count] = engine.begin_staged(count)
    assert begun == {1: 0, CHUNK: 0, CHUNK + 1: CHUNK + 1, 16: 16, 21: 16, 22: 22, 40: 32, 85: 32, 86: 86, 110: 110}


# The cache


def test_capacities_double_up_to_the_context():
    assert cache_capacities(260, first=64) == [64, 128, 256, 320]
    assert cache_capacities(64, first=64) == cache_capacities(10) == [64]
    assert engine_of(3, 64, **FLAT).capacities == [64, 128] and engine_of(**FLAT).limit == CONTEXT


def test_decoding_stops_when_the_cache_is_full():
    engine = engine_of(3, 64, **FLAT)
    engine.edit(1, 0, PROMPTS[0], controls_of())
    engine.edit(2, 0, PROMPTS[2], controls_of(max_length=40))
    engine.decode(1000)
    assert engine.status()[0].tolist() == [0, 63, 40] and engine.status()[1].tolist() == [True, False, False]
    engine.grow()
    engine.decode(1000)
    assert engine.capacity == CAPACITY and engine.status()[0].tolist() == [0, 127, 40]
    with pytest.raises(UserError, match="context"):
        engine.grow()
    with pytest.raises(UserError, match="context"):
        engine.edit(0, 0, np.repeat(PROMPTS[0], 20, axis=0), controls_of())
    assert_canonical(engine.events(1, 127))


@pytest.mark.parametrize(
    ("sharing", "rows"),
    [(SHARINGS[0], 1), (SHARINGS[4], 1), (SHARINGS[5], 1), (SHARINGS[5], 3)],
    ids=lambda value: join_values(value) if isinstance(value, dict) else None,
)
def test_cache_is_written_in_place(sharing, rows):
    """A loop of event steps over a donated cache copies no array of the size of a cache buffer. For mqa, see the next test."""
    config = tiny_config(**sharing)
    model = build_model(config)

    def loop(params, carry, cache):
        def step(_, state):
            choose = lambda event, logits: logits.argmax(axis=-1).astype(jnp.int32)
            carry, cache, _ = model.apply({"params": params}, *state, choose, method="event_step")
            return carry, cache.advance(jnp.ones(rows, jnp.int32))

        return jax.lax.fori_loop(0, 5, step, (carry, cache))

    arguments = parameters(config), jnp.zeros((rows, config.embed_dim)), Cache.empty(config, rows, 77)
    assert_in_place(jax.jit(loop, donate_argnums=(1, 2)).lower(*arguments).compile().as_text(), arguments[-1])


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("fields", [FLAT, NESTED, DELAY], ids=join_values)
def test_engine_writes_its_cache_in_place(fields, rows):
    engine = engine_of(rows, **fields)
    assert_in_place(engine._program("decode", rows, CAPACITY).as_text(), Cache.empty(engine.config, rows, CAPACITY))


def assert_in_place(text: str, cache: Cache) -> None:
    assert "input_output_alias" in text
    for buffer in cache.buffers[0]:
        shape = re.escape(f"f32[{','.join(map(str, buffer.shape))}]")
        assert re.search(rf"= {shape}\S* (\S*fusion|dynamic-update-slice)\(", text)
        assert not re.search(rf"= {shape}\S* copy\(", text)


@pytest.mark.parametrize("field", ["context", "rows", "chunk", "staging_rows"])
def test_invalid_sizes_are_rejected_by_field(field):
    config = tiny_config(**FLAT)
    with pytest.raises(UserError, match=f"engine.{field}"):
        Engine(config, parameters(config), TOKENIZER, **{"context": 64, field: 0})
