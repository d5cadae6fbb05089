"""What the tests of decoding share: prompts, constraints, and engines whose programs are compiled once."""

import functools

import jax
import numpy as np

from sage_jax.decoding.constraints import Constraints, Limits
from sage_jax.decoding.engine import Engine, cache_capacities
from sage_jax.decoding.request import Continuation, Request
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.scheduler import Scheduler
from sage_jax.decoding.state import Controls
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.bpe import RemiBpe
from sage_jax.tokenizers.mmt import Mmt
from sage_jax.tokenizers.note_events import NoteEvents
from tests.models.small import parameters, tiny_config

TOKENIZER = NoteEvents()
WILD = SamplingConfig(temperature=3.0)
CONTEXT, CAPACITY, CHUNK = 127, 128, 8


def constraints_of(rows: int, first_bar=0, allow_eos: bool = False, programs=None, tracks: int = 1, **fields) -> Constraints:
    """Constraints of `rows` rows. first_bar and the other bounds: a number or one for each row. tracks: of each program."""
    one = Limits(allow_eos=allow_eos, programs=programs).constraints(tracks)
    each = jax.tree.map(lambda leaf: np.repeat(leaf, rows, axis=0), one)
    bounds = dict(first_bar=first_bar, **fields)
    return each.replace(**{name: np.broadcast_to(np.asarray(bound, np.int32), rows) for name, bound in bounds.items()})


def prompt(bars: int, seed: int = 0) -> np.ndarray:
    """Events of `bars` bars of random notes, without EOS."""
    rng = np.random.default_rng(seed)
    rows = {(int(t), int(p), int(n)): (12, 65) for t, p, n in zip(
        rng.integers(0, 48 * bars, 6 * bars), rng.choice([0, 33, DRUMS], 6 * bars), rng.integers(30, 80, 6 * bars), strict=True
    )}
    return TOKENIZER.encode(Piece.from_notes([(*key, *value) for key, value in sorted(rows.items())]))[:-1]


PROMPTS = [prompt(2), prompt(4, 1), prompt(1, 2), prompt(3, 3)]


FLAT = dict(kv_sharing="mqa")
NESTED = dict(architecture="nested", lookahead=2, kv_sharing="mqa")
DELAY = dict(architecture="delay", kv_sharing="mqa")
COMPOUND = dict(architecture="compound", kv_sharing="mqa")
POOLED = dict(architecture="pooled", kv_sharing="mqa")


@functools.cache
def tokenizer_of(name: str) -> Tokenizer:
    """NoteEvents, with one or with four tracks per program, REMI+ with merged tokens, or Mmt."""
    if name == "remi":
        return RemiBpe.learn([RemiBpe().quantize(TOKENIZER.decode(each)) for each in PROMPTS], merges=25)
    return {"events": TOKENIZER, "tracks": NoteEvents(tracks_per_program=4), "mmt": Mmt()}[name]


@functools.cache
def _engine(rows: int, first_capacity: int, name: str, fields: tuple) -> Engine:
    if rows > 1:  # shares the parameters, and programs of the staging area with others of several rows
        engine = _engine(1, CAPACITY, name, fields).sibling()
        engine.rows, engine.capacities, engine.staging_rows = rows, cache_capacities(CONTEXT, first_capacity), 2
        return engine
    tokenizer = tokenizer_of(name)
    config = tiny_config(vocab_sizes=tokenizer.vocab_sizes, **dict(fields))
    return Engine(config, parameters(config), tokenizer, context=CONTEXT, chunk=CHUNK, first_capacity=first_capacity)


def engine_of(rows: int = 1, first_capacity: int = CAPACITY, tokenizer: str = "events", **fields) -> Engine:
    """An engine with free rows. Those of the same rows and fields of `tiny_config` share their programs."""
    return _engine(rows, first_capacity, tokenizer, tuple(fields.items())).sibling()


def run(engine: Engine, *requests: Request, interleaved: bool = False) -> list[Continuation]:
    """The continuations in the order of the requests."""
    found = {id(each.request): each for each in Scheduler(engine, interleaved=interleaved).run(requests)}
    engine.reset()
    return [found[id(request)] for request in requests]


def controls_of(seed: int = 0, sampling: SamplingConfig = WILD, **fields) -> Controls:
    """Settings of a row that is used without a scheduler."""
    return Controls.of(Request(PROMPTS[0], seed=seed).key, sampling, Limits(allow_eos=False), **fields)


def assert_canonical(whole: np.ndarray, tokenizer: NoteEvents = TOKENIZER) -> None:
    """Checks that `whole` round-trips through the tokenizer, except for final rests, with unique notes in order of time."""
    piece = tokenizer.decode(whole)
    again = tokenizer.encode(piece)[:-1]
    assert np.array_equal(again, whole[: len(again)]) and (whole[len(again) :, ev.INSTRUMENT] == ev.REST).all()
    assert len(whole) - len(again) < 5
    keys = piece.notes[["onset", "program", "track", "pitch"]]
    assert len(np.unique(keys)) == len(keys) and (np.diff(piece.notes["onset"]) >= 0).all()
