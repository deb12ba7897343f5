"""The budget: no request is sent whose worst case could pass a cap of the run."""

from __future__ import annotations

import asyncio
import contextlib
import random

from beam_batch import jsonio
from beam_batch.calling.gate import Dropped
from beam_batch.calling.pricing import Pricer
from beam_batch.outputs.ledger import AnyLedger, Balance, LedgerSpec, Sum
from beam_batch.outputs.stopping import StopFlag
from beam_batch.providers.base import Request, Usage

FRAME_TOKENS = 256
"""Tokens that a provider may add around a request's own text."""
IMAGE_TOKENS = 50_000
"""Tokens that an image may cost at most."""
_PAUSE, _LONG_PAUSE = 0.05, 2.0


def worst_input(request: Request) -> int:
    """Bound the input tokens of a request: a token is one byte at least."""
    return len(jsonio.dumps(request.body)) + FRAME_TOKENS + request.images * IMAGE_TOKENS


class Budget:
    """Sets the worst case of each request of a model aside before it is sent.

    Args:
        caps: the caps of the run, and where its ledger is.
        stop: raised where one is reached.
        max_output: tokens that an answer of the model has at most.
    """

    def __init__(self, caps: LedgerSpec, stop: StopFlag, max_output: int, pricer: Pricer) -> None:
        self._caps = caps
        self._stop_flag = stop
        self._max_output = max_output
        self._pricer = pricer
        self._ledger: AnyLedger = caps.open()
        self._line = asyncio.Lock()

    async def reserve(self, request: Request) -> Sum:
        """Wait until the request's worst case fits.

        Raises:
            Dropped: it does not, and nothing in flight can make room: the run stops, exit 4.
        """
        worst = self._worst(request)
        if not self._line.locked() and self._ledger.reserve(worst) is None:
            return worst
        async with self._line:
            while (balance := await self._try(worst)) is not None:
                if self._stop_flag.is_set_here():
                    raise Dropped
                if balance.reserved.nano_usd <= 0 and balance.reserved.tokens <= 0:
                    self._stop(worst, balance.spent)
                    raise Dropped
                await asyncio.sleep(_LONG_PAUSE * random.random() if self._ledger.waits else _PAUSE)
        return worst

    async def _try(self, worst: Sum) -> Balance | None:
        """Set a sum aside, with room from elsewhere where a place has to be asked for it."""
        balance = self._ledger.reserve(worst)
        if balance is None or not self._ledger.waits:
            return balance
        asked = asyncio.get_running_loop().run_in_executor(None, self._ledger.refill, worst)
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(lambda done: self._give_back(done, worst))
            raise
        except OSError as error:  # nobody knows what may still be spent
            self._stop_flag.set(f"cannot reach the ledger: {error.strerror}", 1)
            raise Dropped from None

    def _give_back(self, asked: asyncio.Future[Balance | None], worst: Sum) -> None:
        """Release what was set aside for a row that waits no more."""
        if not asked.cancelled() and asked.exception() is None and asked.result() is None:
            self.release(worst)

    def settle(self, worst: Sum, usage: Usage | None, usd: float | None) -> None:
        """Settle an answered request; what the provider does not say counts at its worst."""
        tokens = usage.total if usage is not None else None
        spent = Sum.of(
            worst.usd if usd is None else usd, worst.tokens if tokens is None else tokens
        )
        self._ledger.settle(worst, spent)

    def release(self, worst: Sum) -> None:
        """Give back what a request did not cost: the provider refused it."""
        self._ledger.settle(worst, Sum(0, 0))

    def renew(self) -> None:
        """Tell others what was spent; waits for the place."""
        with contextlib.suppress(OSError):  # the next request that needs room will say so
            self._ledger.renew()

    def close(self) -> None:
        """Close the ledger; waits for the place. What it could not be told counts as spent."""
        with contextlib.suppress(OSError):
            self._ledger.close()

    def _worst(self, request: Request) -> Sum:
        given = worst_input(request)
        usd = self._pricer.worst(given, self._max_output)
        return Sum.of(usd or 0.0, given + self._max_output)

    def _stop(self, worst: Sum, spent: Sum) -> None:
        spec = self._caps
        is_money = spec.max_cost is not None and spent.usd + worst.usd > spec.max_cost
        if spec.max_cost is not None and (is_money or spec.max_tokens is None):
            reason = (
                f"stopped by --max-cost {spec.max_cost:g}: {spent.usd:.4f} USD are spent, and the "
                f"next request may cost {worst.usd:.4f}"
            )
        else:
            reason = (
                f"stopped by --max-tokens-total {spec.max_tokens}: {spent.tokens} are spent, and "
                f"the next request may cost {worst.tokens}"
            )
        self._stop_flag.set(reason, 4)
