"""Replies that are used more than once: identical requests of a run, and a cache across runs."""
