"""Preparation: reads a sample from its shard and makes an engine's input of it, repeatably."""
