"""What an answer means that is not 200."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from beam_batch import jsonio
from beam_batch.errors import (
    BatchError,
    FatalReply,
    InvalidJSON,
    NoCapacity,
    ProviderError,
    RateLimited,
    RequestRejected,
    ServerError,
)
from beam_batch.redaction import redact

_TAGS = re.compile(r"<[^>]{0,400}>")
_RETRYABLE = frozenset((408, 409, 425))
_SCHEMA_PARAMS = ("text.format", "response_format")


def to_error(status: int, headers: Mapping[str, str], body: bytes, key: str | None) -> BatchError:
    """Name what a status other than 200 means.

    Sources: platform.openai.com/docs/guides/error-codes and /flex-processing; RFC 9110
    (Retry-After, 408, 425, 429); openrouter.ai/docs/api-reference/errors (403 of a moderated
    input).
    """
    details = _details(body)
    code = str(details.get("code") or details.get("type") or "")
    message = redact(f"{status}: {details.get('message') or _plain(body)}", key)
    fatal = _fatal(status, code, message, details)
    if fatal is not None:
        return FatalReply(f"{fatal} ({message})")
    wait = retry_after(headers)
    error: ProviderError
    if status == 429:
        kind = NoCapacity if code == "resource_unavailable" else RateLimited
        error = kind(message, retry_after=wait, status=status)
    elif status >= 500 or status in _RETRYABLE:
        error = ServerError(message, retry_after=wait, status=status)
    else:
        error = RequestRejected(message, status=status)
    error.headers = headers
    return error


def _fatal(status: int, code: str, message: str, details: dict[str, Any]) -> str | None:
    """Say why no request of this run can succeed, or None."""
    if status == 401 or (status == 400 and "API_KEY_INVALID" in str(details)):
        return "the provider refused the key"
    if status == 403 and not _is_moderation(details):
        return "the provider refused the key"
    if status == 402:
        return "the account has no credit"
    if code == "model_not_found" or (status == 404 and _names_no_model(message)):
        return "the provider does not know the model"
    if "insufficient_quota" in (details.get("code"), details.get("type")):
        return "the quota is used up"
    if status == 400 and _is_about_schema(details):
        return "the provider refuses the schema"
    return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a provider asks to wait: retry-after-ms, or Retry-After."""
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        if "retry-after-ms" in lower:
            wait = float(lower["retry-after-ms"]) / 1000
            return max(0.0, wait) if math.isfinite(wait) else None
        value = lower.get("retry-after")
        if value is None:
            return None
        if value.strip().replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except ValueError:
        return None


def _details(body: bytes) -> dict[str, Any]:
    try:
        parsed = jsonio.loads(body)
    except InvalidJSON:
        return {}
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else {}
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _plain(body: bytes) -> str:
    text = _TAGS.sub(" ", body[:2000].decode("utf-8", "replace"))
    return " ".join(text.split())[:200] or "no message"


def _is_moderation(details: dict[str, Any]) -> bool:
    """Whether an input was turned away for what it says: one row's matter."""
    metadata = details.get("metadata")
    return isinstance(metadata, dict) and ("reasons" in metadata or "flagged_input" in metadata)


def _names_no_model(message: str) -> bool:
    lower = message.lower()
    gone = ("does not exist", "not found", "not_found")
    return "model" in lower and any(words in lower for words in gone)


def _is_about_schema(details: dict[str, Any]) -> bool:
    param = details.get("param")
    return details.get("code") == "invalid_json_schema" or (
        isinstance(param, str) and param.startswith(_SCHEMA_PARAMS)
    )
