"""Evaluation: likelihood, scored continuations next to baselines, memorization and listening tests, all with intervals."""
