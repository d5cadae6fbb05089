"""The engine: compiled programs over a batch of rows, and a staging area in which prompts and windows are prefilled.

Every program is compiled for a number of rows and a capacity, or loaded from disk (programs.py). After `Engine.warmup` nothing
is compiled, whatever the traffic.
"""

import copy
import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.decoder import Decoder
from sage_jax.decoding.fused.step import resolve
from sage_jax.decoding.request import Request
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.state import Controls, DecodeState
from sage_jax.errors import UserError
from sage_jax.models.config import ModelConfig
from sage_jax.programs import load_or_compile, shapes_of
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.note_events import BOS

FIRST_CAPACITY = 256  # events; smaller caches are hardly faster, and each capacity has programs of its own to compile
CHUNK = 32  # events that a prefill reads at once
LIVE_CHUNK = 16  # the same where a player waits for the next note
STAGE_CHUNK = 64  # the same of a whole prompt or window: 32 at once take a seventh more time for each, 16 almost twice as much
FIRST_CHUNKS = (128, 256, 512)  # events that the first reading of a whole prompt or window has
OFFER = 8  # events that an offer has at most; of more, few are read before an event of the row's own
CAPACITY_MULTIPLE = 64
GROUPS = (1, 4, 8)  # rows of the batch that are prefilled at once: of so many each takes a half and 0.4 of the time alone
STAGING_ROWS = 4  # rows that are prefilled at once; with more of them, more rows wait for others


def stage_chunk_of(config: ModelConfig) -> int:
    """Events of a whole prompt that are read at once. In a flat model they are five times as many tokens, and 32 are best."""
    return STAGE_CHUNK if config.tokens_per_event == 1 else CHUNK


def cache_capacities(context: int, first: int = FIRST_CAPACITY) -> list[int]:
    """The capacities that a cache has in turn, in events: each twice the one before, up to `context` events.

    Attention thus reads at most twice the events that are filled.
    """
    last = -(-context // CAPACITY_MULTIPLE) * CAPACITY_MULTIPLE
    capacities = []
    while first < last:
        capacities.append(first)
        first *= 2
    return [*capacities, last]


class Engine:
    """`rows` sessions of one model that are stepped together, each at its own event.

    context: events that a row can hold, at most those of the model's training. chunk: events of a row in one prefill;
    stage_chunk: the same in the staging area, None for as many.
    staging_rows: rows of one prefill, None for as many as the batch has, up to STAGING_ROWS. One row is best where players wait
    for the next note, since empty places take as long. The batch's cache grows as its longest row does. device: what the
    programs are for, by default jax's first device. compilations, compile_seconds: number of programs, and the time spent on
    them.
    Methods that change a row are for one thread at a time; `lock` is there for those that share an engine.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Any,
        tokenizer: Tokenizer,
        *,
        context: int,
        rows: int = 1,
        chunk: int = CHUNK,
        stage_chunk: int | None = None,
        staging_rows: int | None = None,
        first_capacity: int = FIRST_CAPACITY,
        device: Any = None,
    ):
        self.staging_rows = min(rows, STAGING_ROWS) if staging_rows is None else staging_rows
        self.chunk, self.stage_chunk = chunk, chunk if stage_chunk is None else stage_chunk
        sizes = (
            ("context", context, 8), ("rows", rows, 1), ("chunk", chunk, 1), ("stage_chunk", self.stage_chunk, 1),
            ("staging_rows", self.staging_rows, 1),
        )  # fmt: skip
        for name, value, low in sizes:
            if value < low:
                raise UserError(f"engine.{name} is {value}; give at least {low}")
        self.device = device or jax.devices()[0]
        self.config, self.tokenizer, self.rows = resolve(config, tokenizer, self.device), tokenizer, rows
        self.decoder = Decoder(self.config, tokenizer, getattr(self.device, "core_count", 1))
        # What the programs depend on besides their arguments and the code.
        self._identity = (self.config, type(tokenizer), tokenizer.fingerprint, chunk, self.stage_chunk)
        self.capacities = cache_capacities(context, first_capacity)
        self.limit = min(context, self.capacities[-1] - 1)  # the last slot takes the writes of full rows
        self.compilations, self.compile_seconds, self._is_warm = 0, 0.0, False
        self.lock = threading.RLock()
        self._programs: dict[tuple, Callable] = {}
        self._shapes: dict[tuple[int, int], DecodeState] = {}  # of states, by rows and capacity
        self._numbers: dict[int, jax.Array] = {}
        self.set_params(params)
        self.reset()

    def set_params(self, params: Any) -> None:
        """Replaces the parameters with others of the same shapes. Compiled programs stay valid.

        params: arrays, or ShapeDtypeStructs for an engine that only gives definitions.
        """
        self.params = self.decoder.inference_parameters(params, self.device)
        self._step_params = self.decoder.step_parameters(self.params)
        self._step_leaves = jax.tree.leaves(self._step_params)  # so that an event step does not flatten them

    def reset(self) -> None:
        """Releases every row, and goes back to the first capacity."""
        self._state: DecodeState | None = None
        self._staging: DecodeState | None = None
        self._place = 0

    def sibling(self) -> "Engine":
        """An engine with rows of its own that shares the parameters and the compiled programs."""
        engine = copy.copy(self)
        engine.reset()
        return engine

    @property
    def capacity(self) -> int:
        """The capacity of the batch's cache now, S."""
        return self.capacities[self._place]

    def warmup(self) -> float:
        """Compiles every program that a scheduler or a session can need, and runs each once; returns the seconds of compiling.

        A first run takes up to 0.1 s longer than others: XLA prepares its products for a CPU, or loads its kernels on a GPU.
        """
        if self._is_warm:
            return 0.0
        compilations, compiled, engine = self.compilations, self.compile_seconds, self.sibling()  # whose rows mean nothing
        events, tracks = np.full((2, self.config.num_attributes), BOS, np.int16), self.tokenizer.grid.tracks_per_program
        controls = Controls.of(Request(events).key, SamplingConfig(), Limits(), tracks_per_program=tracks)  # compiles, too
        engine.stage(events, controls)
        for size in self._first_chunks:
            engine._begin(size, 0)
        engine.prefill_staged()
        for capacity in self.capacities:
            if capacity > engine.capacity:
                engine.grow()
            engine.edit(0, 0, events, controls)
            engine.decode(1)
            for count in self.groups:
                engine.prefill(*range(count))
                if self.config.roles:
                    engine.offer(range(count), np.zeros((count, OFFER)))
            engine.insert_staged(0, 1)
            engine.events(0, 1)
            engine.release(0)
        engine.wait()
        self.compilations += engine.compilations - compilations
        self.compile_seconds += engine.compile_seconds - compiled
        self._is_warm = True
        return engine.compile_seconds - compiled

    # The staging area

    @property
    def stage_capacity(self) -> int:
        """The capacity of its cache: a row has read whole chunks until it is complete."""
        return -(-self.limit // self.stage_chunk) * self.stage_chunk

    @property
    def _first_chunks(self) -> list[int]:
        """Whole chunks too, so that those after them fit."""
        return sorted({max(min(size, self.stage_capacity) // self.stage_chunk, 1) * self.stage_chunk for size in FIRST_CHUNKS})

    def stage(self, events: np.ndarray, controls: Controls, keep: int = 0, place: int = 0) -> None:
        """Keeps `keep` events of the staged row `place`, and queues those of events [N, A] from `keep` on, N <= limit.

        With keep = 0 it is a new row. `begin_staged` and `prefill_staged` read the queue.
        """
        rows, capacity = self.staging_rows, self.stage_capacity
        staging = self._empty(rows, capacity) if self._staging is None else self._staging
        self._staging = self._edit(staging, rows, capacity, place, keep, events, controls)

    def begin_staged(self, queued: int, place: int = 0) -> int:
        """Reads the first of the `queued` events of a new staged row and returns how many; 0 where one chunk has them all.

        They are many at once and attend to no cache: of each, chunks take two to four times as long on a CPU. How many depends
        on `queued` alone: the most of `FIRST_CHUNKS` of which at least two thirds are queued.
        """
        if queued <= self.stage_chunk:
            return 0
        size = max(size for size in self._first_chunks if 2 * size <= 3 * queued or size == self._first_chunks[0])
        self._begin(size, place)
        return min(size, queued)

    def _begin(self, size: int, place: int) -> None:
        program = self._program("begin", self.staging_rows, self.stage_capacity, size)
        self._staging = program(self.params, self._staging, np.array([place], np.int32))

    def prefill_staged(self) -> None:
        """Reads up to `stage_chunk` queued events of every staged row."""
        program = self._program("read", self.staging_rows, self.stage_capacity, self.stage_chunk)
        self._staging = program(self.params, self._staging)

    def insert_staged(self, slot: int, length: int, place: int = 0) -> None:
        """Puts the staged row `place`, of `length` events, into the row `slot`."""
        while self.capacity <= length:
            self.grow()
        program = self._program("insert", self.rows, self.capacity, self.staging_rows)
        self._state = program(self.state, np.int32(slot), self._staging, np.int32(place))

    # The batch

    def decode(self, max_steps: int, min_active: int = 1) -> jax.Array:
        """Event steps until `max_steps`, or until fewer than `min_active` rows are active.

        Returns int32 [B, A + 3] on the device, without waiting: of each row the event that the last step completed, PAD for
        none or a given one, its length, whether it is done, and the number of steps.
        """
        program = self._program("decode", self.rows, self.capacity)
        controls, numbers = self.state.controls, (self._number(max_steps), self._number(min_active))
        state, shown = program(self._step_leaves, self.state.replace(controls=()), controls, *numbers)
        self._state = state.replace(controls=controls)
        return shown

    def edit(self, slot: int, keep: int, events: np.ndarray, controls: Controls) -> None:
        """Keeps `keep` events of the row, and queues those of events [N, A] from `keep` on; see `Decoder.edit`."""
        while self.capacity <= len(events):
            self.grow()
        self._state = self._edit(self.state, self.rows, self.capacity, slot, keep, events, controls)

    @property
    def groups(self) -> list[int]:
        """The numbers of rows for which there is a program of `prefill`."""
        return sorted({min(size, self.rows) for size in GROUPS})

    @property
    def group(self) -> int:
        """The most rows that one `prefill` reads."""
        return self.groups[-1]

    def prefill(self, *slots: int) -> None:
        """Reads up to `chunk` queued events of each of the rows, at most `group` of them.

        The length of each + chunk must not exceed the capacity.
        """
        places = self._filled(slots)
        program = self._prefill_program(len(places), self.capacity)
        self._state = program(self.params, self.state, *((np.array(places, np.int32),) if self.rows > 1 else ()))

    def offer(self, slots: Sequence[int], keys: np.ndarray) -> np.ndarray:
        """As `prefill`, but a row stops before what comes after an event of its own, see `Decoder.offer`.

        keys: int32 [K, OFFER]. For models with roles. Returns how many events each row has read, int [K].
        """
        places = self._filled(slots)
        program = self._program("offer", self.rows, self.capacity, len(places))
        keys = keys[self._filled(range(len(slots)))]
        self._state, read = program(self.params, self.state, np.array(places, np.int32), keys.astype(np.int32))
        return np.array(read)[: len(slots)]

    def _filled(self, slots: Sequence[int]) -> list[int]:
        """`slots`, and the first of them again until there is a program for so many. What is read twice changes nothing."""
        count = next(size for size in self.groups if size >= len(slots))
        return [*slots, *[slots[0]] * (count - len(slots))]

    def release(self, slot: int) -> None:
        """Ends the row."""
        self._state = self._program("release", self.rows, self.capacity)(self.state, np.int32(slot))

    def grow(self) -> None:
        """Moves the batch to the next capacity."""
        if self._place + 1 == len(self.capacities):
            raise UserError(f"a row has more than {self.limit} events, the engine's context; give a larger context")
        smaller, state, self._place = self.capacity, self.state, self._place + 1
        self._state = self._program("resize", self.rows, smaller, self.capacity)(self.params, state)

    def events(self, slot: int, length: int) -> np.ndarray:
        """The first `length` complete events of the row, int16 [N, A]. Waits for the device."""
        return self.fetch_events(slot, length)()

    def fetch_events(self, slot: int, length: int) -> Callable[[], np.ndarray]:
        """The same, for later: the function that this returns waits. The row may change meanwhile."""
        found, lag = self._program("events", self.rows, self.capacity)(self.state, np.int32(slot)), self.decoder.lag
        return lambda: np.array(found)[lag : lag + length]

    def status(self) -> tuple[np.ndarray, np.ndarray]:
        """The length of each row, int32 [B], and whether it is done, bool [B]. Waits for the device."""
        state = self.state
        return np.array(state.cache.length), np.array(state.done)

    def wait(self) -> None:
        """Waits until the device has put the staged rows into the batch."""
        if self._state is not None:
            jax.block_until_ready(self._state.done)

    @property
    def state(self) -> DecodeState:
        """The state of the batch. Whoever reads it must not keep it: the next call overwrites it."""
        state = self._state
        if state is None:
            state = self._state = self._empty(self.rows, self.capacity)
        return state

    @state.setter
    def state(self, state: DecodeState) -> None:
        self._state = state

    # Programs

    def _number(self, value: int) -> jax.Array:
        """int32 [] on the device, where it stays for the next call."""
        if value not in self._numbers:
            self._numbers[value] = jnp.int32(value)
        return self._numbers[value]

    def _prefill_program(self, count: int, capacity: int) -> Callable:
        """What prefills `count` rows of the batch: where there is one row, what a staging area of one row has, too."""
        if self.rows == 1:
            return self._program("read", 1, capacity, self.chunk)
        return self._program("prefill", self.rows, capacity, count)

    def _empty(self, rows: int, capacity: int) -> DecodeState:
        return self._program("empty", rows, capacity)(self.params)

    def _edit(self, state, rows: int, capacity: int, slot: int, keep: int, events: np.ndarray, controls: Controls):
        given = np.zeros((capacity, self.config.num_attributes), np.int16)
        given[: len(events)] = events
        program = self._program("edit", rows, capacity)
        return program(self.params, state, np.int32(slot), np.int32(keep), np.int32(len(events)), given, controls)

    def _program(self, name: str, *sizes: int) -> Callable:
        """The compiled program of this name for (rows, capacity, and one more number where `definition` says so)."""
        key = (name, *sizes)
        with self.lock:
            if key not in self._programs:
                began = time.perf_counter()
                function, arguments, donated = self.definition(name, *sizes)
                jitted = jax.jit(function, donate_argnums=donated)
                self._programs[key] = load_or_compile(jitted, *arguments, key=(*self._identity, *key))
                self.compile_seconds += time.perf_counter() - began
                self.compilations += 1
            return self._programs[key]

    def definition(self, name: str, rows: int, capacity: int, other: int = 0) -> tuple[Callable, tuple, tuple[int, ...]]:
        """The function of a program, its arguments or their shapes, and the numbers of those that it may overwrite.

        name: "empty", "insert", "release", "resize", "prefill", "offer", "read", "begin", "edit", "events", "decode", or
        "event_step", which is the body of decode. other: the larger capacity of a resize; the staging rows of an insert; the
        rows that a prefill or an offer reads, 0 for one; the chunk of a read or of what begins a row.
        """
        decoder, number = self.decoder, np.int32(0)
        empty = lambda rows, capacity: functools.partial(decoder.empty, rows=rows, capacity=capacity)

        def shapes(rows: int, capacity: int) -> DecodeState:
            sizes = rows, capacity
            if sizes not in self._shapes:
                self._shapes[sizes] = shapes_of(empty(*sizes), self.params, key=(*self._identity, *sizes))
            return self._shapes[sizes]

        state = shapes(rows, capacity)
        if name == "empty":
            return empty(rows, capacity), (self.params,), ()
        if name == "insert":
            insert = lambda state, slot, staging, place: state.insert(slot, staging.row(place))
            return insert, (state, number, shapes(other, self.stage_capacity), number), (0,)
        if name == "release":
            return DecodeState.release, (state, number), (0,)
        if name == "resize":
            resize = lambda params, state: decoder.empty(params, rows, other).insert(jnp.int32(0), state)
            return resize, (self.params, state), ()
        if name == "begin":
            return functools.partial(decoder.begin, chunk=other), (self.params, state, np.zeros(1, np.int32)), (1,)
        slots = np.zeros(max(other, 1), np.int32)
        if name == "prefill":
            return functools.partial(decoder.prefill, chunk=self.chunk), (self.params, state, slots), (1,)
        if name == "offer":
            return decoder.offer, (self.params, state, slots, np.zeros((len(slots), OFFER), np.int32)), (1,)
        if name == "read":
            return functools.partial(decoder.read, chunk=other), (self.params, state), (1,)
        if name == "edit":
            given = jax.ShapeDtypeStruct((capacity, self.config.num_attributes), np.int16)
            controls = shapes(1, capacity).controls
            return decoder.edit, (self.params, state, number, number, number, given, controls), (1,)
        if name == "events":
            return lambda state, slot: state.events[slot], (state, number), ()
        if name == "event_step":
            return decoder.event_step, (self._step_params, state), (1,)
        assert name == "decode"
        tree = jax.tree.structure(self._step_params)

        def decode(leaves: list[jax.Array], state: DecodeState, controls: Controls, *numbers: jax.Array):
            state, shown = decoder.decode(tree.unflatten(leaves), state.replace(controls=controls), *numbers)
            return state.replace(controls=()), shown  # what a step does not change need not come out of it

        return decode, (self._step_leaves, state.replace(controls=()), state.controls, number, number), (1,)
