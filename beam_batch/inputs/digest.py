"""What identifies an input's content, so that a resumed run can tell that it has changed."""

from __future__ import annotations

import hashlib
import os

from beam_batch.places.remote import scheme_of
from beam_batch.records import Source

WHOLE = 16 << 20
"""Columnar files up to this many bytes are read whole; of larger ones, evenly spaced blocks."""
_BLOCK = 1 << 20
_SAMPLES = 256
_SAMPLE_BYTES = 64 << 10


def content_digest(source: Source, stop: int | None = None) -> str:
    """Return a digest of a source, or of its first `stop` bytes.

    Text is read whole. Of a large Parquet or Arrow file it is the footer and blocks spread over
    the rest; of a remote one its name and the store's own mark (commit, entity tag).
    """
    if scheme_of(source.path):
        return hashlib.blake2b(f"{source.path} {source.stamp}".encode(), digest_size=16).hexdigest()
    return _whole(source.path, stop) if is_whole(source) else _sampled(source.path)


def is_whole(source: Source) -> bool:
    """Whether a source's digest is one of all its bytes."""
    if scheme_of(source.path):
        return False
    return source.format not in ("parquet", "arrow") or os.path.getsize(source.path) <= WHOLE


def _whole(path: str, stop: int | None) -> str:
    digest = hashlib.blake2b(digest_size=16)
    left = os.path.getsize(path) if stop is None else stop
    with open(path, "rb", buffering=0) as file:
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _sampled(path: str) -> str:
    """Digest the size, the footer (its length stands 8 bytes before the end), and some blocks."""
    size = os.path.getsize(path)
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with open(path, "rb", buffering=0) as file:
        for place in range(_SAMPLES):
            file.seek(size * place // _SAMPLES)
            digest.update(file.read(_SAMPLE_BYTES))
        file.seek(size - 8)
        tail = int.from_bytes(file.read(4), "little") + 8
        file.seek(max(0, size - min(tail, WHOLE)))
        digest.update(file.read())
    return digest.hexdigest()
