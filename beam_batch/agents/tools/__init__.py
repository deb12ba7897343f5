"""What agents may call, and all tools but those of MCP servers."""
