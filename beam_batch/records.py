"""The elements that travel through the pipeline."""

from __future__ import annotations

from typing import Any, NamedTuple


class Split(NamedTuple):
    """A run of consecutive rows of one input.

    Attributes:
        number: position of the split in the run, from 0.
        uri: the input.
        start, stop: byte range (text formats) or row range (Parquet).
        first_row: 1-based number of its first row in the whole input.
        rows: how many rows it holds.
        picks: numbers of the selected rows, or None for all of them.
    """

    number: int
    uri: str
    start: int
    stop: int
    first_row: int
    rows: int
    picks: tuple[int, ...] | None = None

    @property
    def selected(self) -> int:
        """Number of rows of this split that the run works on."""
        return self.rows if self.picks is None else len(self.picks)


class Failure(NamedTuple):
    """Why a row failed: the name of a RowError and its message."""

    type: str
    message: str
    reply: str | None = None

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Describe an error that was raised for a row."""
        return cls(type(error).__name__, str(error), getattr(error, "reply", None))


class Row(NamedTuple):
    """One input row; `data` is None where it could not be read.

    Attributes:
        split: index of its split, or None in a pipeline without a plan.
        number: 1-based row number, or None in a pipeline without a plan.
        id: the value of the id field as text, else the number.
    """

    split: int | None
    number: int | None
    id: str | int | None
    data: dict[str, Any] | None
    failure: Failure | None = None


class Prompt(NamedTuple):
    """A row with its rendered user message."""

    row: Row
    text: str


class Outcome(NamedTuple):
    """What became of one row in one attempt: its envelope and its telemetry."""

    split: int | None
    row_number: int | None
    ok: bool
    envelope: dict[str, Any]
    telemetry: dict[str, Any]


class Receipt(NamedTuple):
    """A closed part file and how many outcomes it holds."""

    split: int
    path: str
    outcomes: int
