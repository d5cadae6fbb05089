"""A whole event step as one kernel for GPUs, see docs/kernels.md."""
