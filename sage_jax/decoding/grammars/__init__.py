"""Grammars: masks that keep generated tokens well-formed, one module per tokenizer."""
