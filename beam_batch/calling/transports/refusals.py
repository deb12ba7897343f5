"""What a refused handshake, an error frame and a closed WebSocket mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from beam_batch import jsonio
from beam_batch.errors import (
    BatchError,
    ConnectionLost,
    FatalReply,
    InvalidResponse,
    ProviderError,
    RequestRejected,
    ServerError,
    first_line,
)
from beam_batch.providers.failing import to_error
from beam_batch.redaction import redact

TOO_BIG = 1009
"""The close code of a message that is too large (RFC 6455, section 7.4.1)."""
_SAY_AS_HTTP = frozenset((401, 402, 403, 408, 409, 425, 429))
_STATUS = {
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_error": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "api_error": 500,
    "overloaded_error": 503,
    "server_is_overloaded": 503,
    "slow_down": 503,
}
"""The HTTP status that an error has, by its code or its type, where a frame does not say one."""


class HandshakeRefused(Exception):
    """The server answered a handshake with something other than a WebSocket.

    Attributes:
        status: the HTTP status, or None where the connection was closed or spoke no HTTP.
        error: what it means where nothing but a WebSocket will do.
    """

    def __init__(self, status: int | None, error: BatchError) -> None:
        super().__init__(str(error))
        self.status = status
        self.error = error


def handshake_refused(error: WebSocketException, key: str | None) -> HandshakeRefused:
    """Name what a handshake that ended without a WebSocket means."""
    if not isinstance(error, InvalidStatus):
        reason = redact(first_line(error), key)
        return HandshakeRefused(None, ConnectionLost(f"the WebSocket handshake failed: {reason}"))
    response = error.response
    status = response.status_code
    said = to_error(status, dict(response.headers.raw_items()), bytes(response.body or b""), key)
    hint = "use transport=http or transport=sse"
    if status == 403:
        said = FatalReply(f"{said}; if the server only lacks WebSockets, {hint}")
    elif status not in _SAY_AS_HTTP and (status < 500 or status == 501):
        said = FatalReply(f"the server offers no WebSocket here ({said}); {hint}")
    return HandshakeRefused(status, said)


def frame_error(event: dict[str, Any]) -> BatchError:
    """Name what an `error` event means: the same as the answer of that status over HTTP.

    Its fields are in `error`, or beside `type` where there is none. Sources:
    developers.openai.com/api/docs/guides/websocket-mode (frames with a status, and the code of
    a socket that is too old); openai.types.responses.ResponseErrorEvent (frames without).
    """
    error = event.get("error")
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        error = {name: event[name] for name in ("code", "message", "param") if name in event}
    if error.get("code") == "websocket_connection_limit_reached":
        message = redact(str(error.get("message") or error["code"]), None)
        return ServerError(f"the socket is too old: {message}")
    headers = event.get("headers")
    known = {str(n): str(v) for n, v in headers.items()} if isinstance(headers, dict) else {}
    wait = error.get("retry_after", event.get("retry_after"))
    if wait is not None:
        known["Retry-After"] = str(wait)
    return to_error(_status(event, error), known, jsonio.dumps({"error": error}), None)


def _status(event: Mapping[str, Any], error: Mapping[str, Any]) -> int:
    """Return the status of an error; one without any sign of whose it is, is the server's own."""
    names = (error.get("code"), error.get("type"))
    for said in (event.get("status"), event.get("status_code"), *names):
        if isinstance(said, (int, str)) and str(said).isdigit() and 400 <= int(said) < 600:
            return int(said)
    for name in names:
        if isinstance(name, str) and name in _STATUS:
            return _STATUS[name]
    return 400 if any(names) else 500


def closed(error: ConnectionClosed, limit: int, key: str | None) -> ProviderError:
    """Name what it means that a socket was closed before its answer was whole.

    Args:
        limit: bytes that a message of the server may have.
    """
    if error.sent is not None and error.sent.code == TOO_BIG and not error.rcvd_then_sent:
        return InvalidResponse(f"a message of the answer is larger than {limit} bytes")
    reason = redact(str(error), key)
    if error.rcvd is not None and error.rcvd.code == TOO_BIG:
        return RequestRejected(f"the request is too large for the server: {reason}")
    return ConnectionLost(f"the socket was closed before the answer was whole: {reason}")
