"""The study: trains every system on the same notes, evaluates it, measures its speed, and writes a report."""
