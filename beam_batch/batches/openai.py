"""OpenAI's Batch API (https://platform.openai.com/docs/api-reference/batch, and /files)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from beam_batch import jsonio
from beam_batch.batches.account import Account
from beam_batch.batches.base import (
    CANCELLED,
    COMPLETED,
    EXPIRED,
    FAILED,
    Again,
    BatchInfo,
    Problem,
    Result,
    count,
    parsed,
)
from beam_batch.batches.files import Limits
from beam_batch.errors import (
    BatchError,
    InvalidResponse,
    RequestRejected,
    ServerError,
    TimedOut,
)
from beam_batch.providers.base import Request
from beam_batch.providers.failing import to_error

LIMITS = Limits(50_000, 200_000_000)
"""Of one input file: "up to 50,000 requests, and can be up to 200 MB in size" (API reference,
batch/create, input_file_id)."""
WINDOW = "24h"
"""The only completion window there is (the same place)."""
METADATA = "beam_batch"
SKEW = 3600.0
"""Seconds by which the provider's clock may be behind ours, when a batch is looked for."""
PAGE = 100
"""Batches of one page; the most that may be asked for (API reference, batch/list)."""
_ENDS = (COMPLETED, EXPIRED, CANCELLED, FAILED)


class OpenAIBatches:
    """Files and batches of an OpenAI account."""

    limits = LIMITS
    marks = True

    def __init__(self, account: Account, path: str) -> None:
        self._account = account
        self._endpoint = f"/v1{path}"

    def line(self, request: Request) -> bytes:
        """Write a request as the input file's format wants it."""
        url = f"/v1{request.path}"
        return jsonio.dumps({"method": "POST", "url": url, "body": request.body})

    def upload(self, path: Path) -> str:
        """Send a file for batches; OpenAI removes it by itself after 30 days."""
        return _id(self._account.post_form("/files", path, {"purpose": "batch"}))

    def create(self, path: Path, file_id: str, mark: str) -> BatchInfo:
        """Create a batch that carries our mark as metadata."""
        body = {
            "input_file_id": file_id,
            "endpoint": self._endpoint,
            "completion_window": WINDOW,
            "metadata": {METADATA: mark},
        }
        return _info(self._account.json("POST", "/batches", body))

    def find(
        self, mark: str, requests: int, since: float, known: set[str], again: Again
    ) -> BatchInfo | None:
        """Look for our mark among the account's batches, the newest of which come first."""
        after = ""
        while True:
            path = f"/batches?limit={PAGE}{after}"
            page = again(partial(self._account.json, "GET", path))
            found = page.get("data")
            for batch in found if isinstance(found, list) else ():
                if (batch.get("metadata") or {}).get(METADATA) == mark and batch["id"] not in known:
                    return _info(batch)
            if not found or not page.get("has_more"):
                return None
            if (_time(found[-1].get("created_at")) or since) < since - SKEW:
                return None
            after = f"&after={_id(found[-1])}"

    def get(self, batch_id: str) -> BatchInfo:
        """Ask how a batch is."""
        return _info(self._account.json("GET", f"/batches/{batch_id}"))

    def cancel(self, batch_id: str) -> BatchInfo:
        """Cancel a batch; it takes up to ten minutes."""
        return _info(self._account.json("POST", f"/batches/{batch_id}/cancel"))

    def download(self, path: str, target: Path) -> None:
        """Fetch an output or error file."""
        self._account.download(path, target)

    def read(self, line: bytes) -> Result:
        """Read a line of an output or error file."""
        record = parsed(line)
        response, error = record.get("response"), record.get("error")
        if isinstance(response, dict):
            request_id = response.get("request_id")
            status, body = response.get("status_code"), response.get("body")
            problem = None if status == 200 else _refusal(status, body)
            return Result(record.get("custom_id"), body, problem, request_id)
        if isinstance(error, dict):
            return Result(record.get("custom_id"), None, _error(error), None)
        raise InvalidResponse(f"a line of the results has no response and no error: {line!r:.120}")


def _refusal(status: Any, body: Any) -> BatchError:
    """Name what a status other than 200 means; a 0 has been seen where there was no answer."""
    if not isinstance(status, int) or status < 100:
        return ServerError(f"the batch gave no status for this request ({status})")
    return to_error(status, {}, jsonio.dumps(body), None)


def _error(error: dict[str, Any]) -> BatchError:
    """Name what kept a request from being run (API reference, batch/request-output)."""
    code = str(error.get("code") or "error")
    message = f"{code}: {error.get('message') or 'no message'}"
    if code in ("batch_expired", "request_timeout"):
        return TimedOut(message)
    if code in ("batch_cancelled", "server_error", "error"):
        return ServerError(message)
    return RequestRejected(message)


def _id(body: dict[str, Any]) -> str:
    found = body.get("id")
    if not isinstance(found, str) or not found:
        raise InvalidResponse(f"the answer has no id: {body!s:.120}")
    return found


def _info(body: dict[str, Any]) -> BatchInfo:
    status = str(body.get("status") or "")
    counts = body.get("request_counts")
    files = (body.get("output_file_id"), body.get("error_file_id"))
    ends = (body.get(f"{name}_at") for name in _ENDS)
    return BatchInfo(
        id=_id(body),
        status=status,
        ended=status if status in _ENDS else "",
        total=count(counts, "total"),
        done=count(counts, "completed"),
        failed=count(counts, "failed"),
        created_at=_time(body.get("created_at")),
        ended_at=next((at for at in map(_time, ends) if at), None),
        outputs=[f"/files/{file}/content" for file in files if file],
        problems=_problems(body.get("errors")),
    )


def _problems(errors: Any) -> list[Problem]:
    data = errors.get("data") if isinstance(errors, dict) else None
    return [
        Problem(
            str(item.get("code") or "error"),
            str(item.get("message") or "no message"),
            item["line"] if isinstance(item.get("line"), int) else None,
        )
        for item in (data if isinstance(data, list) else ())
        if isinstance(item, dict)
    ]


def _time(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and value > 0 else None
