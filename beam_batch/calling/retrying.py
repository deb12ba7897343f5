"""When to send a request again, and after how long. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from beam_batch.errors import ProviderError

LONGEST_RETRY_AFTER = 3600.0
"""Seconds; a provider that asks for more has failed the row (it can be resumed later)."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with full jitter; a wait that the provider names comes first.

    Attributes:
        max_attempts: requests a row may cost, the first included.
        wait: seconds that the first wait is drawn from.
        max_wait: longest wait of our own choosing, in seconds.
    """

    max_attempts: int
    wait: float
    max_wait: float

    def delay(
        self, attempt: int, error: ProviderError, random: Callable[[], float]
    ) -> float | None:
        """Return seconds to wait after a failed attempt (from 1), or None to give up.

        >>> from beam_batch.errors import ServerError
        >>> policy = RetryPolicy(max_attempts=3, wait=1, max_wait=60)
        >>> policy.delay(2, ServerError("503"), lambda: 0.5)
        1.0
        """
        if not error.retryable or attempt >= self.max_attempts:
            return None
        backoff: float = min(self.max_wait, self.wait * 2 ** min(attempt - 1, 60))
        if error.retry_after is not None:
            if error.retry_after > LONGEST_RETRY_AFTER:
                return None
            return error.retry_after + random() * min(1.0, self.wait)
        return random() * backoff
