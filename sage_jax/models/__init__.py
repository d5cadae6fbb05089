"""Music transformers: attention with shared key-value heads, flat and event-level architectures, the KV cache."""
