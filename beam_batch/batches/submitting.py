"""Submitting: a request file becomes a batch at the provider, exactly once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from beam_batch.batches.base import BatchInfo, BatchService, Problem
from beam_batch.batches.files import requests_path
from beam_batch.batches.journal import (
    CREATED,
    CREATING,
    PLANNED,
    REFUSED,
    UPLOADED,
    Batch,
    Journal,
)
from beam_batch.batches.retrying import Patience
from beam_batch.errors import RateLimited, RequestRejected, RowError


class Enqueued(Exception):
    """The account may not have more tokens waiting in batches: the file's turn comes later."""


def is_enqueued(code: str, message: str) -> bool:
    """Whether a refusal is about the tokens that wait in batches.

    As a 429, or as a batch that fails with ``token_limit_exceeded`` ("Enqueued token limit reached
    for …"): https://github.com/openai/openai-python/issues/2084.
    """
    return code == "token_limit_exceeded" or "enqueued" in f"{code} {message}".lower()


class Submitter:
    """Uploads request files and creates their batches, each step journalled before the next."""

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        service: BatchService,
        patience: Patience,
        say: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._journal = journal
        self._service = service
        self._patience = patience
        self._say = say

    def submit(self, batch: Batch) -> None:
        """Bring a file from wherever it is to `created`.

        Raises:
            Enqueued: not now; it is journalled where it was.
            RequestRejected: the provider does not want the file.
            FatalReply: the provider does not want anything of this account.
        """
        path = requests_path(self._folder, batch.file.name)
        if batch.state == PLANNED:
            file_id = self._patience.again(lambda: self._service.upload(path))
            self._journal.note(batch, UPLOADED, file_id=file_id)
        maybe_there = batch.state == CREATING

        def once() -> tuple[BatchInfo, bool]:
            nonlocal maybe_there
            if maybe_there and (found := self._find(batch)):
                return found, True
            if batch.state != CREATING:
                self._journal.note(batch, CREATING)
            maybe_there = True
            return self._create(batch, path), False

        try:
            info, adopted = self._patience.again(once)
        except Enqueued:
            self._journal.note(batch, REFUSED, state=UPLOADED)
            raise
        except RequestRejected:  # perhaps the upload is what is wrong: it is made again
            self._journal.note(batch, REFUSED, state=PLANNED)
            raise
        self._journal.note(batch, CREATED, info=info._asdict(), adopted=adopted)
        verb = "found again" if adopted else "submitted"
        self._say(f"{verb} {info.id}: {batch.file.requests} requests")

    def _find(self, batch: Batch) -> BatchInfo | None:
        known = batch.not_ours | {other.id for other in self._journal.batches.values()}
        return self._service.find(
            batch.file.mark, batch.file.requests, batch.since, known, self._patience.again
        )

    def _create(self, batch: Batch, path: Path) -> BatchInfo:
        try:
            return self._service.create(path, batch.file_id, batch.file.mark)
        except RateLimited as error:
            if is_enqueued("", str(error)):
                raise Enqueued(str(error)) from None
            raise


def reasons_by_line(problems: list[Problem], requests: int) -> dict[int, RowError]:
    """Return why rows are refused, by line from 0; {} where it is about all of them.

    A model that cannot be used is named with the first line, but is the same in every one.
    """
    reasons: dict[int, RowError] = {}
    for problem in problems:
        if problem.line is None or not 1 <= problem.line <= requests or "model" in problem.code:
            return {}
        reasons[problem.line - 1] = RequestRejected(f"{problem.code}: {problem.message}")
    return reasons
