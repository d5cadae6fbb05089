"""Thin scripts, one per task: python -m launch.NAME --help."""

import importlib.util
import sys

for _package in ("absl", "ml_collections", "grain", "matplotlib"):
    if importlib.util.find_spec(_package) is None:
        print(f"error: the scripts need the package {_package}: pip install -e '.[train,plots]'", file=sys.stderr)
        sys.exit(2)
