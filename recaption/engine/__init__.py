"""Engines: what turns a prepared picture and a prompt into a caption, each in its own process."""
