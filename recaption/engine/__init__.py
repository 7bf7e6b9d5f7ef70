"""Engines, which make captions of prepared pictures and prompts, each in its own process."""
