"""The elements that travel through the pipeline."""

from __future__ import annotations

from typing import Any, NamedTuple


class Source(NamedTuple):
    """One file that rows are read from.

    Attributes:
        uri: as the user knows it.
        path: what is opened: a local path, or a URL.
        format: a key of `inputs.formats.FORMATS`.
        stamp: what must still be so when it is read (`inputs.resolve.stamp_of`), or ''.
        delimiter, quote: of CSV; an empty quote means that there is none.
    """

    uri: str
    path: str
    format: str
    stamp: str
    delimiter: str = ","
    quote: str = '"'


class Split(NamedTuple):
    """A run of consecutive rows of one file, and which of them are worked on.

    Attributes:
        start, stop: byte range (text formats) or row range (Parquet, Arrow).
        first_row: 1-based number of its first row in the whole input.
        rows: how many rows it holds.
        selected: how many of them are worked on.
        first_pick: number of the first selected row where they are consecutive, else the place of
            the first selected number in `picks_file`.
        shard: the group of consecutive rows that its results are kept with.
    """

    source: Source
    start: int
    stop: int
    first_row: int
    rows: int
    selected: int
    first_pick: int = 0
    picks_file: str | None = None
    shard: int = 0


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
        shard: where its results are kept, or None in a pipeline without a plan.
        number: 1-based row number, or None in a pipeline without a plan.
        id: the value of the id field as text, else the number.
    """

    shard: int | None
    number: int | None
    id: str | int | None
    data: dict[str, Any] | None
    failure: Failure | None = None


class Image(NamedTuple):
    """An image in a prompt: a URL that the provider fetches, or media type and base64 data."""

    url: str | None
    media_type: str | None
    data: str | None

    @property
    def as_url(self) -> str:
        """The URL, or a data: URL."""
        return self.url or f"data:{self.media_type};base64,{self.data}"


Content = str | tuple[str | Image, ...]
"""A user message: text, or text and images in their order."""


class Prompt(NamedTuple):
    """A row with its rendered user message."""

    row: Row
    text: Content


class Outcome(NamedTuple):
    """What became of one row in one attempt: its envelope and its telemetry.

    Attributes:
        trace: records of its conversation (`outputs.traces.trace_of`), or None.
    """

    shard: int | None
    row_number: int | None
    ok: bool
    envelope: dict[str, Any]
    telemetry: dict[str, Any]
    trace: tuple[dict[str, Any], ...] | None = None
