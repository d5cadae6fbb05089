"""Attention of a fused event step, by parts of the keys. Sizes and letters as in sizes.py."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from sage_jax.decoding.fused.grid import Grid, Number, Pieces, dot, nothing, read, span, sum_of, write
from sage_jax.decoding.fused.sizes import Sizes, power_of_two
from sage_jax.models.grouped_attention import MIN_ROW_MAX, NEG_INF

MOST_JOINED_LATE = 4  # parts that every program joins for itself, instead of a phase that joins them


@jax.tree_util.register_dataclass
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
        by_attribute = sizes.by_attribute
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


class Attention:
    """Attention of one token of every row to the cache and to itself, as phases. refs: as in layers.py.

    queries, keys and values of the token are in qkv [B, W], and the output goes to attended [B, H h]. Where the keys of a group
    are split, peaks and totals [B splits H] and averages [B splits H h] are what the softmax gave for each part.
    """

    def __init__(self, sizes: Sizes, grid: Grid, refs: dict[str, Any]):
        self.sizes, self.grid, self.refs = sizes, grid, refs
        # Few parts of one row are joined by every program that reads them, which saves a phase.
        self.is_joined = sizes.splits == 1 or not (sizes.is_vector and sizes.splits <= MOST_JOINED_LATE)
        self.barriers = 1 + (self.is_joined and sizes.splits > 1)

    def run(self, barrier: Number, layer: jax.Array, first: Number) -> None:
        """Attends for the token of attribute `first`. Uses `barriers` barriers."""
        sizes = self.sizes

        def load(item: jax.Array) -> tuple[Part, tuple[Pieces, Pieces]]:
            split, group, row = item % sizes.splits, item // sizes.splits % sizes.groups, item // (sizes.groups * sizes.splits)
            part = Part.of(sizes, layer, first, row, group, split, read(self.refs["length"], row))
            return part, self._cached(part, 0)

        items = sizes.rows * sizes.groups * sizes.splits
        self.grid.phase(barrier, items, load, lambda item, loaded: self._attend_to(*loaded))
        if self.barriers > 1:
            self._join(barrier + 1)

    def _cached(self, part: Part, number: Number) -> tuple[Pieces, Pieces]:
        """Keys and values of one tile of a part: those that are in the cache."""
        keys = part.keys(self.sizes, number)
        index = (part.row, part.layer, part.group, keys[:, None], 0)
        mask = (keys < part.cached)[:, None]
        fresh = self.sizes.config.architecture == "flat"  # the event's earlier tokens are among them
        keys, values = (self._halves(self.refs[name], *index, mask=mask, fresh=fresh) for name in ("keys", "values"))
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
            is_split, is_lane = splits < sizes.splits, lanes < config.head_dim
            places = (row * sizes.splits + splits) * config.num_heads + head
            peaks = jnp.where(is_split, read(refs["peaks"], places, mask=is_split, fresh=True), MIN_ROW_MAX)
            totals = read(refs["totals"], places, mask=is_split, fresh=True)
            columns = places[:, None] * config.head_dim + lanes[None]
            averages = read(refs["averages"], columns, mask=is_split[:, None] & is_lane[None], fresh=True)
            weights = jnp.exp(peaks - peaks.max(axis=0))
            joined = (averages * weights[:, None]).sum(axis=0) / jnp.maximum((totals * weights).sum(axis=0), 1e-30)
            write(refs["attended"], joined, row, head * config.head_dim + lanes, mask=is_lane)

        self.grid.phase(barrier, sizes.rows * config.num_heads, nothing, run)

    def joined(self, columns: jax.Array) -> jax.Array:
        """Some columns of the attention output of the only row, bfloat16, joined as `_join` does."""
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


def rotate(low: jax.Array, high: jax.Array, cos: jax.Array, sin: jax.Array) -> Pieces:
    """The rotary embedding of models/attention.py by halves, in bfloat16."""
    low, high = low.astype(jnp.float32), high.astype(jnp.float32)
    return [(low * cos - high * sin).astype(jnp.bfloat16), (high * cos + low * sin).astype(jnp.bfloat16)]
