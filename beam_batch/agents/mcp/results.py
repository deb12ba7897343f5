"""What an MCP server answers, as text for a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mcp_types

from beam_batch import jsonio
from beam_batch.agents.tools.base import ToolReply


def to_reply(result: mcp_types.CallToolResult) -> ToolReply:
    """Write all that a result holds as text; structured content only where there is no text."""
    text = "\n".join(_pieces(result.content))
    if not text and result.structured_content is not None:
        text = jsonio.dumps(result.structured_content).decode()
    return ToolReply(text, bool(result.is_error))


def _pieces(content: list[Any]) -> Iterator[str]:
    for block in content:
        match block:
            case mcp_types.TextContent():
                yield block.text
            case mcp_types.ImageContent() | mcp_types.AudioContent():
                yield _named(block.mime_type, block.data)
            case mcp_types.ResourceLink():
                yield f"[{block.uri} {block.description or block.title or block.name}]"
            case mcp_types.EmbeddedResource(resource=mcp_types.TextResourceContents() as resource):
                yield resource.text
            case mcp_types.EmbeddedResource(resource=mcp_types.BlobResourceContents() as resource):
                yield _named(resource.mime_type or "binary", resource.blob)
            case _:
                yield f"[{type(block).__name__}]"


def _named(kind: str, base64: str) -> str:
    size = len(base64) * 3 // 4 - base64[-2:].count("=")
    return f"[{kind}, {size} bytes]"
