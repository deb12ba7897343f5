"""Keys that send requests with the same beginning to where that beginning is cached."""

from __future__ import annotations

import hashlib
import math
import time

LEAST_BYTES = 4096
"""About 1,024 tokens; nothing shorter is cached (OpenAI's guide on prompt caching)."""
REQUESTS_A_MINUTE = 15
"""More than this with one key, and OpenAI spreads them over machines without the cache (ibid.)."""
_SPAN = 10.0


class CacheKeys:
    """Hands out keys: one a prefix, or several where one would be used too often."""

    def __init__(self, prefix: str) -> None:
        digest = hashlib.blake2b(prefix.encode(), digest_size=8).hexdigest()
        self._name = f"beam-batch-{digest}"
        self._shards = 1
        self._count = 0
        self._span_start = time.monotonic()
        self._span_count = 0

    def next(self) -> str:
        """Return the key of the next request."""
        self._count += 1
        self._span_count += 1
        passed = time.monotonic() - self._span_start
        if passed >= _SPAN:
            self._grow(self._span_count * 60 / passed)
            self._span_start += passed
            self._span_count = 0
        return f"{self._name}-{self._count % self._shards}"

    def _grow(self, per_minute: float) -> None:
        """Use as many keys as the rate needs, a power of two of them so that most stay warm."""
        wanted = max(1.0, per_minute / REQUESTS_A_MINUTE)
        self._shards = max(self._shards, 1 << math.ceil(math.log2(wanted)))


def cache_keys(prefix: str) -> CacheKeys | None:
    """Return keys for a prefix that is long enough to be cached, else None."""
    return CacheKeys(prefix) if len(prefix.encode()) >= LEAST_BYTES else None
