"""The layers of a fused event step: phases that read one token of every row. Sizes and letters as in sizes.py.

In a tile of a matrix product rows of the batch are rows, and outputs are columns. Weights are stored [outputs, inputs].
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sage_jax.decoding.fused.attention import Attention
from sage_jax.decoding.fused.grid import (
    Grid,
    Number,
    Pieces,
    dot,
    nothing,
    pieces,
    read,
    span,
    sum_of,
    sum_of_products,
    write,
)
from sage_jax.decoding.fused.sizes import Sizes


class Layers:
    """The layers as phases. refs: arrays of the kernel by name, see event_step.py.

    scales: norms float32 [L, D]. queries_keys_values [L, W, D], outputs [L, D, H h], gates_ups [L, 2, F, D], downs [L, D, F].
    x, inputs and outputs of the layers, [B, D]; qkv [B, W]; attended [B, H h]; hidden [B, F].
    """

    def __init__(self, sizes: Sizes, grid: Grid, refs: dict[str, Any]):
        self.sizes, self.grid, self.refs = sizes, grid, refs
        self.attention = Attention(sizes, grid, refs)
        self.barriers_in_layer = self.attention.barriers + 4
        self.barriers = self.barriers_in_layer * sizes.config.num_layers + 1  # of one run

    def run(self, barrier: Number, first: Number) -> None:
        """Reads the token x of attribute `first`, and leaves the normed hidden state in `state`. Uses `barriers` barriers."""

        def layer(number: jax.Array, _: None) -> None:
            at = barrier + number * self.barriers_in_layer
            self._project(at, number, first)
            self.attention.run(at + 1, number, first)
            at += 1 + self.attention.barriers
            self._output(at, number)
            self._gate_up(at + 1, number)
            self._down(at + 2, number)

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

    def add_to(self, name: str, pending: Callable[..., jax.Array] | None = None) -> Callable[..., None]:
        """Adds a product, rounded as the model does, to refs[name], after `pending` of the same rows, columns and mask."""

        def finish(rows: jax.Array, columns: jax.Array, product: jax.Array) -> None:
            index, mask = (rows[:, None], columns[None]), self.is_row(rows)
            before = read(self.refs[name], *index, mask=mask, fresh=True)
            if pending:
                before += pending(*index, mask)
            write(self.refs[name], before + product.astype(before.dtype), *index, mask=mask)

        return finish

    def _output(self, barrier: Number, layer: jax.Array) -> None:
        width = self.sizes.query_width
        weights = lambda columns: [self.matrix(self.refs["outputs"], layer, columns, width=width)]

        def inputs(rows: jax.Array) -> Pieces:
            if self.attention.is_joined:
                return self.blocks(self.refs["attended"], rows, width)
            return [self.attention.joined(span(start, size))[None] for start, size in pieces(width)]

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
