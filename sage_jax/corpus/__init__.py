"""From folders of MIDI files to token shards: sources, splits, near-duplicates, workers, reports."""
