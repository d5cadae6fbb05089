"""Parameters and numbers of rows in the arrays that a fused event step reads."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.models.config import ModelConfig
from sage_jax.models.instruments import full_table


def pack_parameters(config: ModelConfig, params: Any) -> dict[str, jax.Array]:
    """The parameters of a flat or nested model by the names of layers.py and attributes.py.

    Matrices are bfloat16 [outputs, inputs], scales and input embeddings float32. Query heads that attend to one KV group are
    neighbours.
    """
    D, H, h = config.embed_dim, config.num_heads, config.head_dim
    blocks = [params[f"block_{layer}"] for layer in range(config.num_layers)]
    heads = _heads_by_group(config)
    bf16 = lambda array: jnp.asarray(array, jnp.bfloat16)

    def queries_keys_values(block: Any) -> jax.Array:
        attention = block["attention"]
        query = bf16(attention["query"]).reshape(D, H, h)[:, heads].reshape(D, H * h)
        names = sorted(name for name in attention if name.startswith("key_value"))
        return jnp.concatenate([query, *(bf16(attention[name]).reshape(D, -1) for name in names)], axis=1).T

    def stack(function) -> jax.Array:
        return jnp.stack([function(block) for block in blocks])

    f32 = lambda array: jnp.asarray(array, jnp.float32)
    attributes = range(config.num_attributes)
    packed = {
        "attention_scales": stack(lambda block: f32(block["attention_norm"]["scale"])),
        "mlp_scales": stack(lambda block: f32(block["mlp_norm"]["scale"])),
        "queries_keys_values": stack(queries_keys_values),
        "outputs": stack(lambda block: bf16(block["attention"]["output"]).reshape(H, h, D)[heads].reshape(H * h, D).T),
        "gates_ups": stack(lambda block: bf16(block["mlp"]["gate_up"]).reshape(D, 2, -1).transpose(1, 2, 0)),
        "downs": stack(lambda block: bf16(block["mlp"]["down"]).T),
        "final_scale": f32(params["norm"]["scale"]),
        "embeddings": jnp.concatenate([f32(full_table(config, params, f"embedding_{a}", a)) for a in attributes]),
        "heads": jnp.concatenate([bf16(params[f"head_{a}"]).T for a in attributes]),
    }
    if config.architecture == "flat":
        return packed | {"attribute_embedding": f32(params["attribute_embedding"])}
    decoder = params["decoder"]
    return packed | {
        "decoder_scales": jnp.stack([f32(decoder[f"norm_{step}"]["scale"]) for step in attributes]),
        "output_scale": f32(decoder["output_norm"]["scale"]),
        "ups": jnp.stack([bf16(decoder[f"up_{step}"]).T for step in attributes]),
        "decoder_downs": jnp.stack([bf16(decoder[f"down_{step}"]).T for step in attributes]),
        "inner_embeddings": jnp.concatenate(
            [bf16(full_table(config, params, f"inner_embedding_{a}", a)) for a in config.decode_order[:-1]]
        ),
    }


def _heads_by_group(config: ModelConfig) -> np.ndarray:
    """int [H]: the model's query heads [X, K, R] in the order of their KV groups."""
    X, K = config.num_query_groups, config.cached_kv_heads
    heads = np.arange(config.num_heads).reshape(X, K, -1)
    return heads.transpose(1, 0, 2).ravel()  # by KV head, then by group of query heads: both of one KV group and of several
