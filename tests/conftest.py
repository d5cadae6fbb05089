"""What every test runs under: JAX on the CPU and strict, hypothesis without chance or deadlines."""

import os

# Before anything imports jax; also what the subprocesses of end-to-end tests inherit.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")  # [B, N] + [N] must be spelled out
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # tests compile much and compute little

import hypothesis

hypothesis.settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("reproducible")
