"""Puts the embedded corpus into the wheel; setup.cfg has everything else."""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithCorpus(build_py):
    """Copies third_party/midi with its licences to sage_jax/corpus/embedded. Editable installs read third_party/midi itself."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            packaged = pathlib.Path(self.build_lib, "sage_jax", "corpus", "embedded")
            shutil.copytree(pathlib.Path("third_party", "midi"), packaged, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithCorpus})
