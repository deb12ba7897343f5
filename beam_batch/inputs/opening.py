"""Opening inputs: local files, and remote ones through fsspec with reads that are tried again."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import IO, Any

from beam_batch.errors import InputLost, OptionsError, first_line

BUFFER = 1 << 20
REMOTE_BUFFER = 8 << 20
ATTEMPTS = 6
"""Times that a remote read is tried, with waits of 0.5, 1, 2, 4 and 8 seconds between."""

_EXTRAS = {"hf": "hub", "s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az"}


def scheme_of(uri: str) -> str:
    """Return the scheme of a URI, '' for a local path."""
    scheme, found, _ = uri.partition("://")
    return scheme.lower() if found and scheme.isalnum() else ""


def filesystem_of(uri: str) -> Any:
    """Return the fsspec filesystem of a remote URI.

    Raises:
        OptionsError: unknown scheme, or what it needs is not installed.
    """
    scheme = scheme_of(uri)
    try:
        if scheme == "hf":
            from huggingface_hub import HfFileSystem

            return HfFileSystem()
        import fsspec

        return fsspec.filesystem(scheme)
    except ImportError as error:
        extra = _EXTRAS.get(scheme, "remote")
        raise OptionsError(
            f"{uri} needs more than is installed ({first_line(error)}): "
            f"pip install 'beam-batch[{extra}]'."
        ) from None
    except ValueError as error:
        raise OptionsError(f"{uri}: {first_line(error)}; name a file or a known URL.") from None


def open_binary(uri: str) -> IO[bytes]:
    """Open a local path or a remote URI for reading; seekable.

    Raises:
        OSError: a local file cannot be opened.
        InputLost: a remote one cannot be read, after some attempts.
    """
    if not scheme_of(uri):
        return open(uri, "rb", buffering=BUFFER)
    return io.BufferedReader(_RemoteFile(uri), REMOTE_BUFFER)


def open_random(uri: str) -> Any:
    """Open for reading here and there (Parquet): a path for pyarrow, or a remote file."""
    return uri if not scheme_of(uri) else _RemoteFile(uri)


def retried(call: Callable[[], Any], uri: str) -> Any:
    """Call something remote, again where it fails in a way that may pass.

    Raises:
        InputLost: it failed every time.
        Exception: whatever the call raises where trying again is no use (not found, refused).
    """
    import tenacity

    try:
        return tenacity.Retrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_exponential(multiplier=0.5, max=30),
            retry=tenacity.retry_if_exception(_may_pass),
            reraise=True,
        )(call)
    except Exception as error:  # clients of object stores raise what they like
        if not _may_pass(error):
            raise
        raise InputLost(f"{uri} cannot be read: {first_line(error)}") from None


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, (FileNotFoundError, PermissionError)):
        return False
    status = getattr(getattr(error, "response", None), "status_code", None)
    status = status if status is not None else getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status in (408, 425, 429)
    return isinstance(error, Exception)


class _RemoteFile(io.RawIOBase):
    """A remote file whose reads are ranges; one that fails is asked for again."""

    def __init__(self, uri: str) -> None:
        super().__init__()
        self._uri = uri
        self._filesystem = filesystem_of(uri)
        self._path = self._filesystem._strip_protocol(uri)
        self._size = int(retried(lambda: self._filesystem.info(self._path), uri)["size"])
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def size(self) -> int:
        """Return the size in bytes; pyarrow asks for it."""
        return self._size

    def readinto(self, buffer: Any) -> int:
        data = self._range(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        return self._range(self._size if size is None or size < 0 else size)

    def _range(self, size: int) -> bytes:
        start, stop = self._place, min(self._place + size, self._size)
        if stop <= start:
            return b""
        data: bytes = retried(
            lambda: self._filesystem.cat_file(self._path, start=start, end=stop), self._uri
        )
        self._place += len(data)
        return data
