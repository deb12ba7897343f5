"""Anthropic's Message Batches API (https://platform.claude.com/docs/en/api/messages/batches)."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from beam_batch import jsonio
from beam_batch.batches.account import Account
from beam_batch.batches.base import (
    CANCELLED,
    COMPLETED,
    Again,
    BatchInfo,
    Result,
    count,
    parsed,
)
from beam_batch.batches.files import Limits
from beam_batch.errors import BatchError, InvalidResponse, ServerError, TimedOut
from beam_batch.providers.base import Request, details
from beam_batch.providers.failing import to_error

PATH = "/messages/batches"
LIMITS = Limits(100_000, 256_000_000)
"""Of one batch: "100,000 Message requests or 256 MB in size, whichever is reached first"
(https://platform.claude.com/docs/en/build-with-claude/batch-processing)."""
SKEW = 600.0
"""Seconds by which the provider's clock may be behind ours, when a batch is looked for."""
PAGE = 100
_STATUS = {"invalid_request_error": 400, "not_found_error": 404, "rate_limit_error": 429}
_STATUS |= {"authentication_error": 401, "permission_error": 403, "request_too_large": 413}
_STATUS |= {"billing_error": 402, "timeout_error": 504, "overloaded_error": 529}
"""Statuses of error types (https://platform.claude.com/docs/en/api/errors)."""


class AnthropicBatches:
    """Message batches of an Anthropic account.

    They carry no metadata. So one that was perhaps created is looked for by its time and its number
    of requests; the custom ids of its results then tell whether it is ours.
    """

    limits = LIMITS
    marks = False

    def __init__(self, account: Account, path: str) -> None:
        self._account = account

    def line(self, request: Request) -> bytes:
        """Write a request as an item of a batch."""
        return jsonio.dumps({"params": request.body})

    def upload(self, path: Path) -> str:
        """Do nothing: requests go with the batch itself."""
        return ""

    def create(self, path: Path, file_id: str, mark: str) -> BatchInfo:
        """Create a batch; the lines of the file become one array on the way."""
        return _info(self._account.post_lines(PATH, path, "requests"))

    def find(
        self, mark: str, requests: int, since: float, known: set[str], again: Again
    ) -> BatchInfo | None:
        """Look for an unknown batch of as many requests, the newest of which come first."""
        after = ""
        while True:
            path = f"{PATH}?limit={PAGE}{after}"
            page = again(partial(self._account.json, "GET", path))
            found = [_info(item) for item in page.get("data") or ()]
            for info in found:
                if (info.created_at or 0) < since - SKEW:
                    return None
                if info.total == requests and info.id not in known:
                    return info
            if not found or not page.get("has_more"):
                return None
            after = f"&after_id={found[-1].id}"

    def get(self, batch_id: str) -> BatchInfo:
        """Ask how a batch is."""
        return _info(self._account.json("GET", f"{PATH}/{batch_id}"))

    def cancel(self, batch_id: str) -> BatchInfo:
        """Cancel a batch."""
        return _info(self._account.json("POST", f"{PATH}/{batch_id}/cancel"))

    def download(self, path: str, target: Path) -> None:
        """Fetch the results, from below the base URL: the key goes to no other host."""
        self._account.download(path, target)

    def read(self, line: bytes) -> Result:
        """Read a line of the results."""
        record = parsed(line)
        result = details(record, "result")
        kind = result.get("type")
        if kind == "succeeded":
            return Result(record.get("custom_id"), result.get("message"), None, None)
        if kind == "errored":
            return Result(record.get("custom_id"), None, _error(result.get("error")), None)
        if kind == "expired":
            error: BatchError = TimedOut("expired: the batch ended before this request was sent")
            return Result(record.get("custom_id"), None, error, None)
        if kind == "canceled":
            error = ServerError("canceled: the batch was canceled before this request was sent")
            return Result(record.get("custom_id"), None, error, None)
        raise InvalidResponse(f"a line of the results has no result: {line!r:.120}")


def _error(error: Any) -> BatchError:
    """Name an error, which is an error response that holds the error itself."""
    inner = error.get("error") if isinstance(error, dict) else None
    found = inner if isinstance(inner, dict) else error if isinstance(error, dict) else {}
    status = _STATUS.get(str(found.get("type")), 500)
    return to_error(status, {}, jsonio.dumps({"error": found}), None)


def _info(body: Any) -> BatchInfo:
    if not isinstance(body, dict) or not isinstance(body.get("id"), str):
        raise InvalidResponse(f"the answer is no batch: {body!s:.120}")
    counts = body.get("request_counts")
    names = ("processing", "succeeded", "errored", "canceled", "expired")
    total = sum(count(counts, name) for name in names)
    over = body.get("processing_status") == "ended"
    cancelled = body.get("cancel_initiated_at") is not None
    return BatchInfo(
        id=body["id"],
        status=str(body.get("processing_status") or ""),
        ended=(CANCELLED if cancelled else COMPLETED) if over else "",
        total=total,
        done=count(counts, "succeeded"),
        failed=count(counts, "errored"),
        created_at=_time(body.get("created_at")),
        ended_at=_time(body.get("ended_at")),
        outputs=[f"{PATH}/{body['id']}/results"] if over else [],
        problems=[],
    )


def _time(value: Any) -> float | None:
    """Read RFC 3339."""
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except ValueError:
        return None
