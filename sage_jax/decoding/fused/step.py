"""The fused event step as a part of decoding: which models and devices have it, and its arguments from a decode state."""

import dataclasses
import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp

from sage_jax.decoding.fused.packing import pack_parameters
from sage_jax.decoding.fused.sizes import Sizes
from sage_jax.decoding.grammars.note_events import Grammar
from sage_jax.decoding.state import DecodeState
from sage_jax.errors import UserError
from sage_jax.models.attention import rope_frequencies
from sage_jax.models.cache import Cache
from sage_jax.models.config import ModelConfig
from sage_jax.models.pooled import EventCarry
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.note_events import NoteEvents

PARAMETERS = "fused"  # where packed parameters are among those for inference
OLDEST_GPU = 8.0  # compute capability: tensor cores with bfloat16


def resolve(config: ModelConfig, tokenizer: Tokenizer, device: Any) -> ModelConfig:
    """`config` with decode_impl "xla" or "fused" instead of "auto", for a `device` of jax or of a topology.

    "auto" is fused for nested models, for which a device showed that it is faster. A GPU without bfloat16 in its tensor cores
    gets "xla" and a warning. Raises UserError for "fused" where there is no kernel for the model or the device.
    """
    if config.decode_impl == "xla":
        return config
    reason, is_gpu = why_not(config, tokenizer), device.platform in ("gpu", "cuda")
    is_new = float(getattr(device, "compute_capability", OLDEST_GPU)) >= OLDEST_GPU
    if config.decode_impl == "auto":
        is_fused = reason is None and config.architecture == "nested" and is_gpu and is_new
        return dataclasses.replace(config, decode_impl="fused" if is_fused else "xla")
    if not is_gpu and device.platform != "cpu":
        reason = f"the kernel is for NVIDIA GPUs, and this is {device.platform}"
    if reason:
        raise UserError(f"model.decode_impl is 'fused', but {reason}; give 'xla' or 'auto'")
    if is_gpu and not is_new:
        logging.warning("model.decode_impl is 'fused', but %s is too old for it; it decodes with 'xla'", device.device_kind)
        return dataclasses.replace(config, decode_impl="xla")
    return config


def why_not(config: ModelConfig, tokenizer: Tokenizer) -> str | None:
    """Why a model has no fused event step; None if it has one."""
    if not isinstance(tokenizer, NoteEvents):
        return f"the tokenizer is {type(tokenizer).__name__}, and the kernel knows the grammar of NoteEvents"
    if config.roles:
        return "the kernel knows the grammar of NoteEvents, and not that of RoleEvents"
    if config.architecture not in ("flat", "nested"):
        return f"model.architecture is {config.architecture!r}, and there are kernels for flat and nested"
    if config.architecture == "nested" and (config.event_decoder != "mlp" or config.pooling != "sum"):
        return "there is a kernel for nested models with event_decoder 'mlp' and pooling 'sum'"
    if config.dtype != "bfloat16":
        return f"model.dtype is {config.dtype!r}, and the kernel computes in bfloat16"
    sizes = Sizes(config, 1, 64, 1)
    widths = dict(
        embed_dim=config.embed_dim,
        mlp_dim=config.mlp_dim,
        event_decoder_dim=config.event_decoder_dim,
        head_dim=2 * config.head_dim if sizes.query_width % 16 or sizes.token_width % 16 else 16,
    )
    for field, width in widths.items():
        if width % 16:
            return f"model.{field} is {getattr(config, field)}, and the kernel needs multiples of 16"
    return None


class FusedStep:
    """The event step of a model as one kernel. programs: of its grid, at most as many as the device runs at once."""

    def __init__(self, config: ModelConfig, grammar: Grammar, programs: int):
        self.config, self.grammar, self.programs = config, grammar, programs

    def pack(self, params: Any) -> Any:
        """Parameters for inference, arrays or ShapeDtypeStructs, and those of the kernel beside them."""
        pack = functools.partial(pack_parameters, self.config)
        is_abstract = isinstance(jax.tree.leaves(params)[0], jax.ShapeDtypeStruct)
        return {**params, PARAMETERS: jax.eval_shape(pack, params) if is_abstract else jax.jit(pack)(params)}

    def __call__(
        self, params: Any, state: DecodeState, grammar: Any, noise: jax.Array, present: jax.Array
    ) -> tuple[Any, Cache, jax.Array]:
        """As `Backbone.event_step`: the carry, the cache with the lengths of before, and the event, int32 [B, A].

        grammar: its state before the event. noise: float32 [B, V] of all attributes. present: int32 [B, A], the event that a
        row reads if it is given.
        """
        from sage_jax.decoding.fused.event_step import run_event_step  # Pallas, which other models do without

        config, cache, controls = self.config, state.cache, state.controls
        length = cache.length
        nested = config.architecture == "nested"
        cos, sin = rope_frequencies(length[:, None], config.head_dim, config.rope_theta)
        bounds, sampling = controls.constraints, controls.sampling
        numbers = [*jax.tree.leaves(grammar), bounds.first_bar, bounds.stop_bar, bounds.first_tick, bounds.stop_tick]
        numbers += [bounds.begin_before, bounds.allow_eos, sampling.top_k, length < state.known, *present.T]
        keys, values = cache.buffers[0]
        arrays = {
            "arrivals": jnp.zeros(1, jnp.int32),
            "state": state.carry.hidden if nested else state.carry,
            "event": state.carry.event if nested else jnp.zeros_like(present),
            "keys": keys,
            "values": values,
            "length": length,
            "cos": cos[:, 0],
            "sin": sin[:, 0],
            "numbers": jnp.stack([number.astype(jnp.int32) for number in numbers], axis=1),
            "settings": jnp.stack([sampling.temperature, sampling.top_p, sampling.min_p], axis=1),
            "playable": self.grammar.playable(bounds).astype(jnp.int8),
            "limits": bounds.pitches,
            "noise": noise,
            **params[PARAMETERS],
        }
        sizes = Sizes(config, len(length), cache.max_events, self.programs)
        # On a CPU the kernel is interpreted, which is for tests.
        found = jax.lax.platform_dependent(
            arrays,
            cpu=functools.partial(run_event_step, sizes, self.grammar, interpret=True),
            default=functools.partial(run_event_step, sizes, self.grammar),
        )
        carry, event = found["state"], found["event"]
        if nested:
            # As after the last token: the carry has those that were predicted after the layers ran.
            is_read = jnp.arange(config.num_attributes)[None] >= (config.lookahead or config.num_attributes)
            carry = EventCarry(carry, jnp.where(is_read, event, 0))
        return carry, cache.replace(buffers=((found["keys"], found["values"]),)), event
