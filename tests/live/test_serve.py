"""From the start of the server to Ctrl-C, with a stand-in for the model."""

import os
import pathlib
import signal
import socket as sockets
import subprocess
import sys
import urllib.request

import pytest

from sage_jax.errors import UserError
from sage_jax.live.serve import serve

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import sys, types
from sage_jax.live import serve
from tests.live.stand_in import StandInHost

class Host(StandInHost):
    model = types.SimpleNamespace(
        tokenizer=types.SimpleNamespace(grid=types.SimpleNamespace(meters=[(4, 4)], ticks_per_quarter=12)),
        run=types.SimpleNamespace(model=types.SimpleNamespace(name="stand-in")),
        sampling=types.SimpleNamespace(temperature=1.0, top_p=1.0, min_p=0.0),
    )
    def start(self):
        print("compiled", flush=True)
    def close(self):
        super().close()
        print("closed", flush=True)

serve.serve(Host, port=0, say=lambda line: print(line, flush=True))
"""


@pytest.mark.process
def test_one_line_once_it_can_be_played_and_a_clean_end(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True)
    try:
        assert process.stdout.readline() == "compiled\n"
        line = process.stdout.readline()
        assert line.startswith("Play at http://127.0.0.1:") and line.endswith("/ (Ctrl-C ends it)\n")
        url = line.split()[2]
        with urllib.request.urlopen(url, timeout=10) as page:
            assert b"sage live" in page.read()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, rest, errors) == (0, "closed\n", "")


def test_a_taken_port_is_found_before_the_model_is_loaded():
    def load():
        raise AssertionError("the model was loaded")

    with sockets.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="--port=0 for a free one"):
        serve(load, port=taken.getsockname()[1])


def test_without_the_extra_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    for name in [name for name in sys.modules if name.startswith("sage_jax.live.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "sage_jax.live.player", raising=False)
    with pytest.raises(UserError, match="aiohttp"):
        serve(lambda: None, port=0)
