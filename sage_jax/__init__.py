"""Low-latency multi-track symbolic music generation in JAX."""
