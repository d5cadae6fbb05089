"""Pieces as sequences of tokens: note events, REMI+, byte-pair encoding, MMT."""
