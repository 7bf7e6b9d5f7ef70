"""A model and what it is asked: files, their hash, the Hub, prompts, and what captions are checked for."""
