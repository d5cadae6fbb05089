"""Export of a run, and the ways to use what it wrote: load, sample, fine-tune."""

import dataclasses

import jax
import numpy as np
import pytest

import sage_jax
from sage_jax.config import RunConfig
from sage_jax.corpus.preprocess import preprocess
from sage_jax.errors import UserError
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.training.checkpoint import load_for_sampling
from sage_jax.training.initial_weights import load_initial
from sage_jax.weights import saved_model
from sage_jax.weights.export import export
from sage_jax.weights.format import named, read
from sage_jax.weights.saved_model import SavedModel
from tests.music.midi_files import write_pieces
from tests.training.tiny import tiny_config
from tests.training.untrained import save_untrained

pytestmark = pytest.mark.usefixtures("quick_init")
NESTED = dict(architecture="nested", lookahead=2, kv_sharing="mqa", dtype="bfloat16")


def config(folder, **changes):
    made = tiny_config(model={**NESTED, **changes}, data=dict(shards=str(folder / "data"), corpus=f"folder:{folder}"))
    made.train.ema_decay = 0.9
    return made


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, quick_init):
    """A run with an average, its shards elsewhere."""
    folder = tmp_path_factory.mktemp("run")
    write_pieces(folder, 6)
    preprocess(f"folder:{folder}", folder / "data", NoteEvents(), show_progress=False)
    save_untrained(config(folder), folder / "run")
    return folder / "run"


def test_an_export_is_the_run_without_the_paths_of_this_machine(workdir, tmp_path):
    found = export(workdir, tmp_path / "small", dtype="float32")
    assert not found.remarks and str(workdir.parent) not in (tmp_path / "small" / "model.json").read_text()
    weights, (params, run, step, tokenizer) = read(tmp_path / "small"), load_for_sampling(workdir)
    assert weights.run.model == dataclasses.replace(run.model, dtype="float32") and weights.tokenizer == tokenizer
    assert weights.training["step"] == step == 1 and weights.training["averaged"]
    assert (
        weights.sections["continuation"]["num_samples"] == 2 and weights.contents["instruments"] and weights.contents["meters"]
    )
    for name, leaf in named(weights.params).items():
        np.testing.assert_array_equal(leaf, named(params)[name])
    assert SavedModel.open(tmp_path / "small").music == SavedModel.open(workdir).music


def test_a_name_of_shipped_weights_is_loaded_like_their_folder(workdir, tmp_path, monkeypatch):
    export(workdir, tmp_path / "shipped" / "tiny")
    monkeypatch.setattr(saved_model, "SHIPPED", tmp_path / "shipped")
    by_name, by_folder = sage_jax.load("tiny"), sage_jax.load(tmp_path / "shipped" / "tiny")
    assert repr(by_name) == repr(by_folder) == "Model(nested2-mqa, step 1)"
    assert by_name.run.model.dtype == "bfloat16" and by_name.engine(1).config.dtype == "float32"  # on this CPU
    assert all(map(np.array_equal, jax.tree.leaves(by_name.params), jax.tree.leaves(by_folder.params)))
    with pytest.raises(UserError, match=r"there is no model in huge; .*\(the names of weights here are tiny\)"):
        sage_jax.load("huge")


def test_fine_tuning_refuses_another_architecture_or_tokenizer_by_name(workdir, tmp_path):
    export(workdir, tmp_path / "small", dtype="float32")

    def load(tokenizer=None, **changes):
        made = config(workdir.parent, **changes)
        made.train.init_from = str(tmp_path / "small")
        made.tokenizer.update(tokenizer or {})
        run = RunConfig.from_dict(made.to_dict())
        return load_initial(run, run.tokenizer)

    loaded = load(dropout_residual=0.5, remat="full", decode_impl="xla", dtype="float32")
    assert named(loaded).keys() == named(read(tmp_path / "small").params).keys()
    with pytest.raises(UserError, match=r"whose model\.mlp_dim is 16 and not 24; set --config\.model\.mlp_dim=16"):
        load(mlp_dim=24)
    with pytest.raises(UserError, match=r"whose tokenizer\.num_velocities is 32 and not 16"):
        load(tokenizer=dict(num_velocities=16))


def test_an_export_without_shards_says_what_is_missing(workdir, tmp_path):
    save_untrained(tiny_config(model=NESTED), tmp_path / "alone")
    found = export(tmp_path / "alone", tmp_path / "small")
    assert "give --shards" in found.remarks[0] and found.weights.contents == {}
    with pytest.raises(UserError, match="holds no token shards"):
        export(tmp_path / "alone", tmp_path / "small", shards=tmp_path / "nowhere")
    with pytest.raises(UserError, match="has published weights already"):
        export(tmp_path / "small", tmp_path / "again")
    with pytest.raises(UserError, match="--dtype is 'int8'; choose one of float32, bfloat16"):
        export(workdir, tmp_path / "small", dtype="int8")
