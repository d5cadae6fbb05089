"""The study: every system trained on the same notes, scored and measured, with its results in RESULTS.md."""
