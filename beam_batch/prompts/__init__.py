"""Turning rows into prompts, and replies into checked results. Pure but for the user's files."""
