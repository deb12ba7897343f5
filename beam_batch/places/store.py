"""A prefix of an object store as a place, through fsspec: s3://, gs://, az:// and others."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from beam_batch.errors import BatchError, OptionsError, first_line
from beam_batch.places.base import Listed
from beam_batch.places.remote import STORES, RemoteFile, filesystem_of, retried, scheme_of

ATTEMPTS = 4
"""Times that a request of ours is made; the clients of the stores try again by themselves."""
AT_ONCE = 500
READ_AHEAD = 8 << 20
_CLIENT = {"s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 20}}}
"""Settings of clients by scheme: seconds after which a silent store is asked again."""


class Store:
    """A prefix of an object store; opened at first use."""

    is_folder = False

    def __init__(self, uri: str) -> None:
        """Name the prefix.

        Raises:
            OptionsError: what the scheme needs is not installed, or it is no object store.
        """
        if scheme_of(uri) not in STORES:
            raise OptionsError(f"{uri} is no object store; use s3://, gs:// or az://.")
        self.uri = uri.rstrip("/")
        self._files = filesystem_of(
            self.uri, use_listings_cache=False, **_CLIENT.get(scheme_of(uri), {})
        )
        self._is_down = False  # then a request is made once, until one is answered
        self._root = str(self._files._strip_protocol(self.uri)).rstrip("/")

    def put(self, name: str, data: bytes) -> None:
        """Put an object by one request."""
        self._asked(lambda: self._files.pipe_file(self._path(name), data))

    def put_file(self, name: str, path: Path) -> None:
        """Put a file in place; a large one in parts, and visible when all are there."""
        self._asked(lambda: self._files.put_file(str(path), self._path(name)))

    def get(self, name: str) -> bytes | None:
        """Get an object by one request."""
        try:
            data: bytes = self._asked(lambda: self._files.cat_file(self._path(name)))
        except FileNotFoundError:
            return None
        return data

    def list(self, prefix: str) -> list[Listed]:
        """List objects; only those below the folder that the prefix names are asked for."""
        folder, _, start = prefix.rpartition("/")
        where = f"{self._root}/{folder}".rstrip("/")
        options = {"prefix": start} if start else {}
        try:
            found = self._asked(lambda: self._files.find(where, detail=True, **options))
        except FileNotFoundError:
            return []
        skip = len(self._root) + 1
        named = (Listed(path[skip:], int(info["size"])) for path, info in found.items())
        return sorted(item for item in named if item.name and item.name.startswith(prefix))

    def names(self) -> set[str]:
        """List what is directly below the prefix, whatever else there may be."""
        try:
            found = self._asked(lambda: self._files.ls(self._root, detail=False))
        except FileNotFoundError:
            return set()
        below = (str(path).rstrip("/")[len(self._root) + 1 :] for path in found)
        return {name for name in below if name}  # the prefix itself may be an object

    def open(self, name: str) -> IO[bytes]:
        """Open an object; reads are ranges of 8 MiB."""
        size = int(self._asked(lambda: self._files.info(self._path(name)))["size"])
        return io.BufferedReader(
            _Object(f"{self.uri}/{name}", self._files, size, self._asked), READ_AHEAD
        )

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects, some hundred in one request."""
        names = iter(names)
        while chunk := [self._path(name) for name in islice(names, AT_ONCE)]:
            self._remove(chunk)

    def _remove(self, paths: Sequence[str]) -> None:
        try:
            self._asked(lambda: self._files.rm(paths))
        except FileNotFoundError:
            if len(paths) > 1:  # one of them is gone: the others are not
                for path in paths:
                    self._remove([path])

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _asked(self, call: Callable[[], Any]) -> Any:
        try:
            result = retried(call, self.uri, 1 if self._is_down else ATTEMPTS)
        except OptionsError:
            raise
        except Exception as error:  # clients of object stores raise what they like
            self._is_down = isinstance(error, BatchError)
            said = error.__context__ if isinstance(error, BatchError) else error
            raise OSError(_errno(error), first_line(said or error), self.uri) from None
        self._is_down = False
        return result


class _Object(RemoteFile):
    """An object open for reading; what goes wrong meanwhile is an OSError of its store's."""

    def __init__(
        self, uri: str, files: Any, size: int, asked: Callable[[Callable[[], Any]], Any]
    ) -> None:
        super().__init__(uri, files, size)
        self._asked_store = asked

    def _asked(self, call: Callable[[], Any]) -> Any:
        return self._asked_store(call)


def _errno(error: Exception) -> int:
    """Return the number that makes an OSError of the same kind."""
    if isinstance(error, FileNotFoundError):
        return errno.ENOENT
    return errno.EACCES if isinstance(error, PermissionError) else errno.EIO
