"""A run directory: every path in it, and the files that describe a run and its shards."""
