"""How a request travels: HTTP, server-sent events, WebSockets, or not at all."""
