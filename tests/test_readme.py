"""The commands of README.md run as they stand, in a checkout of their own."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.training.processes import with_programs

ROOT = pathlib.Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- not run: [^>]+-->\n)?```(bash|python)\n(.*?)```", re.DOTALL)
OWN = {".git", ".venv", ".venv-peers", "runs"}  # what the scratch checkout does not share

pytestmark = pytest.mark.process


def blocks(language: str) -> list[str]:
    """The README's blocks in a language, without those that a comment excludes."""
    found = BLOCK.findall((ROOT / "README.md").read_text())
    return [code for excluded, kind, code in found if kind == language and not excluded]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder that has the checkout's files, and runs/ of its own."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if path.name not in OWN and not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    return folder


def test_commands_and_python(checkout):
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    script = "set -euxo pipefail\n" + "\n".join(blocks("bash"))
    assert "launch.train" in script and "launch.sample" in script
    subprocess.run(["bash", "-c", script], cwd=checkout, env={**with_programs(), "PATH": path}, check=True, timeout=600)
    assert list((checkout / "runs" / "mine" / "takes").glob("take_*.mid"))
    code = "\n".join(blocks("python"))
    assert 'sage_jax.load("sage-20m")' in code
    code = code.replace("sage-20m", "runs/mine")  # which is a hundredth of its size
    subprocess.run([sys.executable, "-c", code], cwd=checkout, env=with_programs(), check=True, timeout=600)
    assert list((checkout / "runs" / "demo" / "from_python").glob("take_*.mid"))


def test_it_can_be_read_in_three_minutes():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_its_links_lead_somewhere():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
