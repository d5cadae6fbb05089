"""The peers' adapters, read but not run: their packages are in an environment of their own."""

import ast
import pathlib
import re
import sys
import types
from unittest import mock

import numpy as np
import pytest

from configs.benchmark import DEMO
from sage_jax.benchmark.systems import REBUILT, model_of
from sage_jax.study.config import num_parameters

PEERS = pathlib.Path(__file__).parents[2] / "third_party" / "peers"
SOURCES = {path.stem: path.read_text(encoding="utf-8") for path in PEERS.glob("*.py")}
WORKER = "sage_jax.benchmark.worker"


def imported(name):
    """Dotted names of the modules that a file of third_party/peers imports, wherever in it."""
    for node in ast.walk(ast.parse(SOURCES[name], filename=f"{name}.py")):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}.py is run as a script: no relative imports"
            yield node.module


def requirements():
    """The peers that requirements.txt names after each package, by the name that the package is imported by."""
    lines = [line for line in (PEERS / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    matches = [re.fullmatch(r"([\w-]+)(?:\[\w+\])?==[\w.]+  # (.+)", line) for line in lines]
    assert all(matches), f"not of the form 'package==version  # peer peer': {lines}"
    return {match[1].replace("-", "_"): match[2].split() for match in matches}


ADAPTERS = sorted(name for name in SOURCES if WORKER in imported(name))


def test_there_are_adapters():
    assert {"hf_llama", "midigpt_peer", "mmt", "remi_gpt2", "torch_train", "xtransformers"} == set(ADAPTERS)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_imports_only_what_its_environment_has(name):
    for module in imported(name):
        package = module.split(".")[0]
        ours = module == WORKER or module in SOURCES
        assert ours or package in sys.stdlib_module_names or package in requirements(), f"{name}.py imports {module}"


def test_requirements_name_the_peers_that_import_each_package():
    for package, peers in requirements().items():
        importers = {name for name in ADAPTERS if package in {module.split(".")[0] for module in imported(name)}}
        assert importers <= set(peers) <= set(ADAPTERS), package


@pytest.mark.parametrize("name", ADAPTERS)
def test_readme_has_a_row_with_the_releases_of_each_adapter(name):
    readme = (PEERS / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in readme.splitlines() if line.startswith(f"| `{name}.py` |")]
    pins = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?==([\w.]+)", (PEERS / "requirements.txt").read_text(), re.MULTILINE))
    for package, version in re.findall(r"(torch|transformers|x-transformers|miditok|midigpt) (\d[\w.]*)", row):
        assert pins[package] == version


class Module:
    """In place of PyTorch's: what is asked of it to count its parameters, which are arrays of numpy."""

    def register_buffer(self, *_, **__):
        pass

    def count(self):
        def size(value):
            if isinstance(value, Module):
                return value.count()
            return sum(map(size, value)) if isinstance(value, list) else getattr(value, "size", 0)

        return sum(size(value) for value in vars(self).values())


class Layer(Module):
    def __init__(self, *shape, bias=None, eps=None):
        assert not bias
        self.weight = np.zeros(shape)


def test_the_model_that_peers_train_has_as_many_parameters_as_ours(monkeypatch):
    layers = dict.fromkeys(("Linear", "Embedding", "RMSNorm"), Layer)
    nn = mock.Mock(**layers, Module=Module, ModuleList=list, Parameter=np.asarray, init=mock.Mock())
    torch = mock.Mock(nn=nn, randn=lambda *shape: np.zeros(shape), tensor=np.asarray)
    fakes = {"torch": torch, "torch.nn": nn, "torch.nn.functional": nn.functional}
    for name, fake in fakes.items():
        monkeypatch.setitem(sys.modules, name, fake)
    peer = types.ModuleType("torch_train")
    exec(compile(SOURCES["torch_train"], "torch_train.py", "exec"), vars(peer))
    monkeypatch.setattr(peer, "rotations", lambda *_: (None, None))
    sizes = {"heads": 10, **DEMO}
    ours = model_of(REBUILT, sizes, "float32")
    theirs = peer.FlatTransformer(ours.vocab_sizes, events=16, **sizes).count()
    assert theirs == num_parameters(ours) == 1_181_184
