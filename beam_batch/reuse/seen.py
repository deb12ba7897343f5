"""Which keys may have been seen: a Bloom filter of fixed size."""

from __future__ import annotations

import struct
from collections.abc import Iterable

BITS = 1 << 26
"""8 MiB. Of a million keys one in a thousand others looks seen, of ten million one in fifteen."""
_TWO = struct.Struct("<II")


class Seen:
    """Says of a key that it was certainly not added, or that it may have been.

    Asking the database costs four microseconds and the interpreter's lock, this costs one.
    """

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self._bits = bytearray(BITS // 8)
        for key in keys:
            self.add(key)

    def add(self, key: bytes) -> None:
        """Add a key: a digest, of which the first eight bytes are used."""
        one, two = _TWO.unpack_from(key)
        one, two = one % BITS, two % BITS
        self._bits[one >> 3] |= 1 << (one & 7)
        self._bits[two >> 3] |= 1 << (two & 7)

    def may_have(self, key: bytes) -> bool:
        """Whether a key may have been added."""
        one, two = _TWO.unpack_from(key)
        one, two = one % BITS, two % BITS
        bits = self._bits
        return bool(bits[one >> 3] >> (one & 7) & 1 and bits[two >> 3] >> (two & 7) & 1)
