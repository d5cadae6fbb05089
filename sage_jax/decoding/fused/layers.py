"""The layers of a fused event step: phases that read one token of every row. Sizes and letters as in sizes.py.

In a tile of a matrix product rows of the batch are rows, and outputs are columns. Weights are stored [outputs, inputs].
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from sage_jax.decoding.fused.grid import Grid, Number, dot, nothing, pieces, power_of_two, read, span, sum_of_products, write
from sage_jax.decoding.fused.sizes import Sizes
from sage_jax.models.grouped_attention import MIN_ROW_MAX, NEG_INF

Pieces = list[jax.Array]  # a row of blocks, side by side


MOST_JOINED_LATE = 4  # parts that every program joins for itself, instead of a phase that joins them


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the keys of one row and KV group.

    start: its first key. cached: keys of the whole group that are in the cache. place: where the token's own keys go, if
    `has_new`. visible: all keys that the token attends to. columns: where the outputs of the projections have its own keys.
    """

    layer: jax.Array
    row: jax.Array
    group: jax.Array
    split: jax.Array
    start: jax.Array
    cached: jax.Array
    place: jax.Array
    has_new: jax.Array
    visible: jax.Array
    columns: tuple[jax.Array, ...]

    @classmethod
    def of(cls, sizes: Sizes, layer, first: Number, row, group, split, length: jax.Array) -> "Part":
        config, Q, E = sizes.config, sizes.keys_in_group, sizes.config.keys_per_event
        by_attribute = config.num_own_scope_heads == config.num_heads
        is_flat = config.architecture == "flat"
        kv_head, attribute = (group // E, group % E) if by_attribute else (group, jnp.int32(0))
        cached, place, has_new = length * Q, length * Q, length >= 0
        if is_flat and by_attribute:
            cached, has_new = length + (attribute < first).astype(jnp.int32), attribute == first
        elif is_flat:
            cached = place = length * Q + first
        token = (lambda index: 0) if is_flat else (lambda index: attribute + index)
        columns = [
            sizes.query_width + token(index) * sizes.token_width + kv_head * config.head_dim for index in range(sizes.new_keys)
        ]
        visible = cached + has_new.astype(jnp.int32) * sizes.new_keys
        return cls(layer, row, group, split, split * sizes.split_keys, cached, place, has_new, visible, tuple(columns))

    def keys(self, sizes: Sizes, number: Number) -> jax.Array:
        """int32 [key_tile]: the numbers of the keys of one tile."""
        return self.start + number * sizes.key_tile + span(0, sizes.key_tile)


jax.tree_util.register_dataclass(Part)


class Layers:
    """The layers as phases. refs: arrays of the kernel by name, see event_step.py.

    scales: norms float32 [L, D]. queries_keys_values [L, W, D], outputs [L, D, H h], gates_ups [L, 2, F, D], downs [L, D, F].
    x, inputs and outputs of the layers, [B, D]; qkv [B, W]; attended [B, H h]; hidden [B, F].
    """

    def __init__(self, sizes: Sizes, grid: Grid, refs: dict[str, Any]):
        self.sizes, self.grid, self.refs = sizes, grid, refs

    @property
    def _joins_late(self) -> bool:
        return self.sizes.is_vector and 1 < self.sizes.splits <= MOST_JOINED_LATE

    @property
    def _joins_early(self) -> bool:
        return self.sizes.splits > 1 and not self._joins_late

    @property
    def barriers_in_layer(self) -> int:
        return 5 + self._joins_early

    @property
    def barriers(self) -> int:
        """Barriers of one run."""
        return self.barriers_in_layer * self.sizes.config.num_layers + 1

    def run(self, barrier: Number, first: Number) -> None:
        """Reads the token x of attribute `first`, and leaves the normed hidden state in `state`. Uses `barriers` barriers."""

        def layer(number: jax.Array, _: None) -> None:
            at = barrier + number * self.barriers_in_layer
            self._project(at, number, first)
            self._attend(at + 1, number, first)
            at += 1 + self._joins_early
            if self._joins_early:
                self._join(at)
            self._output(at + 1, number)
            self._gate_up(at + 2, number)
            self._down(at + 3, number)

        layers = self.sizes.config.num_layers
        jax.lax.fori_loop(0, layers, layer, None)
        self._finish(barrier + layers * self.barriers_in_layer)

    def product(
        self,
        barrier: Number,
        outputs: int,
        weights: Callable[[jax.Array], list[Pieces]],
        inputs: Callable[[jax.Array], Pieces],
        finish: Callable[..., None],
    ) -> None:
        """A phase that multiplies. weights(columns): blocks [output_tile, width] of each matrix for these outputs.
        inputs(rows): blocks [row_tile, width]. finish(rows, columns, *products) writes what comes of it."""
        width = self.sizes.output_tile(outputs)
        tiles = -(-outputs // width)
        columns = lambda tile: span(tile % tiles * width, width)
        multiply = sum_of_products if self.sizes.is_vector else dot

        def run(tile: jax.Array, matrices: list[Pieces]) -> None:
            rows = self.rows(tile // tiles)
            blocks = inputs(rows)
            products = [sum_of(multiply(*pair) for pair in zip(blocks, matrix, strict=True)) for matrix in matrices]
            finish(rows, columns(tile), *products)

        self.grid.phase(barrier, self.sizes.row_tiles * tiles, lambda tile: weights(columns(tile)), run)

    def rows(self, tile: Number) -> jax.Array:
        return span(tile * self.sizes.row_tile, self.sizes.row_tile)

    def is_row(self, rows: jax.Array) -> jax.Array | None:
        """bool [row_tile, 1]; None where all are rows of the batch."""
        return (rows < self.sizes.rows)[:, None] if self.sizes.rows % self.sizes.row_tile else None

    def blocks(self, ref: Any, rows: jax.Array, width: int) -> Pieces:
        """The rows of ref [B, width]."""
        mask = self.is_row(rows)
        return [read(ref, rows[:, None], span(start, size)[None], mask=mask, fresh=True) for start, size in pieces(width)]

    def matrix(self, ref: Any, *indices: Any, width: int) -> Pieces:
        """Rows of a matrix ref [.., outputs, width]; the last of `indices` are the rows, int32 [output_tile]."""
        *leading, rows = indices
        return [read(ref, *leading, rows[:, None], span(start, size)[None]) for start, size in pieces(width)]

    def norm(self, blocks: Pieces, *index: Number, name: str) -> Pieces:
        """RMSNorm of rows, as in models/backbone.py; the scale is that of refs[name] at `index`."""
        D = self.sizes.config.embed_dim
        wide = [block.astype(jnp.float32) for block in blocks]
        mean_square = sum_of((block * block).sum(axis=1) for block in wide)[:, None] / D
        factor = jax.lax.rsqrt(mean_square + 1e-6)
        scales = [read(self.refs[name], *index, span(start, size))[None] for start, size in pieces(D)]
        return [(block * factor * scale).astype(jnp.bfloat16) for block, scale in zip(wide, scales, strict=True)]

    def _project(self, barrier: Number, layer: jax.Array, first: Number) -> None:
        """Queries, keys and values of the token, before rotation."""
        sizes, refs, D = self.sizes, self.refs, self.sizes.config.embed_dim
        queries = sizes.query_width
        of_token = 0 if sizes.config.kv_sharing != "as_kvhs" or sizes.tokens_read > 1 else first
        skipped = of_token * sizes.token_width  # outputs of the attributes before this one

        def weights(columns: jax.Array) -> list[Pieces]:
            row = jnp.where(columns < queries, columns, columns + skipped)
            return [self.matrix(refs["queries_keys_values"], layer, row, width=D)]

        def inputs(rows: jax.Array) -> Pieces:
            return self.norm(self.blocks(refs["x"], rows, D), layer, name="attention_scales")

        self.product(barrier, queries + sizes.tokens_read * sizes.token_width, weights, inputs, self._write_to("qkv"))

    def _write_to(self, name: str) -> Callable[..., None]:
        def finish(rows: jax.Array, columns: jax.Array, product: jax.Array) -> None:
            write(self.refs[name], product, rows[:, None], columns[None], mask=self.is_row(rows))

        return finish

    def add_to(self, name: str) -> Callable[..., None]:
        """Adds a product, rounded as the model does, to refs[name]."""

        def finish(rows: jax.Array, columns: jax.Array, product: jax.Array) -> None:
            index, mask = (rows[:, None], columns[None]), self.is_row(rows)
            before = read(self.refs[name], *index, mask=mask, fresh=True)
            write(self.refs[name], before + product.astype(before.dtype), *index, mask=mask)

        return finish

    # Attention

    def _attend(self, barrier: Number, layer: jax.Array, first: Number) -> None:
        sizes = self.sizes

        def load(item: jax.Array) -> tuple[Part, tuple[Pieces, Pieces]]:
            split, group, row = item % sizes.splits, item // sizes.splits % sizes.groups, item // (sizes.groups * sizes.splits)
            part = Part.of(sizes, layer, first, row, group, split, read(self.refs["length"], row))
            return part, self._cached(part, 0)

        items = sizes.rows * sizes.groups * sizes.splits
        self.grid.phase(barrier, items, load, lambda item, loaded: self._attend_to(*loaded))

    def _cached(self, part: Part, number: Number) -> tuple[Pieces, Pieces]:
        """Keys and values of one tile of a part: those that are in the cache."""
        keys = part.keys(self.sizes, number)
        index = (part.row, part.layer, part.group, keys[:, None], 0)
        keys, values = (self._halves(self.refs[name], *index, mask=(keys < part.cached)[:, None]) for name in ("keys", "values"))
        return keys, values

    def _attend_to(self, part: Part, loaded: tuple[Pieces, Pieces]) -> None:
        """The query heads of one KV group attend to one part of its keys, the token's own ones among them."""
        sizes, refs, config = self.sizes, self.refs, self.sizes.config
        row, lanes = part.row, span(0, sizes.half_tile)
        rope = [read(refs[name], row, lanes, mask=self._is_half)[None] for name in ("cos", "sin")]
        heads = span(0, sizes.head_tile)
        is_head = (heads < sizes.heads_in_group)[:, None]
        start = (part.group * sizes.heads_in_group + heads)[:, None] * config.head_dim
        queries = rotate(*self._halves(refs["qkv"], row, start, mask=is_head, fresh=True), *rope)
        queries = [half * jnp.asarray(config.head_dim**-0.5, jnp.bfloat16) for half in queries]

        new = []  # keys and values of the token, each two halves [1, half_tile]
        for index in range(sizes.new_keys):
            column = jnp.reshape(part.columns[index], (1, 1))
            keys = rotate(*self._halves(refs["qkv"], row, column, mask=part.has_new, fresh=True), *rope)
            values = column + config.cached_kv_heads * config.head_dim
            new.append((keys, self._halves(refs["qkv"], row, values, mask=part.has_new, fresh=True)))
            place = part.place + index
            is_here = part.has_new & (part.start <= place) & (place < part.start + sizes.split_keys)
            for name, halves in zip(("keys", "values"), new[-1], strict=True):
                for half, vector in enumerate(halves):
                    index_of = (row, part.layer, part.group, place, half * sizes.half + lanes)
                    write(refs[name], vector[0], *index_of, mask=self._is_half & is_here)

        own = heads // sizes.heads_in_own_group  # the attribute that an own-scope head attends to

        def add(number: Number, loaded: tuple[Pieces, Pieces], carry: tuple) -> tuple:
            """One more tile of keys in the softmax, whose running maximum, sum and averages are `carry`."""
            (peak, total, *averages), (keys, values) = carry, loaded
            places = part.keys(sizes, number)
            for index, vectors in enumerate(new):
                is_new = (places == part.place + index)[:, None] & part.has_new
                keys, values = (
                    [jnp.where(is_new, vector, half) for vector, half in zip(*pair, strict=True)]
                    for pair in zip(vectors, (keys, values), strict=True)
                )
            mask = jnp.broadcast_to((places < part.visible)[None], (sizes.head_tile, sizes.key_tile))
            if sizes.own_groups:
                attribute = places % sizes.keys_in_group
                mask &= (own >= sizes.own_groups)[:, None] | (own[:, None] == attribute[None])
            scores = jnp.where(mask, dot(queries[0], keys[0]) + dot(queries[1], keys[1]), NEG_INF)
            higher = jnp.maximum(peak, scores.max(axis=1))
            shrink, weights = jnp.exp(peak - higher), jnp.exp(scores - higher[:, None])
            total = total * shrink + weights.sum(axis=1)
            weights = weights.astype(jnp.bfloat16)
            parts = [jax.lax.dot(weights, half, preferred_element_type=jnp.float32) for half in values]
            return higher, total, *(old * shrink[:, None] + part for old, part in zip(averages, parts, strict=True))

        empty = jnp.zeros((sizes.head_tile, sizes.half_tile), jnp.float32)
        carry = (jnp.full(sizes.head_tile, MIN_ROW_MAX, jnp.float32), jnp.zeros(sizes.head_tile, jnp.float32), empty, empty)
        last = jnp.int32(0)
        if sizes.split_keys > sizes.key_tile:

            def more(number: jax.Array, state: tuple) -> tuple:
                loaded, carry = state
                following = self._cached(part, number + 1)  # on its way while this tile is computed
                return following, add(number, loaded, carry)

            visible = jnp.clip(part.visible - part.start, 0, sizes.split_keys)
            last = jnp.maximum((visible + sizes.key_tile - 1) // sizes.key_tile - 1, 0)
            loaded, carry = jax.lax.fori_loop(0, last, more, (loaded, carry))
        peak, total, *averages = add(last, loaded, carry)

        if sizes.splits == 1:
            for half, average in enumerate(averages):
                columns = start + half * sizes.half + lanes[None]
                average /= jnp.maximum(total, 1e-30)[:, None]
                write(refs["attended"], average, row, columns, mask=is_head & self._is_half[None])
            return
        place = (row * sizes.splits + part.split) * config.num_heads + part.group * sizes.heads_in_group + heads
        write(refs["peaks"], peak, place, mask=is_head[:, 0])
        write(refs["totals"], total, place, mask=is_head[:, 0])
        for half, average in enumerate(averages):
            columns = place[:, None] * config.head_dim + half * sizes.half + lanes[None]
            write(refs["averages"], average, columns, mask=is_head & self._is_half[None])

    def _join(self, barrier: Number) -> None:
        """Joins the parts of each head's keys."""
        sizes, refs, config = self.sizes, self.refs, self.sizes.config

        def run(item: jax.Array, _: None) -> None:
            row, head = item // config.num_heads, item % config.num_heads
            splits, lanes = span(0, power_of_two(sizes.splits, 1)), span(0, power_of_two(config.head_dim))
            places, is_split, is_lane = (row * sizes.splits + splits) * config.num_heads + head, splits < sizes.splits, lanes < config.head_dim
            peaks = jnp.where(is_split, read(refs["peaks"], places, mask=is_split, fresh=True), MIN_ROW_MAX)
            totals = read(refs["totals"], places, mask=is_split, fresh=True)
            columns = places[:, None] * config.head_dim + lanes[None]
            averages = read(refs["averages"], columns, mask=is_split[:, None] & is_lane[None], fresh=True)
            weights = jnp.exp(peaks - peaks.max(axis=0))
            joined = (averages * weights[:, None]).sum(axis=0) / jnp.maximum((totals * weights).sum(axis=0), 1e-30)
            write(refs["attended"], joined, row, head * config.head_dim + lanes, mask=is_lane)

        self.grid.phase(barrier, sizes.rows * config.num_heads, nothing, run)

    def _joined(self, columns: jax.Array) -> jax.Array:
        """Some columns of the attention output of the only row, bfloat16, joined as in `_join` by every program that reads them."""
        sizes, refs, config = self.sizes, self.refs, self.sizes.config
        places = [split * config.num_heads for split in range(sizes.splits)]
        heads = columns // config.head_dim
        peaks = [read(refs["peaks"], place + heads, fresh=True) for place in places]
        totals = [read(refs["totals"], place + heads, fresh=True) for place in places]
        averages = [read(refs["averages"], place * config.head_dim + columns, fresh=True) for place in places]
        peak = functools.reduce(jnp.maximum, peaks)
        weights = [jnp.exp(each - peak) for each in peaks]
        total = sum_of(part * weight for part, weight in zip(totals, weights, strict=True))
        joined = sum_of(part * weight for part, weight in zip(averages, weights, strict=True))
        return (joined / jnp.maximum(total, 1e-30)).astype(jnp.bfloat16)

    @property
    def _is_half(self) -> jax.Array:
        return span(0, self.sizes.half_tile) < self.sizes.half

    def _halves(self, ref: Any, *indices: Any, mask: jax.Array | bool, fresh: bool = False) -> Pieces:
        """Both halves of vectors of head_dim, each [.., half_tile]; the last of `indices` is where they begin."""
        *leading, start = indices
        lanes = span(0, self.sizes.half_tile)[None]
        mask = mask & self._is_half[None]
        return [read(ref, *leading, start + half * self.sizes.half + lanes, mask=mask, fresh=fresh) for half in (0, 1)]

    # After attention

    def _output(self, barrier: Number, layer: jax.Array) -> None:
        width = self.sizes.query_width
        weights = lambda columns: [self.matrix(self.refs["outputs"], layer, columns, width=width)]

        def inputs(rows: jax.Array) -> Pieces:
            if not self._joins_late:
                return self.blocks(self.refs["attended"], rows, width)
            return [self._joined(span(start, size))[None] for start, size in pieces(width)]

        self.product(barrier, self.sizes.config.embed_dim, weights, inputs, self.add_to("x"))

    def _gate_up(self, barrier: Number, layer: jax.Array) -> None:
        D, F = self.sizes.config.embed_dim, self.sizes.config.mlp_dim

        def weights(columns: jax.Array) -> list[Pieces]:
            return [self.matrix(self.refs["gates_ups"], layer, part, columns, width=D) for part in (0, 1)]

        def finish(rows: jax.Array, columns: jax.Array, gate: jax.Array, up: jax.Array) -> None:
            gate = gate.astype(jnp.bfloat16).astype(jnp.float32)
            activated = (gate / (1 + jnp.exp(-gate))).astype(jnp.bfloat16) * up.astype(jnp.bfloat16)
            write(self.refs["hidden"], activated, rows[:, None], columns[None], mask=self.is_row(rows))

        inputs = lambda rows: self.norm(self.blocks(self.refs["x"], rows, D), layer, name="mlp_scales")
        self.product(barrier, F, weights, inputs, finish)

    def _down(self, barrier: Number, layer: jax.Array) -> None:
        F = self.sizes.config.mlp_dim
        weights = lambda columns: [self.matrix(self.refs["downs"], layer, columns, width=F)]
        inputs = lambda rows: self.blocks(self.refs["hidden"], rows, F)
        self.product(barrier, self.sizes.config.embed_dim, weights, inputs, self.add_to("x"))

    def _finish(self, barrier: Number) -> None:
        D = self.sizes.config.embed_dim

        def run(row: jax.Array, _: None) -> None:
            blocks = [read(self.refs["x"], row, span(start, size), fresh=True)[None] for start, size in pieces(D)]
            normed = self.norm(blocks, name="final_scale")
            for (start, size), block in zip(pieces(D), normed, strict=True):
                write(self.refs["state"], block[0], row, span(start, size))

        self.grid.phase(barrier, self.sizes.rows, nothing, run)


def sum_of(parts: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(operator.add, parts)


def rotate(low: jax.Array, high: jax.Array, cos: jax.Array, sin: jax.Array) -> Pieces:
    """The rotary embedding of models/attention.py by halves, in bfloat16."""
    low, high = low.astype(jnp.float32), high.astype(jnp.float32)
    return [(low * cos - high * sin).astype(jnp.bfloat16), (high * cos + low * sin).astype(jnp.bfloat16)]
