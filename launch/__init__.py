"""Thin scripts, one per task: python -m launch.NAME --help."""

import gc
import importlib.util
import sys

# Imports and tracing make many objects and hardly any garbage. At Python's own threshold the search takes a fifth of a start.
gc.set_threshold(50_000)

for _package in ("absl", "ml_collections", "grain", "matplotlib"):
    if importlib.util.find_spec(_package) is None:
        print(f"error: the scripts need the package {_package}: pip install -e '.[train,plots]'", file=sys.stderr)
        sys.exit(2)
