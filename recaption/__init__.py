"""Recaption WebDataset shards with vision-language models, on one machine or a Slurm array."""

__version__ = "0.2.0"
