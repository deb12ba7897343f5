"""Turning rows into prompts, and replies into checked results. Pure: no I/O but reading the user's files."""
