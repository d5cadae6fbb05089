"""Which code a result depends on: a fingerprint that comments, docstrings and layout do not change."""

import ast
import functools
import hashlib
import pathlib

import sage_jax

# What comes between a MIDI file and a trial's scores. The report, the figures and the launch scripts do not.
PACKAGES = ("corpus", "data", "decoding", "evaluation", "models", "music", "tokenizers", "training")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def code_fingerprint() -> str:
    """A hash (12 hexadecimal digits) of the statements in PACKAGES."""
    digest = hashlib.sha256()
    root = pathlib.Path(sage_jax.__file__).parent
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\n{statements(path.read_text())}\n".encode())
    return digest.hexdigest()[:12]


def statements(source: str) -> str:
    """The statements of a module in one normal form, without docstrings and comments."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
