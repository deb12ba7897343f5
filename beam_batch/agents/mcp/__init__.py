"""MCP servers of a worker, and their tools."""
