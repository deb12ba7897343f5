"""What is reached through fsspec: its file systems, and reads that are tried again."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

from beam_batch.errors import InputLost, OptionsError, first_line

LARGEST_WHOLE = 64 << 20
"""Bytes of a file that is kept in memory where its server serves no ranges."""
ATTEMPTS = 6
"""Times that a remote read is tried, with waits of 0.5, 1, 2, 4 and 8 seconds between."""
HUB_ATTEMPTS = 2
"""For bytes of the Hub: its client tries those six times itself."""

STORES = ("s3", "gs", "gcs", "az", "abfs")
"""Schemes of object stores."""

_EXTRAS = {"hf": "hub", "s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az"}


def scheme_of(uri: str) -> str:
    """Return the scheme of a URI, '' for a local path."""
    scheme, found, _ = uri.partition("://")
    return scheme.lower() if found and scheme.isalnum() else ""


def filesystem_of(uri: str, **options: Any) -> Any:
    """Return the fsspec filesystem of a remote URI; options are its own.

    Raises:
        OptionsError: unknown scheme, or what it needs is not installed.
    """
    scheme = scheme_of(uri)
    try:
        if scheme == "hf":
            from huggingface_hub import HfFileSystem
            from huggingface_hub.utils import logging

            logging.set_verbosity_error()  # its retries are told by ours, in one line
            return HfFileSystem()
        import fsspec

        return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        extra = _EXTRAS.get(scheme, "remote")
        raise OptionsError(
            f"{uri} needs more than is installed ({first_line(error)}): "
            f"pip install 'beam-batch[{extra}]'."
        ) from None
    except ValueError as error:
        raise OptionsError(f"{uri}: {first_line(error)}; name a file or a known URL.") from None


def retried(call: Callable[[], Any], uri: str, attempts: int = ATTEMPTS) -> Any:
    """Call something remote, again where it fails in a way that may pass.

    Raises:
        InputLost: it failed every time.
        Exception: whatever the call raises where trying again is no use (not found, refused).
    """
    import tenacity

    try:
        return tenacity.Retrying(
            stop=tenacity.stop_after_attempt(attempts),
            wait=tenacity.wait_exponential(multiplier=0.5, max=30),
            retry=tenacity.retry_if_exception(_may_pass),
            reraise=True,
        )(call)
    except Exception as error:  # clients of object stores raise what they like
        if isinstance(error, (FileNotFoundError, PermissionError)) or _status(error) is not None:
            raise
        raise InputLost(f"{uri} cannot be read: {first_line(error)}") from None


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, (FileNotFoundError, PermissionError, ImportError, OptionsError)):
        return False
    if "Credentials" in type(error).__name__:
        return False
    return isinstance(error, Exception) and _status(error) in (None, 408, 425, 429)


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an error carries where it is the client's fault (4xx)."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    status = status if status is not None else getattr(error, "status", None)
    return status if isinstance(status, int) and 400 <= status < 500 else None


class RemoteFile(io.RawIOBase):
    """A remote file whose reads are ranges; one that fails is asked for again."""

    def __init__(self, uri: str, filesystem: Any = None, size: int | None = None) -> None:
        super().__init__()
        self._uri = uri
        self._filesystem = filesystem or filesystem_of(uri)
        self._path = self._filesystem._strip_protocol(uri)
        if size is None:
            size = int(self._asked(lambda: self._filesystem.info(self._path))["size"])
        self._size = size
        self._place = 0
        self._whole: bytes | None = None

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

    def _asked(self, call: Callable[[], Any]) -> Any:
        """Call the store; whatever it refuses, the input is lost, and no row is to blame."""
        try:
            return retried(
                call, self._uri, HUB_ATTEMPTS if scheme_of(self._uri) == "hf" else ATTEMPTS
            )
        except (InputLost, OptionsError):
            raise
        except Exception as error:  # clients of object stores raise what they like
            hint = ""
            if scheme_of(self._uri) == "hf" and _status(error) in (401, 403, 404):
                hint = " It may be private or gated: accept its terms, and set HF_TOKEN."
            raise InputLost(f"{self._uri} cannot be read: {first_line(error)}{hint}") from None

    def _range(self, size: int) -> bytes:
        start, stop = self._place, min(self._place + size, self._size)
        if stop <= start:
            return b""
        if self._whole is not None:
            self._place = stop
            return self._whole[start:stop]
        exact = {"cache_type": "none"} if scheme_of(self._uri) == "hf" else {}
        data: bytes = self._asked(
            lambda: self._filesystem.cat_file(self._path, start=start, end=stop, **exact)
        )
        if len(data) == self._size > stop - start and self._size <= LARGEST_WHOLE:
            self._whole = data  # the server serves no ranges; the file is small enough to keep
            self._place = stop
            return data[start:stop]
        if len(data) > stop - start:
            raise OptionsError(
                f"{self._uri}: the server serves no ranges of bytes; download the file first."
            )
        self._place += len(data)
        return data
