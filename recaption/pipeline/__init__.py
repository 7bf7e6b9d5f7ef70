"""A task's data flow: opens shards, prepares samples, feeds engines, finishes shards."""
