"""Shared by the commands: arguments, terminal output, and the state of a run's jobs and tasks."""
