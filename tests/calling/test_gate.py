"""The gate against a simulated provider, on a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from beam_batch.calling.gate import Dropped, Gate, GateSpec
from beam_batch.calling.limits import Limits, read_limits
from beam_batch.errors import FatalReply, RateLimited, ServerError
from tests.calling.virtual import run


class Provider:
    """Lets `rate` requests a second through, and up to `burst` at once after a pause."""

    def __init__(self, rate: float, burst: float, latency: float, slots: int = 10**6) -> None:
        self.rate, self.burst, self.latency = rate, burst, latency
        self.level, self.at = burst, 0.0
        self.answers: list[float] = []
        self.refusals: list[float] = []
        self.starts: list[float] = []
        self.busy = self.most = 0
        self.slots = asyncio.Semaphore(slots)

    async def ask(self) -> None:
        now = asyncio.get_running_loop().time()
        self.starts.append(now)
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < 1:
            self.refusals.append(now)
            await asyncio.sleep(0.01)
            raise RateLimited("429: slow down", retry_after=1.0, status=429)
        self.level -= 1
        self.busy += 1
        self.most = max(self.most, self.busy)
        async with self.slots:
            await asyncio.sleep(self.latency)
        self.busy -= 1
        self.answers.append(asyncio.get_running_loop().time())


async def _ask_for(gate: Gate, ask: Callable[[], Any], seconds: float, rows: int = 600) -> None:
    """Keep as many rows waiting as a window holds; each goes on until the time is over."""
    loop = asyncio.get_running_loop()

    async def row(number: int) -> None:
        while loop.time() < seconds:
            turn = await gate.enter(number)
            try:
                await ask()
            except (RateLimited, ServerError) as error:
                gate.leave(turn, error)
                await asyncio.sleep(error.retry_after or 0.5)
            else:
                gate.leave(turn)

    rows_at_work = [asyncio.ensure_future(row(n)) for n in range(rows)]
    await asyncio.sleep(seconds)
    gate.stop()
    await asyncio.gather(*rows_at_work, return_exceptions=True)


def _gate(**spec: Any) -> Gate:
    return Gate(GateSpec(**spec), asyncio.get_running_loop().time)


@pytest.mark.parametrize(
    ("latency", "burst"),
    [(0.02, 50), (0.1, 5), (0.1, 50), (0.1, 100), (0.5, 5), (0.5, 50), (2, 50), (2, 100)],
)
def test_auto_uses_a_rate_limit_to_the_full_and_is_seldom_refused(
    latency: float, burst: float
) -> None:
    async def main() -> Provider:
        provider = Provider(50, burst, latency)
        await _ask_for(_gate(parallel=None), provider.ask, 75)
        return provider

    provider = run(main())
    steady = [at for at in provider.answers if 15 <= at < 75]
    assert len(steady) >= 0.95 * 50 * 60
    assert len(provider.refusals) <= 0.02 * len(provider.starts)


def test_auto_grows_where_nothing_is_refused_and_stops_where_more_does_not_help() -> None:
    async def main(slots: int) -> Provider:
        provider = Provider(10**9, 10**9, 0.5, slots)
        await _ask_for(_gate(parallel=None), provider.ask, 60)
        return provider

    assert run(main(10**6)).most == 512
    few = run(main(8))
    assert few.most < 80
    assert len(few.answers) > 0.9 * 60 * 8 / 0.5


@pytest.mark.parametrize("number", [1, 7])
def test_a_number_is_kept_and_the_first_request_goes_alone(number: int) -> None:
    async def main() -> tuple[Provider, int]:
        provider = Provider(10**9, 10**9, 0.2)
        gate = _gate(parallel=number)
        waiting = asyncio.ensure_future(_ask_for(gate, provider.ask, 5))
        await asyncio.sleep(0.1)
        alone = len(provider.starts)
        await waiting
        return provider, alone

    provider, alone = run(main())
    assert alone == 1
    assert provider.most == number


def test_requests_a_minute_are_kept_in_every_minute() -> None:
    async def main() -> Provider:
        provider = Provider(10**9, 10**9, 0.5)
        await _ask_for(_gate(parallel=None, rpm=120), provider.ask, 200)
        return provider

    starts = run(main()).starts
    assert 390 <= len(starts) <= 402
    for start in starts:
        assert sum(start <= at < start + 60 for at in starts) <= 121


def test_tokens_a_minute_follow_what_requests_really_cost() -> None:
    async def main() -> int:
        gate = _gate(parallel=None, tpm=6000)
        loop, done = asyncio.get_running_loop(), 0

        async def row(number: int) -> None:
            nonlocal done
            while loop.time() < 120:
                turn = await gate.enter(number, 50.0)
                await asyncio.sleep(0.2)
                gate.leave(turn, tokens=200.0)
                done += 200

        rows = [asyncio.ensure_future(row(n)) for n in range(50)]
        await asyncio.sleep(120)
        gate.stop()
        await asyncio.gather(*rows, return_exceptions=True)
        return done

    assert 11_000 <= run(main()) <= 14_000


def test_headers_name_limits_where_the_user_does_not() -> None:
    async def main(spare: int | None = None, **spec: Any) -> Provider:
        provider = Provider(10**9, 10**9, 0.1)
        gate = _gate(parallel=None, **spec)
        loop = asyncio.get_running_loop()
        left = {"x-ratelimit-remaining-requests": str(spare)} if spare is not None else {}

        async def row(number: int) -> None:
            while loop.time() < 60:
                turn = await gate.enter(number)
                await provider.ask()
                gate.leave(turn, headers={"x-ratelimit-limit-requests": "600"} | left)

        rows = [asyncio.ensure_future(row(n)) for n in range(50)]
        await asyncio.sleep(60)
        gate.stop()
        await asyncio.gather(*rows, return_exceptions=True)
        return provider

    assert 580 <= len(run(main()).starts) <= 640
    assert 0 < len(run(main(spare=0)).starts) <= 640
    assert len(run(main(rpm=1200)).starts) > 1100


def test_an_outage_pauses_all_but_probes_and_ends_with_the_first_answer() -> None:
    async def main() -> tuple[list[float], list[float]]:
        loop = asyncio.get_running_loop()
        failures: list[float] = []
        answers: list[float] = []

        async def ask() -> None:
            await asyncio.sleep(0.05)
            if 10 <= loop.time() < 70:
                failures.append(loop.time())
                raise ServerError("503: gone", status=503)
            answers.append(loop.time())

        await _ask_for(_gate(parallel=20), ask, 150, rows=40)
        return failures, answers

    failures, answers = run(main())
    assert len(failures) < 60  # not thousands
    assert [at for at in answers if at > 110]


@pytest.mark.parametrize(("pause", "lasts"), [(30.0, 960.0), (960.0, 0.0)])
def test_the_time_in_which_nobody_asks_is_no_outage(pause: float, lasts: float) -> None:
    now = 0.0

    async def main() -> None:
        nonlocal now
        gate = Gate(GateSpec(parallel=4), clock=lambda: now)
        while now <= 960:
            gate.leave(await gate.enter(1), RateLimited("429", status=429))
            assert gate.outage_seconds == (now if lasts else 0.0)
            now += pause

    run(main())


def test_a_stopped_gate_lets_nobody_through() -> None:
    async def main() -> list[Any]:
        gate = _gate(parallel=1)
        turn = await gate.enter(1)
        waiting = [asyncio.ensure_future(gate.enter(n)) for n in range(3)]
        await asyncio.sleep(0)
        gate.stop()
        gate.leave(turn, FatalReply("no"))
        found = await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(Dropped):
            await gate.enter(9)
        return found

    assert all(isinstance(found, Dropped) for found in run(main()))


def test_a_fault_of_every_request_reaches_all_who_wait() -> None:
    async def main() -> list[Any]:
        gate = _gate(parallel=1)
        await gate.enter(1)
        waiting = [asyncio.ensure_future(gate.enter(n)) for n in range(3)]
        await asyncio.sleep(0)
        gate.stop(FatalReply("no key"))
        late = asyncio.ensure_future(gate.enter(9))
        return await asyncio.gather(*waiting, late, return_exceptions=True)

    assert [str(found) for found in run(main())] == ["no key"] * 4


def test_a_refused_request_gives_its_tokens_back_and_shares_of_an_account_add_up() -> None:
    async def main(share: float) -> int:
        gate = _gate(parallel=None, share=share)
        loop, starts = asyncio.get_running_loop(), 0

        async def row(number: int) -> None:
            nonlocal starts
            while loop.time() < 60:
                turn = await gate.enter(number, 10.0)
                starts += 1
                await asyncio.sleep(0.1)
                gate.leave(turn, headers={"x-ratelimit-limit-requests": "600"})

        rows = [asyncio.ensure_future(row(n)) for n in range(50)]
        await asyncio.sleep(60)
        gate.stop()
        await asyncio.gather(*rows, return_exceptions=True)
        return starts

    assert 280 <= run(main(0.5)) <= 330


def test_who_gives_up_at_the_gate_leaves_no_hole() -> None:
    async def main() -> None:
        gate = _gate(parallel=1)
        turn = await gate.enter(1)
        waiting = [asyncio.ensure_future(gate.enter(n)) for n in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        gate.leave(turn)
        waiting[1].cancel()
        await asyncio.wait_for(waiting[2], 5)
        assert gate.in_flight == 1

    run(main())


async def _resized(gate: Gate, provider: Provider, sizes: list[GateSpec]) -> list[tuple[int, int]]:
    """Give the gate one part after another, 20 seconds each; return starts and most in flight."""
    found = []
    asking = asyncio.ensure_future(_ask_for(gate, provider.ask, 20.0 * len(sizes)))
    for spec in sizes:
        gate.resize(spec)
        await asyncio.sleep(5)
        provider.most, before = provider.busy, len(provider.starts)
        await asyncio.sleep(15)
        found.append((len(provider.starts) - before, provider.most))
    await asyncio.gather(asking)
    return found


def test_a_gate_follows_its_part_of_the_limits_and_sends_nothing_without_one() -> None:
    async def main() -> list[tuple[int, int]]:
        specs = [GateSpec(parallel=n, share=n / 12) for n in (12, 0, 1, 6, 0)]
        gate = _gate(parallel=12, share=0)
        return await _resized(gate, Provider(10**9, 10**9, 0.5), specs)

    found = run(main())
    assert [most for _, most in found] == [12, 0, 1, 6, 0]
    assert [starts // 30 for starts, _ in found] == [12, 0, 1, 6, 0]


def test_rates_follow_the_part_whoever_named_them() -> None:
    async def main(parallel: int | None, limited: bool) -> list[int]:
        rpm = 600.0 if limited else None
        specs = [
            GateSpec(parallel=parallel, rpm=rpm and rpm * share, share=share)
            for share in (1.0, 0.25, 0.5)
        ]
        gate = _gate(parallel=parallel, rpm=rpm)
        provider = Provider(10**9 if limited else 10, 5, 0.1)
        if limited:
            return [starts for starts, _ in await _resized(gate, provider, specs)]
        asking = asyncio.ensure_future(_ask_for(gate, provider.ask, 61))
        await asyncio.sleep(40)
        before = len(provider.starts)
        gate.resize(specs[1])
        await asyncio.sleep(2)
        after = len(provider.starts) - before
        await asyncio.gather(asking)
        return [after]

    for found in (run(main(None, True)), run(main(50, True))):
        assert [round(starts / 15 / 2.5) for starts in found] == [4, 1, 2]
    assert run(main(None, False))[0] <= 10  # of the 20 that the whole worker would have sent


def test_a_part_that_was_not_renewed_in_time_is_used_no_further() -> None:
    async def main() -> list[float]:
        gate = _gate(parallel=3, until=10.0)
        provider = Provider(10**9, 10**9, 0.5)
        await _ask_for(gate, provider.ask, 20)
        return provider.starts

    starts = run(main())
    assert starts[-1] < 10 < starts[-1] + 1


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        ({}, Limits()),
        ({"x-ratelimit-limit-requests": "0", "x-ratelimit-limit-tokens": "many"}, Limits()),
        (
            {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59",
             "x-ratelimit-reset-requests": "1s", "x-ratelimit-limit-tokens": "150000"},
            Limits(60, 59, 150_000, None),
        ),
        (
            {"x-ratelimit-limit-requests": "14400", "x-ratelimit-reset-requests": "2m59.5s",
             "x-ratelimit-limit-tokens": "18000", "x-ratelimit-remaining-tokens": "17000"},
            Limits(None, None, 18_000, 17_000),
        ),
        (
            {"anthropic-ratelimit-requests-limit": "50",
             "anthropic-ratelimit-requests-remaining": "0"},
            Limits(50, 0, None, None),
        ),
    ],
)  # fmt: skip
def test_limits_are_read_as_providers_write_them(headers: dict[str, str], limits: Limits) -> None:
    assert read_limits(headers) == limits
