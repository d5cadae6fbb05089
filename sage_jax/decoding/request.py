"""A prompt to be continued, and where its continuation stands."""

import collections
import dataclasses

import jax
import numpy as np

from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.state import Controls
from sage_jax.errors import UserError
from sage_jax.programs import stored
from sage_jax.tokenizers.base import Tokenizer


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt, and how it is continued. Raises UserError naming the field.

    events: int [N, A], BOS first and no EOS. limits: bars and ticks count from the prompt's first bar. max_events: the most
    new events. seed: a whole number, or a JAX key. number: folded into its key, so that requests of one seed differ.
    """

    events: np.ndarray
    limits: Limits = Limits()
    sampling: SamplingConfig = SamplingConfig()
    max_events: int = 1024
    seed: int | np.integer | jax.Array = 0
    number: int = 0

    def __post_init__(self):
        if not len(self.events):
            raise UserError("request.events is empty; give at least the first event, which every encoded piece has")
        if self.max_events < 1:
            raise UserError(f"request.max_events is {self.max_events}; give at least 1")

    @property
    def key(self) -> np.ndarray:
        """The data of the request's own key, uint32 [...]."""
        if isinstance(self.seed, (int, np.integer)):
            return np.array(_numbered_key(np.uint32(self.seed), np.uint32(self.number)))
        return np.array(jax.random.key_data(jax.random.fold_in(self.seed, self.number)))


@stored
@jax.jit
def _numbered_key(seed: jax.Array, number: jax.Array) -> jax.Array:
    return jax.random.key_data(jax.random.fold_in(jax.random.key(seed), number))


@dataclasses.dataclass(frozen=True)
class Continuation:
    """The result of a request: its new events, int16 [N, A], with a final EOS if the model ended the piece.

    finished: whether it reached EOS or a bound of its limits, and not the most events.
    """

    request: Request
    events: np.ndarray
    finished: bool


@dataclasses.dataclass(frozen=True)
class Window:
    """What a row's cache holds at first: its last bars.

    given: int16 [N, A]. bar: number of the piece's bar with which it begins. tick: where that bar begins. offset: events of the
    piece that it lacks; less than 0 where its head has more events than it replaces.
    """

    given: np.ndarray
    bar: int
    tick: int
    offset: int


class Progress:
    """A request in progress, on the host.

    events: the prompt and the events that were drawn before the window. window: what the cache held at first. is_open: a
    session, which keeps its row when it reaches a bound; is_parked says that it has. outbox: int32 [A] each, new events that
    single steps brought. keys: int [n], by queued event, where what is queued is an offer; read: how many of these events the
    row has read, once it has. See `Decoder.offer`.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer, window_length: int, is_open: bool = False):
        self.request, self.tokenizer = request, tokenizer
        self.is_open, self.is_parked = is_open, False
        self.outbox: collections.deque[np.ndarray] = collections.deque()
        self.keys: np.ndarray | None = None
        self.read: int | None = None
        self.events = np.asarray(request.events, np.int16)
        self.window = self.cut(self.events, window_length)
        self._key = request.key

    def renew(self, request: Request) -> None:
        """Goes on with the settings of `request`, one of the same prompt."""
        if (request.seed, request.number) != (self.request.seed, self.request.number):
            self._key = request.key
        self.request, self.is_parked, self.keys, self.read = request, False, None, None

    def cut(self, events: np.ndarray, length: int) -> Window:
        """The last bars of the piece's `events` that fit into `length` events."""
        given, bar = self.tokenizer.window(events, length)
        limits = self.request.limits
        has_ticks = limits.first_tick or limits.stop_tick is not None
        tick = self.tokenizer.decode(events).bar_start(bar) if bar and has_ticks else 0
        return Window(np.asarray(given, np.int16), bar, int(tick), len(events) - len(given))

    def whole(self, drawn: np.ndarray) -> np.ndarray:
        """The piece so far: `drawn` [N, A] are the events after the window."""
        return np.asarray(self.tokenizer.join(self.events, drawn, self.window.bar), np.int16)

    def follow(self, window: Window, drawn: np.ndarray) -> Window:
        """`window`, which was cut before `drawn` [N, A] of the present window were, with these events after it."""
        return dataclasses.replace(
            window, given=np.asarray(self.tokenizer.join(window.given, drawn, self.window.bar - window.bar), np.int16)
        )

    def keep(self, count: int) -> int:
        """Drops all but the first `count` events of the piece; returns how many of these the window has.

        Raises UserError for events that come before those of the window: they are no longer in the cache.
        """
        kept = count - self.window.offset
        head = min(len(self.window.given), self.tokenizer.head_length(self.window.given))
        if count < 1 or (self.window.offset and kept < head):
            first = self.window.offset + head
            raise UserError(f"keep is {count}, but the row's context begins with event {first}; go back less, or start anew")
        if kept < len(self.window.given):
            self.events = self.events[:count]
        self.window = dataclasses.replace(self.window, given=self.window.given[:kept])
        return kept

    def most(self, window: Window, lag: int) -> int:
        """The length at which a row with this window has drawn its most events."""
        return len(self.request.events) + self.request.max_events - window.offset + lag

    def controls(self, window: Window, limit: int, lag: int) -> Controls:
        """The row's settings with this window: limits count from its first bar."""
        limits = self.request.limits
        shifted = lambda value, by: None if value is None else value - by
        limits = dataclasses.replace(
            limits,
            first_bar=limits.first_bar - window.bar,
            stop_bar=shifted(limits.stop_bar, window.bar),
            first_tick=limits.first_tick - window.tick,
            stop_tick=shifted(limits.stop_tick, window.tick),
            begin_before=shifted(limits.begin_before, window.tick),
        )
        length = min(limit, self.most(window, lag))
        tracks = self.tokenizer.grid.tracks_per_program
        sampling, offset = self.request.sampling, window.offset
        return Controls.of(self._key, sampling, limits, offset=offset, max_length=length, tracks_per_program=tracks)
