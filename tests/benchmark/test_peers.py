"""The source of the peers' adapters. Their packages are in another environment; PyTorch is a fake here."""

import ast
import pathlib
import re
import sys
import types
from unittest import mock

import numpy as np
import pytest

from configs.benchmark import DEMO
from sage_jax.benchmark.peers import TORCH_COUNTERPART
from sage_jax.benchmark.worker import DecodingRun
from sage_jax.models.presets import model_config
from sage_jax.study.config import num_parameters

PEERS = pathlib.Path(__file__).parents[2] / "third_party" / "peers"
SOURCES = {path.stem: path.read_text(encoding="utf-8") for path in PEERS.glob("*.py")}
WORKER = "sage_jax.benchmark.worker"


def imported(name):
    """Dotted names of the modules that a file of third_party/peers imports."""
    for node in ast.walk(ast.parse(SOURCES[name], filename=f"{name}.py")):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}.py runs as a script: no relative imports"
            yield node.module


def requirements():
    """The peers that requirements.txt names for each package, by import name."""
    lines = [line for line in (PEERS / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    matches = [re.fullmatch(r"([\w-]+)(?:\[\w+\])?==[\w.]+  # (.+)", line) for line in lines]
    assert all(matches), f"not of the form 'package==version  # peer peer': {lines}"
    return {match[1].replace("-", "_"): match[2].split() for match in matches if match}


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
    """A fake of PyTorch's Module that counts its parameters, which are numpy arrays."""

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


def test_the_training_peer_has_the_number_of_parameters_of_ours(monkeypatch):
    layers = dict.fromkeys(("Linear", "Embedding", "RMSNorm"), Layer)
    nn = mock.Mock(**layers, Module=Module, ModuleList=list, Parameter=np.asarray, init=mock.Mock())
    torch = mock.Mock(nn=nn, randn=lambda *shape: np.zeros(shape), tensor=np.asarray)
    fakes = {"torch": torch, "torch.nn": nn, "torch.nn.functional": nn.functional}
    for name, fake in fakes.items():
        monkeypatch.setitem(sys.modules, name, fake)
    peer = types.ModuleType("torch_train")
    exec(compile(SOURCES["torch_train"], "torch_train.py", "exec"), vars(peer))
    monkeypatch.setattr(peer, "rope_frequencies", lambda *_: (None, None))
    sizes = {"num_heads": 10, **DEMO}
    ours = model_config(TORCH_COUNTERPART, sizes, "float32")
    theirs = peer.FlatTransformer(ours.vocab_sizes, events=16, **sizes).count()
    assert theirs == num_parameters(ours) == 1_181_184


class Cuda:
    """A fake of torch.cuda that counts synchronizations."""

    def __init__(self, available: bool):
        self.is_available, self.synchronized = lambda: available, 0
        self.get_device_name, self.max_memory_allocated = lambda: "a GPU", lambda: 3e6

    def synchronize(self):
        self.synchronized += 1


def load(monkeypatch, name: str, **modules) -> types.ModuleType:
    """The module of third_party/peers, with fakes for some of its imports."""
    for imported_name, fake in modules.items():
        monkeypatch.setitem(sys.modules, imported_name, fake)
    module = types.ModuleType(name)
    exec(compile(SOURCES[name], f"{name}.py", "exec"), vars(module))
    return module


@pytest.mark.parametrize("on_gpu", [True, False])
def test_the_clock_of_the_peers_waits_for_the_device(monkeypatch, on_gpu):
    torch = mock.Mock(cuda=Cuda(on_gpu))
    device = load(monkeypatch, "device", torch=torch)
    device.prepare(dict(threads=2, seed=0))
    assert device.DEVICE == ("cuda" if on_gpu else "cpu") and device.name() == ("a GPU" if on_gpu else "cpu")
    assert torch.set_float32_matmul_precision.called == on_gpu
    note_times = load(monkeypatch, "note_times", device=device)
    result = note_times.time_tokens(iter(range(10)), 2, 10)
    # At the start, at the first token and at the end of each note, but not at every token.
    assert torch.cuda.synchronized == (4 if on_gpu else 0)
    assert result.get("peak_megabytes") == (3.0 if on_gpu else None)
    DecodingRun(**{"peak_megabytes": 1.0, **result})
    with pytest.raises(RuntimeError, match="drew 9 tokens instead of 10"):
        note_times.time_tokens(iter(range(9)), 2, 10)


def test_notes_share_whole_tokens(monkeypatch):
    device = mock.Mock(memory=lambda: {})
    clock = iter(range(100))
    device.now = lambda: next(clock)
    note_times = load(monkeypatch, "note_times", device=device)
    result = note_times.time_tokens(iter(range(7)), 3, 7)
    assert note_times.NoteClock(3, 7).ends == [2, 5, 7] and result["events_drawn"] == 3
    assert result["prefill_seconds"] == 1 and result["seconds"] == [1, 1, 1]


DECODERS = sorted(set(ADAPTERS) - {"torch_train"})


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoding_peer_is_on_the_device_and_reports_it(name):
    source = SOURCES[name]
    assert "device.prepare(job)" in source and '"device": device.name()' in source
    assert re.search(r"\.to\(device\.DEVICE, ", source), "its weights stay on the CPU"
    assert "perf_counter" not in source or name == "hf_llama", "a clock that does not wait for the device"
    tree = ast.parse(source)
    threads = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "set_num_threads"]
    assert not threads  # device.prepare sets them


def test_llama_is_compiled_into_cuda_graphs_on_a_gpu():
    assert 'mode = "reduce-overhead" if device.DEVICE == "cuda" else "default"' in SOURCES["hf_llama"]
