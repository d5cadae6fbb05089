"""The study: every system trained on the same notes, scored, measured, and told of in RESULTS.md."""
