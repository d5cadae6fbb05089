"""Published weights: what is written is read; what is damaged, missing or of another kind is named in one line."""

import hashlib
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from sage_jax.config import RunConfig
from sage_jax.errors import UserError
from sage_jax.weights.format import ABOUT, COMPRESSED, NUMBERS, Weights, named, read
from tests.models.small import parameters
from tests.training.tiny import tiny_config

NESTED = tiny_config(model=dict(architecture="nested", lookahead=2, kv_sharing="mqa")).to_dict()
RUN = RunConfig.from_dict(NESTED)
TRAINING = {"step": 7, "valid_nats_per_note": 3.5, "checkpoint": "best", "averaged": True, "commit": "abc", "music": "def"}
CONTENTS = {"instruments": {"0": [21, 108, 5]}, "meters": [[4, 4]]}


def weights(run=RUN):
    sampling = {"sampling": {"top_p": 0.9}}
    return Weights(parameters(run.model), run, sampling, run.tokenizer, TRAINING, CONTENTS)


@pytest.fixture
def folder(tmp_path):
    weights().write(tmp_path / "small")
    return tmp_path / "small"


@pytest.mark.parametrize(("dtype", "compress"), [("float32", False), ("bfloat16", True)])
def test_what_is_written_is_read(tmp_path, dtype, compress):
    path = weights().write(tmp_path, dtype, compress)
    assert path.name == (COMPRESSED if compress else NUMBERS)
    found = read(tmp_path)
    assert found.run == RUN and found.tokenizer == RUN.tokenizer and found.training == TRAINING
    assert found.sections["sampling"] == {"top_p": 0.9} and found.contents == CONTENTS
    wanted = named(parameters(RUN.model))
    assert found.params["head_0"].dtype == jnp.float32 and named(found.params).keys() == wanted.keys()
    for name, leaf in named(found.params).items():
        np.testing.assert_array_equal(leaf, wanted[name].astype(dtype).astype(jnp.float32))


def test_another_program_reads_the_file_and_a_second_export_replaces_the_first(folder):
    with safe_open(folder / NUMBERS, "flax") as file:
        assert set(file.keys()) == named(parameters(RUN.model)).keys()
        assert file.get_tensor("head_0").dtype == jnp.bfloat16
    weights().write(folder, compress=True)
    assert sorted(path.name for path in folder.iterdir()) == sorted([ABOUT, COMPRESSED])
    assert len(jax.tree.leaves(read(folder).params)) == len(jax.tree.leaves(parameters(RUN.model)))


def test_damage_is_named(folder):
    about, numbers = (folder / ABOUT).read_bytes(), bytearray((folder / NUMBERS).read_bytes())
    numbers[-1] ^= 1
    (folder / NUMBERS).write_bytes(numbers)
    with pytest.raises(UserError, match=r"small/model\.safetensors is damaged: its sha256 is not that of model\.json"):
        read(folder)
    (folder / NUMBERS).unlink()
    with pytest.raises(UserError, match=r"small/model\.safetensors can't be read \(No such file"):
        read(folder)
    (folder / ABOUT).write_bytes(about.replace(b'"step": 7', b'"step": 8'))
    with pytest.raises(UserError, match=r"model\.json is damaged: its sha256"):
        read(folder)
    (folder / ABOUT).write_bytes(about[:99])
    with pytest.raises(UserError, match=r"model\.json is damaged \(JSONDecodeError"):
        read(folder)
    (folder / ABOUT).unlink()
    with pytest.raises(UserError, match=r"model\.json is missing"):
        read(folder)


def forge(folder, **changes):
    """model.json with other entries and their digest, as another version of sage_jax would write it."""
    about = json.loads((folder / ABOUT).read_text())
    del about["sha256"]
    for name, value in changes.items():
        about[name] = {**about[name], **value} if isinstance(value, dict) else value
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    (folder / ABOUT).write_text(json.dumps({**about, "sha256": digest}))


def test_weights_of_another_kind_are_refused(folder):
    model = json.loads((folder / ABOUT).read_text())["config"]["model"]
    for changes, message in (
        (dict(format=2), "has format 2, and this version of sage_jax reads 1"),
        (dict(tokenizer={"fingerprint": "0"}), "small was trained with another vocabulary"),
        (dict(config={"model": {**model, "num_layers": 2}}), "lacks block_1/attention/key_value"),
        (dict(config={"model": {**model, "embed_dim": 8}}), "has another shape of"),
        (dict(config={"model": {**model, "kv_sharing": "as_kvhs"}}), "lacks block_0/attention/key_value_0"),
        (dict(config={"model": {**model, "wings": 2}}), r"is for another version of sage_jax: config\.model\.wings"),
    ):
        weights().write(folder)
        forge(folder, **changes)
        with pytest.raises(UserError, match=message):
            read(folder)


HIDDEN = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("orbax", "optax", "grain"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
import sage_jax
print(sage_jax.load(sys.argv[1]))
"""


@pytest.mark.process
def test_weights_are_read_without_orbax(folder):
    ended = subprocess.run([sys.executable, "-c", HIDDEN, folder], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "Model(nested2-mqa, step 7)\n"
