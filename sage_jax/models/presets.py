"""Models and tokenizers by name, as configs, studies and benchmarks select them."""

from collections.abc import Mapping
from typing import Any

from sage_jax.errors import UserError
from sage_jax.models.config import ARCHITECTURES, EVENT_DECODERS, POOLINGS, ModelConfig
from sage_jax.tokenizers.note_events import NoteEvents

# The published size of the Multitrack Music Transformer. Other systems take the size of the models they are compared with.
MMT_SIZE = dict(embed_dim=512, num_layers=6, num_heads=8, head_dim=64, mlp_dim=2048)
SHARINGS = {
    "mha": dict(kv_sharing="mha"),
    "gqa-5": dict(kv_sharing="gqa", num_kv_heads=5),
    "gqa-2": dict(kv_sharing="gqa", num_kv_heads=2),
    "mqa": dict(kv_sharing="mqa"),
    **{
        f"as_kvhs-{scope}-{heads}": dict(kv_sharing="as_kvhs", attribute_scope=scope, kv_heads_per_attribute=heads)
        for scope in ("all", "own", "mixed")
        for heads in (1, 2, 4)
    },
}

# Systems with fields beyond an architecture and a KV sharing: the config sections that each overrides.
NAMED = {
    "nested": {"model": {"architecture": "nested", "kv_sharing": "mqa"}},
    "nested-gru": {"model": {"architecture": "nested", "event_decoder": "gru", "kv_sharing": "mqa"}},
    "nested-attention": {"model": {"architecture": "nested", "event_decoder": "attention", "kv_sharing": "mqa"}},
    "pooled": {"model": {"architecture": "pooled", "kv_sharing": "mha"}},
    "octuple": {"model": {"architecture": "pooled", "pooling": "concat", "kv_sharing": "mha"}},
    "compound": {"model": {"architecture": "compound", "pooling": "concat", "kv_sharing": "mha"}},
    "delay": {"model": {"architecture": "delay", "kv_sharing": "mha"}},
    "mmt": {
        "model": {"architecture": "pooled", "kv_sharing": "mha"},
        "representation": {"name": "mmt", "steps_per_event": 1.25},
    },
    "remi": {"model": {"kv_sharing": "mha"}, "representation": {"name": "remi"}},
}
BPE_STEPS_PER_EVENT = 4.0  # length of a crop of merged REMI+ in steps per event; the fewest merges (500) need the most


def config_sections(name: str) -> dict[str, dict[str, Any]]:
    """The config sections that the system `name` overrides: one of NAMED, bpeN, or a name that `model_fields` knows.

    bpeN is REMI+ with N additional ids from byte-pair encoding. Raises UserError for an unknown name.
    """
    merges = name.removeprefix("bpe")
    if name in NAMED:
        return {section: dict(fields) for section, fields in NAMED[name].items()}
    if merges != name and merges.isdecimal():
        representation = {"name": "remi", "merges": int(merges), "steps_per_event": BPE_STEPS_PER_EVENT}
        return {"model": {"kv_sharing": "mha"}, "representation": representation}
    return {"model": model_fields(name)}


def model_fields(name: str) -> dict[str, Any]:
    """The fields of ModelConfig for a name as ModelConfig.name gives it. Raises UserError for an unknown name.

    The name is a KV sharing for a flat model, else ARCHITECTURE[LOOKAHEAD][-EVENT_DECODER][-POOLING]-SHARING, without what has
    its default: mha, nested-mqa, nested2-as_kvhs-mixed-1, nested-gru-mqa, pooled-concat-mha.
    """
    if name in SHARINGS:
        return {"architecture": "flat", "lookahead": 0, **SHARINGS[name]}
    prefix, *parts = name.split("-")
    architecture = prefix.rstrip("0123456789")
    fields: dict[str, Any] = {"architecture": architecture, "lookahead": int(prefix[len(architecture) :] or 0)}
    for field, known in (("event_decoder", EVENT_DECODERS), ("pooling", POOLINGS)):
        if parts and parts[0] in known:
            fields[field] = parts.pop(0)
    sharing = "-".join(parts)
    if architecture not in ARCHITECTURES[1:] or sharing not in SHARINGS:
        raise UserError(
            f"there is no system called {name!r}; choose from {', '.join((*NAMED, 'bpe2000', *SHARINGS))}, or put "
            f"{', '.join(ARCHITECTURES[1:])} and a hyphen before one of {', '.join(SHARINGS)}"
        )
    return {**fields, **SHARINGS[sharing]}


def model_config(system: str, sizes: Mapping[str, Any], dtype: str) -> ModelConfig:
    """The model of the system `system` over NoteEvents. Raises UserError for an unknown name or impossible sizes."""
    return ModelConfig(vocab_sizes=NoteEvents().vocab_sizes, dtype=dtype, **sizes, **model_fields(system))
