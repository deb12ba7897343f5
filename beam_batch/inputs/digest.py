"""What identifies an input's content, so that a resumed run can tell that it has changed."""

from __future__ import annotations

import hashlib
import os

WHOLE = 16 << 20
"""Files up to this many bytes are read whole; of larger binary ones, evenly spaced blocks."""
_BLOCK = 1 << 20
_SAMPLES = 256
_SAMPLE_BYTES = 64 << 10


def whole_digest(path: str) -> str:
    """Return a digest of all bytes of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sampled_digest(path: str, tail: int) -> str:
    """Return a digest of a file's size, its last bytes, and blocks spread over the rest."""
    size = os.path.getsize(path)
    if size <= WHOLE:
        return whole_digest(path)
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with open(path, "rb", buffering=0) as file:
        for place in range(_SAMPLES):
            file.seek(size * place // _SAMPLES)
            digest.update(file.read(_SAMPLE_BYTES))
        file.seek(max(0, size - tail))
        digest.update(file.read())
    return digest.hexdigest()
