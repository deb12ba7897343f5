"""Sending requests: retries, HTTP, and the window of requests in flight. No Beam here."""
