"""The fused event step, interpreted on the CPU: the events, cache and carry that the model's own event step gives."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from sage_jax.decoding.engine import Engine
from sage_jax.decoding.fused.grid import Grid, write
from sage_jax.decoding.fused.step import resolve
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.models.attend import implementation_of
from sage_jax.models.registry import abstract_params
from sage_jax.tokenizers.mmt import Mmt
from sage_jax.tokenizers.note_events import NoteEvents
from tests.decoding.small import FLAT, NESTED, PROMPTS, TOKENIZER, controls_of
from tests.models.small import parameters, tiny_config

H100 = types.SimpleNamespace(platform="gpu", core_count=132, compute_capability="9.0", device_kind="NVIDIA H100")
FOUR_TRACKS = NoteEvents(tracks_per_program=4)
STEPS, QUEUED = 5, 2  # of which the first two read queued events
SIZES = dict(embed_dim=48, num_layers=2, head_dim=16, mlp_dim=96, dtype="bfloat16")


def floats(array: jax.Array) -> np.ndarray:
    return np.asarray(array).astype(np.float32)


def decoded(fields: dict, rows: int, impl: str, tokenizer: NoteEvents) -> tuple[list[np.ndarray], Engine]:
    """What each event step shows, and the engine after them. Rows have prompts, seeds and lengths of their own."""
    config = dataclasses.replace(tiny_config(vocab_sizes=tokenizer.vocab_sizes), **SIZES | fields, decode_impl=impl)
    device = types.SimpleNamespace(platform="cpu", core_count=H100.core_count)
    engine = Engine(config, parameters(config), tokenizer, context=127, rows=rows, chunk=8, first_capacity=128, device=device)
    whole, tracks = tokenizer.encode(TOKENIZER.decode(PROMPTS[1])), tokenizer.tracks_per_program
    for row in range(rows):
        length = 8 * (row + 1) + QUEUED
        controls = controls_of(row, SamplingConfig(top_k=50, top_p=0.9), tracks_per_program=tracks)
        engine.edit(row, 0, whole[:length], controls)
        for _ in range(row + 1):
            engine.prefill(row)
    return [np.array(engine.decode(1)) for _ in range(STEPS)], engine


# Programs enough for several parts of the keys: one row joins them when it reads them, several rows in a phase of its own.
@pytest.mark.parametrize(
    ("rows", "fields", "tokenizer"),
    [
        (1, NESTED, FOUR_TRACKS),
        (3, dict(kv_sharing="as_kvhs", attribute_scope="mixed"), TOKENIZER),
        (2, dict(attribute_scope="own", num_layers=1), TOKENIZER),
    ],
    ids=["nested", "mixed", "own"],
)
def test_it_is_the_models_event_step(rows, fields, tokenizer):
    shown, expected = (decoded(fields, rows, impl, tokenizer) for impl in ("fused", "xla"))
    np.testing.assert_array_equal(shown[0], expected[0])
    state, other = shown[1].state, expected[1].state
    for one, two in zip(jax.tree.leaves(state.carry), jax.tree.leaves(other.carry), strict=True):
        np.testing.assert_allclose(floats(one), floats(two), atol=0.3)  # roundings of bfloat16, numbers of up to 10
    length = int(other.cache.length.min())
    for layer in range(shown[1].config.num_layers):
        pairs = (each.cache.layout.layer(each.cache.buffers, layer) for each in (state, other))
        for one, two in zip(*pairs, strict=True):
            axis = one.shape.index(max(one.shape))
            filled = [floats(each).take(range(length), axis) for each in (one, two)]
            np.testing.assert_allclose(*filled, atol=0.1)


@pytest.mark.parametrize("tiles", [1, 3, 7])
def test_programs_share_the_tiles_of_a_phase(monkeypatch, tiles):
    monkeypatch.setattr(Grid, "barrier", lambda self, number: None)  # interpreted programs run one after another

    def kernel(taken):
        program = pl.program_id(0)
        phase = Grid(3, program, None, None).phase
        phase(0, tiles, lambda tile: 10 * tile, lambda tile, loaded: write(taken, loaded + program, tile))

    specs = pl.BlockSpec(memory_space=pl.ANY)
    shape = jax.ShapeDtypeStruct((tiles,), jnp.int32)
    taken = pl.pallas_call(kernel, out_shape=shape, grid=(3,), out_specs=specs, interpret=True)()
    assert taken.tolist() == [10 * tile + tile % 3 for tile in range(tiles)]


@pytest.mark.parametrize(("fields", "tokenizer"), [(NESTED, FOUR_TRACKS), (FLAT, TOKENIZER)], ids=["nested", "flat"])
def test_it_is_lowered_to_one_kernel_of_a_gpu(fields, tokenizer):
    config = dataclasses.replace(tiny_config(vocab_sizes=tokenizer.vocab_sizes, **fields), **SIZES, decode_impl="fused")
    engine = Engine(config, abstract_params(config), tokenizer, context=127, device=H100)
    function, arguments, _ = engine.definition("event_step", 1, 128)
    device = AbstractDevice(H100.device_kind + " 80GB HBM3", H100.core_count, H100.platform)
    with jax.sharding.use_abstract_mesh(AbstractMesh((1,), ("device",), (AxisType.Auto,), abstract_device=device)):
        text = jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("@__gpu$xla.gpu.triton") == 1


def test_a_device_and_a_model_decide():
    nested, flat = (dataclasses.replace(tiny_config(**fields), **SIZES) for fields in (NESTED, FLAT))
    impl = lambda config, device, **changes: resolve(dataclasses.replace(config, **changes), TOKENIZER, device).decode_impl
    cpu = types.SimpleNamespace(platform="cpu")
    assert impl(nested, H100) == "fused" and implementation_of(resolve(nested, TOKENIZER, H100)) != implementation_of(nested)
    assert impl(nested, cpu) == impl(flat, H100) == impl(nested, H100, decode_impl="xla") == "xla"
    assert impl(nested, H100, dtype="float32") == impl(nested, H100, event_decoder="gru") == "xla"
    assert impl(flat, H100, decode_impl="fused") == impl(flat, cpu, decode_impl="fused") == "fused"


def test_an_old_gpu_falls_back(caplog):
    old = types.SimpleNamespace(platform="gpu", compute_capability="7.0", device_kind="Tesla V100")
    config = dataclasses.replace(tiny_config(**NESTED), **SIZES, decode_impl="fused")
    assert resolve(config, TOKENIZER, old).decode_impl == "xla"
    assert "Tesla V100 is too old for it" in caplog.text


@pytest.mark.parametrize(
    ("changes", "tokenizer", "device", "message"),
    [
        (dict(dtype="float32"), TOKENIZER, H100, "model.dtype is 'float32', and the kernel computes in bfloat16"),
        (dict(architecture="pooled", lookahead=0), TOKENIZER, H100, "model.architecture is 'pooled', and there are kernels"),
        (dict(mlp_dim=100), TOKENIZER, H100, "model.mlp_dim is 100, and the kernel needs multiples of 16"),
        ({}, Mmt(), H100, "the tokenizer is Mmt"),
        ({}, TOKENIZER, types.SimpleNamespace(platform="tpu"), "the kernel is for NVIDIA GPUs, and this is tpu"),
    ],
)
def test_what_it_cannot_do_is_an_error(changes, tokenizer, device, message):
    config = dataclasses.replace(tiny_config(**NESTED), **SIZES, decode_impl="fused")
    with pytest.raises(UserError, match=f"model.decode_impl is 'fused', but {message}.*; give 'xla' or 'auto'"):
        resolve(dataclasses.replace(config, **changes), tokenizer, device)
