"""Agent cards: from what a user names to checked specs."""
