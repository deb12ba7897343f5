"""What the Batch API of every provider offers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from beam_batch import jsonio
from beam_batch.batches.files import Limits
from beam_batch.errors import BatchError, InvalidJSON, InvalidResponse
from beam_batch.providers.base import Request

COMPLETED, EXPIRED, CANCELLED, FAILED = "completed", "expired", "cancelled", "failed"


class Problem(NamedTuple):
    """Why a provider refused a whole file; `line` counts from 1, or is None."""

    code: str
    message: str
    line: int | None


class BatchInfo(NamedTuple):
    """A batch as its provider describes it.

    Attributes:
        status: the provider's word for it.
        ended: completed, expired, cancelled or failed; '' while it is at work.
        total, done, failed: requests.
        created_at, ended_at: seconds of the provider's Unix clock, or None.
        outputs: paths, below the base URL, of the files with its results.
        problems: where the whole file was refused.
    """

    id: str
    status: str
    ended: str
    total: int
    done: int
    failed: int
    created_at: float | None
    ended_at: float | None
    outputs: list[str]
    problems: list[Problem]

    @classmethod
    def stored(cls, values: dict[str, Any]) -> BatchInfo:
        """Read what the journal keeps."""
        problems = [Problem(*problem) for problem in values["problems"]]
        return cls(**(values | {"problems": problems}))


class Result(NamedTuple):
    """One line of results: the body of a 200 answer, or what went wrong instead."""

    custom_id: Any
    body: Any
    error: BatchError | None
    request_id: str | None


Again = Callable[[Callable[[], Any]], Any]
"""Calls something, again where it failed for a reason that may pass."""


class BatchService(Protocol):
    """One provider's Batch API. Each call is one attempt; retrying is the caller's.

    Attributes:
        limits: of one file.
        marks: whether batches carry our mark, so that what `find` returns is surely ours.
    """

    limits: Limits
    marks: bool

    def line(self, request: Request) -> bytes:
        """Write a request as an object of a request file, without its custom id."""

    def upload(self, path: Path) -> str:
        """Send a request file, and return its id; '' where files go with the batch itself."""

    def create(self, path: Path, file_id: str, mark: str) -> BatchInfo:
        """Create a batch of a request file. Not to be repeated without looking for it first."""

    def find(
        self, mark: str, requests: int, since: float, known: set[str], again: Again
    ) -> BatchInfo | None:
        """Look for a batch that was perhaps created at `since`, in seconds of the Unix clock."""

    def get(self, batch_id: str) -> BatchInfo:
        """Ask how a batch is."""

    def cancel(self, batch_id: str) -> BatchInfo:
        """Cancel a batch; what is done stays done."""

    def download(self, path: str, target: Path) -> None:
        """Fetch a file of results, whole or not at all."""

    def read(self, line: bytes) -> Result:
        """Read a line of results.

        Raises:
            InvalidResponse: it is none.
        """


def parsed(line: bytes) -> dict[str, Any]:
    """Parse a line of results; raise InvalidResponse where it is no object."""
    try:
        value = jsonio.loads(line, jsonio.RECORD_DEEPEST + 10)
    except InvalidJSON as error:
        raise InvalidResponse(f"a line of the results is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidResponse(f"a line of the results is no object: {value!s:.120}")
    return value


def count(values: Any, name: str) -> int:
    """Take a count out of a body, whatever its shape."""
    found = values.get(name) if isinstance(values, dict) else None
    return found if isinstance(found, int) else 0
