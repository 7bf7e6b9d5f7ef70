"""Reading input shards strictly, and writing output shards."""
