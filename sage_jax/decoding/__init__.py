"""Generation: grammars, sampling, and the compiled decoding loop that continues a prompt with a model."""
