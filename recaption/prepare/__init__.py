"""From a sample's place in a shard to what an engine takes: a pure, repeatable function."""
