"""Opening inputs, local or remote."""

from __future__ import annotations

import io
from typing import IO, Any

from beam_batch.places.remote import RemoteFile, filesystem_of, scheme_of

BUFFER = 1 << 20
REMOTE_BUFFER = 8 << 20


def open_binary(uri: str) -> IO[bytes]:
    """Open a local path or a remote URI for reading; seekable.

    Raises:
        OSError: a local file cannot be opened.
        InputLost: a remote one cannot be read, after some attempts.
    """
    if not scheme_of(uri):
        return open(uri, "rb", buffering=BUFFER)
    return io.BufferedReader(RemoteFile(uri), REMOTE_BUFFER)


def open_stream(uri: str) -> Any:
    """Open for reading from front to back, once; servers without ranges will do."""
    if scheme_of(uri) in ("http", "https"):
        return filesystem_of(uri).open(uri, "rb", block_size=0)
    return open_binary(uri)


def open_random(uri: str) -> Any:
    """Open for reading here and there (Parquet): a path for pyarrow, or a remote file."""
    return uri if not scheme_of(uri) else RemoteFile(uri)
