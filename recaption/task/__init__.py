"""One element of the array: takes shards by lease, works on them, and stops when told to."""
