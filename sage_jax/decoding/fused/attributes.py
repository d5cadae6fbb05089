"""The attributes of a fused event step: phases that predict, choose and embed tokens. Sizes and letters as in sizes.py."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sage_jax.decoding.fused.grid import Number, Pieces, nothing, pieces, read, span, sum_of, write
from sage_jax.decoding.fused.layers import Layers
from sage_jax.decoding.fused.sizes import power_of_two
from sage_jax.decoding.grammars.note_events import Grammar, GrammarState
from sage_jax.decoding.sampling import SamplingParams, filter_by_search, sample
from sage_jax.tokenizers.note_events import INSTRUMENT

NUMBERS = 14  # of a row, before its given event: the grammar's state, bounds, top-k and whether the event is given
SEARCH_BITS = 4


class Bounds(NamedTuple):
    """`Constraints` without those on programs and pitches, which PaddedGrammar has."""

    first_bar: jax.Array
    stop_bar: jax.Array
    first_tick: jax.Array
    stop_tick: jax.Array
    begin_before: jax.Array
    allow_eos: jax.Array


class PaddedGrammar(Grammar):
    """The grammar of one row in a kernel, with masks as wide as blocks are.

    playable: as `Grammar.playable` gives it, padded. limits: a reference to the pitch limits of all rows.
    """

    def __init__(self, grammar: Grammar, row: jax.Array, playable: jax.Array, limits: Any):
        super().__init__(grammar.tokenizer, [power_of_two(size) for size in grammar.vocab_sizes])
        self._row, self._playable, self._limits = row, playable, limits

    def playable(self, constraints: Any) -> jax.Array:
        return self._playable

    def pitch_limits(self, program: jax.Array, constraints: Any) -> tuple[jax.Array, jax.Array]:
        lowest, highest = (read(self._limits, self._row, program, index) for index in (0, 1))
        return lowest, highest


class Attributes:
    """What the tokens of an event go through, besides the layers. refs: arrays of the kernel by name, see event_step.py.

    state: bfloat16 [B, D], from which the next token is predicted. In a nested model `pending` is the step of the event decoder
    whose token's embedding is not yet part of it.
    """

    def __init__(self, layers: Layers, grammar: Grammar, refs: dict[str, Any]):
        self.layers, self.sizes, self.grid, self.refs = layers, layers.sizes, layers.grid, refs
        self.grammar = grammar
        self.config = self.sizes.config
        self.pending: int | None = None

    @property
    def barriers(self) -> int:
        """Barriers of one `choose`."""
        return 4 if self.config.architecture == "nested" else 2

    def choose(self, barrier: Number, attribute: int) -> None:
        """Predicts `attribute` from the state, and writes its token to `event`. Uses `barriers` barriers."""
        if self.config.architecture == "nested":
            step = self.config.decode_order.index(attribute)
            self._up(barrier, step)
            self._down(barrier + 1, step)
            self.pending = None
            self._logits(barrier + 2, attribute)
            self._sample(barrier + 3, attribute)
            self.pending = step
        else:
            self._logits(barrier, attribute)
            self._sample(barrier + 1, attribute)

    def embed(self, barrier: Number, attribute: Number) -> None:
        """Writes the layers' input x: of an event-level model the whole event, of a flat one its token of `attribute`."""
        refs, config, D = self.refs, self.config, self.config.embed_dim

        def run(row: jax.Array, _: None) -> None:
            for start, size in pieces(D):
                columns = span(start, size)
                if config.architecture == "flat":
                    token = read(refs["event"], row, attribute, fresh=True)
                    sizes = enumerate(config.vocab_sizes)
                    place = sum_of(jnp.int32(attribute > other) * size for other, size in sizes)  # the table's first row
                    x = read(refs["embeddings"], place + token, columns)
                    x += read(refs["attribute_embedding"], attribute, columns)
                else:
                    parts = []
                    for other in range(config.num_attributes):
                        token = read(refs["event"], row, other, fresh=True)
                        part = read(refs["embeddings"], self._place(other) + token, columns)
                        parts.append(jnp.where(token > 0, part, 0.0))
                    x = sum_of(parts)
                write(refs["x"], x, row, columns)

        self.grid.phase(barrier, self.sizes.rows, nothing, run)

    def settle(self, barrier: Number) -> None:
        """Adds the pending embedding to the state."""

        def run(row: jax.Array, _: None) -> None:
            for start, size in pieces(self.config.embed_dim):
                columns = span(start, size)
                state = read(self.refs["state"], row, columns, fresh=True)
                write(self.refs["state"], state + self._inner_embedding(row, columns), row, columns)

        self.grid.phase(barrier, self.sizes.rows, nothing, run)
        self.pending = None

    def _place(self, attribute: int) -> int:
        """The first row of an attribute in tables of all attributes."""
        return sum(self.config.vocab_sizes[:attribute])

    def _inner_embedding(self, rows: jax.Array, columns: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """The embedding of the pending token of each row, bfloat16."""
        assert self.pending is not None
        attribute = self.config.decode_order[self.pending]
        tokens = read(self.refs["event"], rows, attribute, mask=mask, fresh=True)
        # The tables are in decode order, without that of the last attribute.
        place = sum(self.config.vocab_sizes[other] for other in self.config.decode_order[: self.pending])
        return read(self.refs["inner_embeddings"], place + tokens, columns, mask=mask)

    def _state(self, rows: jax.Array) -> Pieces:
        """The state of the rows, with the pending embedding."""
        blocks = self.layers.blocks(self.refs["state"], rows, self.config.embed_dim)
        if self.pending is None:
            return blocks
        mask = self.layers.is_row(rows)
        spans = pieces(self.config.embed_dim)
        return [
            block + self._inner_embedding(rows[:, None], span(start, size)[None], mask)
            for block, (start, size) in zip(blocks, spans, strict=True)
        ]

    # The event decoder of a nested model, see ResidualDecoder

    @property
    def _decoder_width(self) -> int:
        return self.config.event_decoder_dim or self.config.embed_dim

    def _up(self, barrier: Number, step: int) -> None:
        layers, refs = self.layers, self.refs

        def finish(rows: jax.Array, columns: jax.Array, product: jax.Array) -> None:
            x = product.astype(jnp.bfloat16).astype(jnp.float32)
            activated = jax.nn.gelu(x, approximate=True)
            write(refs["hidden"], activated, rows[:, None], columns[None], mask=layers.is_row(rows))

        weights = lambda columns: [layers.matrix(refs["ups"], step, columns, width=self.config.embed_dim)]
        inputs = lambda rows: layers.norm(self._state(rows), step, name="decoder_scales")
        layers.product(barrier, self._decoder_width, weights, inputs, finish)

    def _down(self, barrier: Number, step: int) -> None:
        layers, refs = self.layers, self.refs
        finish = layers.add_to("state", None if self.pending is None else self._inner_embedding)
        weights = lambda columns: [layers.matrix(refs["decoder_downs"], step, columns, width=self._decoder_width)]
        inputs = lambda rows: layers.blocks(refs["hidden"], rows, self._decoder_width)
        layers.product(barrier, self.config.embed_dim, weights, inputs, finish)

    # Tokens

    def _logits(self, barrier: Number, attribute: int) -> None:
        layers, refs, D = self.layers, self.refs, self.config.embed_dim
        size = self.config.vocab_sizes[attribute]

        def weights(columns: jax.Array) -> list[Pieces]:
            row = jnp.minimum(columns, size - 1)
            return [layers.matrix(refs["heads"], self._place(attribute) + row, width=D)]

        def inputs(rows: jax.Array) -> Pieces:
            blocks = layers.blocks(refs["state"], rows, D)
            return layers.norm(blocks, name="output_scale") if self.config.architecture == "nested" else blocks

        def finish(rows: jax.Array, columns: jax.Array, product: jax.Array) -> None:
            mask, is_row = (columns < size)[None], layers.is_row(rows)
            mask = mask if is_row is None else mask & is_row
            write(refs["logits"], product, rows[:, None], columns[None], mask=mask)

        layers.product(barrier, size, weights, inputs, finish)

    def _sample(self, barrier: Number, attribute: int) -> None:
        refs, size = self.refs, self.config.vocab_sizes[attribute]
        width = power_of_two(size)

        def load(row: jax.Array) -> tuple:
            """What does not depend on the model."""
            ids, instruments = span(0, width), span(0, power_of_two(self.config.vocab_sizes[INSTRUMENT]))
            is_instrument = instruments < self.config.vocab_sizes[INSTRUMENT]
            noise = read(refs["noise"], row, self._place(attribute) + ids, mask=ids < size)[None]
            playable = read(refs["playable"], row, instruments, mask=is_instrument)[None]
            settings = [read(refs["settings"], row, index)[None] for index in range(3)]
            places = [*range(NUMBERS), NUMBERS + attribute]
            return noise, playable, settings, [read(refs["numbers"], row, place)[None] for place in places]

        def run(row: jax.Array, loaded: tuple) -> None:
            noise, playable, (temperature, top_p, min_p), numbers = loaded
            bar, bar_start, position, bar_ticks, instrument, pitch, *numbers = numbers
            first_bar, stop_bar, first_tick, stop_tick, begin_before, allow_eos, top_k, is_given, given = numbers
            state = GrammarState(bar, bar_start, position, bar_ticks, instrument, pitch)
            bounds: Any = Bounds(first_bar, stop_bar, first_tick, stop_tick, begin_before, allow_eos != 0)
            grammar = PaddedGrammar(self.grammar, row, playable != 0, refs["limits"])
            event = [read(refs["event"], row, other, fresh=True)[None] for other in range(attribute)]
            allowed = grammar.allowed(state, event, bounds)
            ids = span(0, width)
            logits = read(refs["logits"], row, ids, mask=ids < size, fresh=True)[None]
            params = SamplingParams(temperature, top_k, top_p, min_p)
            drawn = sample(noise, logits, allowed, params, functools.partial(filter_by_search, bits=SEARCH_BITS))
            write(refs["event"], jnp.where(is_given != 0, given, drawn), row, span(attribute, 1))

        self.grid.phase(barrier, self.sizes.rows, load, run)
