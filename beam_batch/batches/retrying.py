"""Trying again what failed for a reason that may pass, and waiting in a way that can be stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from beam_batch.batches.account import Stopped
from beam_batch.calling.retrying import LONGEST_RETRY_AFTER
from beam_batch.errors import ProviderError
from beam_batch.options import CallSpec

LONGEST_WAIT = 60.0
"""Seconds between two looks at a batch at most, unless the first wait was set longer."""
GROWTH = 1.5
SLICE = 0.1
"""Seconds after which a wait notices that the run is to stop."""

T = TypeVar("T")


class Patience:
    """Waits and tries again for one run."""

    def __init__(self, call: CallSpec, stopped: Callable[[], bool]) -> None:
        self._stopped = stopped
        self._backoff = wait_random_exponential(multiplier=call.retry_wait, max=call.retry_max_wait)
        self._retrying = Retrying(
            retry=retry_if_exception(may_pass),
            stop=stop_after_attempt(call.max_attempts),
            wait=self._wait_for,
            sleep=self.pause,
            reraise=True,
        )

    def again(self, call: Callable[[], T]) -> T:
        """Call something, up to `--max-attempts` times; Retry-After comes before our own waits.

        Raises:
            Stopped: the run stopped meanwhile.
            BatchError: it failed for a reason that will not pass, or for the last time.
        """
        if self._stopped():
            raise Stopped
        return self._retrying.copy()(call)

    def pause(self, seconds: float) -> None:
        """Wait; raise Stopped as soon as the run stops."""
        end = time.monotonic() + seconds
        while not self._stopped():
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(SLICE, left))
        raise Stopped

    def _wait_for(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked = getattr(error, "retry_after", None)
        return float(asked if asked is not None else self._backoff(state))


def may_pass(error: BaseException) -> bool:
    """Whether a further attempt may succeed."""
    if not isinstance(error, ProviderError) or not error.retryable:
        return False
    return error.retry_after is None or error.retry_after <= LONGEST_RETRY_AFTER
