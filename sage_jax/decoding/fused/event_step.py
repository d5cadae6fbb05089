"""A whole event step as one kernel: embeddings, layers, event decoder, grammar and sampling. Letters as in sizes.py."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from sage_jax.decoding.fused.attributes import Attributes
from sage_jax.decoding.fused.grid import Grid, Number
from sage_jax.decoding.fused.layers import Layers
from sage_jax.decoding.fused.sizes import Sizes
from sage_jax.decoding.grammars.note_events import Grammar

# Arrays that the kernel both reads and writes.
UPDATED = ("arrivals", "state", "event", "keys", "values")


def run_event_step(
    sizes: Sizes, grammar: Grammar, arrays: dict[str, jax.Array], interpret: bool = False
) -> dict[str, jax.Array]:
    """One event of every row. arrays: by the names of layers.py and attributes.py, and

    arrivals: int32 [1], zero. state: bfloat16 [B, D]. event: int32 [B, A], the last event as far as the next one's input has
    it. keys, values: bfloat16 [B, L, G, M, h]. length: int32 [B]. cos, sin: float32 [B, h / 2] at each row's length. numbers:
    int32 [B, 13 + A], the grammar's state, bounds, top-k, whether the next event is given, and that event. settings: float32
    [B, 3], temperature, top-p and min-p. playable: int8 [B, V]. limits: int32 [B, 129, 2], of pitches. noise: float32 [B, V] of
    all attributes.

    Returns what `UPDATED` names, with the event in `event`.
    """
    outputs = {name: jax.ShapeDtypeStruct(arrays[name].shape, arrays[name].dtype) for name in UPDATED} | _scratch(sizes)
    names = [*arrays, *outputs]
    programs = 1 if interpret else sizes.programs  # interpreted programs run one after another, and none can wait

    def kernel(*refs: Any) -> None:
        by_name = dict(zip(names, refs, strict=True))  # of an updated array the output, which is the input's memory
        grid = Grid(programs, pl.program_id(0), by_name["arrivals"], by_name["seen"])
        layers = Layers(sizes, grid, by_name)
        _event_step(sizes, layers, Attributes(layers, grammar, by_name))

    inputs = list(arrays)
    found = pl.pallas_call(
        kernel,
        out_shape=list(outputs.values()),
        grid=(programs,),
        in_specs=[pl.BlockSpec(memory_space=pl.ANY)] * len(arrays),
        out_specs=[pl.BlockSpec(memory_space=pl.ANY)] * len(outputs),
        input_output_aliases={inputs.index(name): number for number, name in enumerate(outputs) if name in UPDATED},
        compiler_params=plgpu.CompilerParams(num_warps=sizes.warps, num_stages=1),
        interpret=interpret,
        name="event_step",
    )(*arrays.values())
    return {name: array for name, array in zip(outputs, found, strict=True) if name in UPDATED}


def _event_step(sizes: Sizes, layers: Layers, attributes: Attributes) -> None:
    """The phases of an event, in the order of `Backbone.event_step` of each architecture."""
    config, barrier = sizes.config, 0

    def read_token(attribute: Number, at: Number) -> None:
        attributes.embed(at, attribute)
        layers.run(at + 1, attribute)
        attributes.pending = None

    if config.architecture == "flat":
        barriers = attributes.barriers + 1 + layers.barriers

        def token(attribute: jax.Array, _: None) -> None:
            at = attribute * barriers
            choices = [functools.partial(attributes.choose, attribute=other) for other in range(config.num_attributes)]
            jax.lax.switch(attribute, choices, at)
            read_token(attribute, at + attributes.barriers)

        jax.lax.fori_loop(0, config.num_attributes, token, None)
        return
    for attribute in range(config.num_attributes):
        attributes.choose(barrier, attribute)
        barrier += attributes.barriers
        if attribute == config.decode_order[-1]:
            read_token(attribute, barrier)
            barrier += 1 + layers.barriers
    if attributes.pending is not None:
        attributes.settle(barrier)


def _scratch(sizes: Sizes) -> dict[str, jax.ShapeDtypeStruct]:
    """Arrays that the kernel writes before it reads them."""
    config, B = sizes.config, sizes.rows
    bfloat16 = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.bfloat16)
    float32 = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    parts = B * sizes.splits * config.num_heads
    return {
        "seen": jax.ShapeDtypeStruct((sizes.programs,), jnp.int32),
        "x": bfloat16((B, config.embed_dim)),
        "qkv": bfloat16((B, sizes.query_width + sizes.tokens_read * sizes.token_width)),
        "attended": bfloat16((B, sizes.query_width)),
        "hidden": bfloat16((B, max(config.mlp_dim, config.event_decoder_dim or config.embed_dim))),
        "logits": float32((B, max(config.vocab_sizes))),
        "peaks": float32((parts,)),
        "totals": float32((parts,)),
        "averages": float32((parts * config.head_dim,)),
    }
