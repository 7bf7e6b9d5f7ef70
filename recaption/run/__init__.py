"""The run directory: its paths, and the files that describe a run and its shards."""
