"""What is one engine's own: how to ask for it, what it needs, and Beam's flags for it."""
