"""What a place is: whole objects by name, that every worker and the driver see alike."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import IO, NamedTuple, Protocol


class Listed(NamedTuple):
    """An object that is there: its name below the place, and its size in bytes."""

    name: str
    size: int


class Place(Protocol):
    """A folder, or a prefix of an object store. Names are relative, with / between their parts.

    Nothing but `put` changes an object, and it puts one in place whole. Whatever is put is seen by
    all, in `get` and in `list`, once `put` has returned: so it is on file systems, and on S3, GCS
    and Azure (docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel).

    Every method raises OSError where the place cannot be used; of a store, `filename` is its URI.

    Attributes:
        uri: the place as a user writes it.
        is_folder: whether it is a folder of a file system, with locks and files that grow.
    """

    uri: str
    is_folder: bool

    def put(self, name: str, data: bytes) -> None:
        """Put an object in place of what has that name; durable when it returns."""

    def put_file(self, name: str, path: Path) -> None:
        """Put a file of this machine in place, like `put`, without holding it in memory."""

    def get(self, name: str) -> bytes | None:
        """Return an object, or None where there is none."""

    def list(self, prefix: str) -> list[Listed]:
        """List all objects whose names begin so, by name; where there is none, nothing.

        A prefix is the beginning of a text: "a/" is all that is below a, however deep, "a/b" is
        a/b, a/bc and a/b/c, and "" is everything. Nothing is said of folders, and a file of a
        folder whose name ends with .tmp is one in the making, no object.
        """

    def names(self) -> set[str]:
        """Return the first parts of all names that are there."""

    def open(self, name: str) -> IO[bytes]:
        """Open an object for reading, from front to back or here and there.

        Raises:
            FileNotFoundError: there is none.
        """

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are gone already are none of its business."""
