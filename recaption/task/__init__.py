"""A task, one element of the array: takes shards by lease, captions them, stops when told to."""
