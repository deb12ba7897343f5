"""An index of the answers in a finished output, kept on disk: memory does not grow with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from beam_batch import jsonio
from beam_batch.errors import InvalidJSON


class Built(NamedTuple):
    """What was found: answers, lines that are not records, and bytes of whole lines."""

    answers: int
    torn: int
    size: int


def build(index: Path, outputs: Iterable[Path]) -> Built:
    """Index the ``ok: true`` records of the output files by id.

    Lines that are no JSON record are counted and passed over.
    """
    index.unlink(missing_ok=True)
    base = torn = size = 0
    with sqlite3.connect(index) as db:
        db.execute(
            "CREATE TABLE answers (id TEXT PRIMARY KEY, file TEXT, start INTEGER, length INTEGER)"
        )
        for path in outputs:
            base = 0
            for offset, line, record in _records(path):
                if record is None:
                    torn += 1
                elif record.get("ok") is True:
                    row = (_key(record.get("id")), str(path), offset, len(line))
                    db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", row)
                if line.endswith(b"\n") or record is not None:
                    base = offset + len(line)
            size += base
        answers = int(db.execute("SELECT count(*) FROM answers").fetchone()[0])
    db.close()
    return Built(answers, torn, size)


def whole_lines(path: Path) -> int:
    """Return how many bytes at the front of a file are whole lines."""
    size = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                size += len(line)
    return size


def _records(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    offset = 0
    with path.open("rb") as file:
        for line in file:
            record: Any = None
            if line.strip():
                try:
                    record = jsonio.loads(line, jsonio.RECORD_DEEPEST)
                except InvalidJSON:
                    record = None
                yield offset, line, record if isinstance(record, dict) else None
            offset += len(line)


def _key(row_id: Any) -> str:
    return jsonio.dumps(row_id).decode()


class PriorAnswers:
    """Looks answers up by id."""

    def __init__(self, index: Path) -> None:
        self._db = sqlite3.connect(f"file:{index}?mode=ro", uri=True, check_same_thread=False)

    def find(self, row_id: str | int | None) -> tuple[str, int, int] | None:
        """Return (file, start, length) of the answer of an id, or None."""
        query = "SELECT file, start, length FROM answers WHERE id = ?"
        found: tuple[str, int, int] | None = self._db.execute(query, (_key(row_id),)).fetchone()
        return found

    def read(self, place: tuple[str, int, int]) -> dict[str, Any]:
        """Read an answer's envelope."""
        with open(place[0], "rb") as file:
            file.seek(place[1])
            record = jsonio.loads(file.read(place[2]), jsonio.RECORD_DEEPEST)
        assert isinstance(record, dict)
        return record

    def close(self) -> None:
        """Close the index."""
        self._db.close()
