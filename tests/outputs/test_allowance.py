"""Allowances: whatever happens in whatever order, no more is spent than the cap."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_batch.outputs import roll
from beam_batch.outputs.allowance import Allowance
from beam_batch.outputs.ledger import LedgerSpec, Sum
from beam_batch.outputs.roll import TTL
from beam_batch.outputs.workdir import WorkDir
from tests.outputs.stage import Actor, Memory
from tests.stores import make_bucket, reachable, s3_server

CAP = Sum(1000, 5000)


@pytest.fixture(autouse=True, scope="module")
def _one_after_another() -> Iterator[None]:
    """Read objects one by one: an actor has one thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roll, "READERS", 10**6)
        yield


class Worker:
    """An allowance, and requests that are paid by it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.actor = Actor(world.memory, lambda: world.now)
        self.ledger = Allowance(self.actor, (CAP.nano_usd, CAP.tokens), self.actor.clock)
        self.sent: list[Sum] = []

    def send(self) -> bool:
        worst = Sum(self.world.random.randint(1, 40), self.world.random.randint(1, 200))
        if self.ledger.reserve(worst) is None:
            self.sent.append(worst)
            return True
        if not self.actor.is_busy:
            self.actor.call(lambda: self._refill(worst))
        return False

    def _refill(self, worst: Sum) -> None:
        if self.ledger.refill(worst) is None:
            self.sent.append(worst)

    def end(self) -> None:
        """Have a request answered, or lost, or refused."""
        if self.sent:
            worst = self.sent.pop()
            part = self.world.random.choice([0.0, 0.3, 1.0])
            actual = Sum(int(worst.nano_usd * part), int(worst.tokens * part))
            self.ledger.settle(worst, actual)
            self.world.pay(actual)


class World:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.memory = Memory()
        self.now = 0.0
        self.paid = Sum(0, 0)
        self.workers: list[Worker] = []
        self.awake: list[Worker] = []

    def pay(self, what: Sum) -> None:
        self.paid = Sum(self.paid.nano_usd + what.nano_usd, self.paid.tokens + what.tokens)

    def at_worst(self) -> Sum:
        sent = [worst for worker in self.workers for worst in worker.sent]
        return Sum(
            self.paid.nano_usd + sum(worst.nano_usd for worst in sent),
            self.paid.tokens + sum(worst.tokens for worst in sent),
        )

    def event(self) -> None:
        luck = self.random.random()
        if not self.workers or (luck < 0.02 and len(self.workers) < 4):
            self.workers.append(Worker(self))
            return
        worker = self.random.choice(self.workers)
        if luck < 0.05:
            self.awake = [it for it in self.workers if self.random.random() < 0.5]
        elif luck < 0.055:
            self.kill(worker)
        elif luck < 0.065:
            self.now += self.random.choice([2, TTL + 1])
        elif luck < 0.08 and not worker.actor.is_busy:
            worker.actor.call(worker.ledger.renew)
        elif luck < 0.3:
            worker.send()
        elif luck < 0.4:
            worker.end()
        else:
            awake = [it for it in self.awake if it in self.workers and it.actor.is_busy]
            if awake:
                self.random.choice(awake).actor.advance()

    def kill(self, worker: Worker) -> None:
        """Kill a worker; what it had sent is paid."""
        self.workers.remove(worker)
        worker.actor.kill()
        for worst in worker.sent:
            self.pay(worst)

    def close(self) -> None:
        for worker in self.workers:
            worker.actor.kill()


@given(st.integers(0, 2**32))
@settings(max_examples=60)
def test_no_more_is_spent_than_the_cap_in_any_order_of_puts_and_reads(seed: int) -> None:
    world = World(seed)
    try:
        for _ in range(400):
            world.event()
            spent = world.at_worst()
            assert spent.nano_usd <= CAP.nano_usd
            assert spent.tokens <= CAP.tokens
        _next_session(world)
    finally:
        world.close()


def _next_session(world: World) -> None:
    """Kill all; a driver then counts what they may have spent, which is no less than they have."""
    for worker in list(world.workers):
        world.kill(worker)
    for _ in range(2):  # and counts it once, however often it starts
        driver = Actor(world.memory, lambda: world.now)
        ledger = Allowance(driver, (None, None), driver.clock)
        driver.call(ledger.charge_reserved)
        driver.finish()
        driver.kill()
        assert world.paid.nano_usd <= ledger._spent.nano_usd
        assert world.paid.tokens <= ledger._spent.tokens
        assert len(world.memory.objects) == 1


@pytest.mark.parametrize("seed", range(5))
def test_workers_come_close_to_the_cap_and_agree_that_it_is_reached(seed: int) -> None:
    world = World(seed)
    workers = [Worker(world) for _ in range(3)]
    world.workers += workers
    ended: set[Worker] = set()
    worst = Sum(20, 60)
    while len(ended) < 3:
        worker = world.random.choice([it for it in workers if it not in ended])
        world.now += 0.3
        if world.random.random() < 0.2:
            worker.actor.call(worker.ledger.renew)
            worker.actor.finish()
        for sent in worker.sent:
            worker.ledger.settle(sent, Sum(5, 10))
            world.pay(Sum(5, 10))
        worker.sent.clear()
        balance = worker.ledger.reserve(worst)
        if balance is not None:
            worker.actor.call(lambda ledger=worker.ledger: ledger.refill(worst))
            balance = worker.actor.finish()
        if balance is None:
            worker.sent.append(worst)
        elif balance.reserved == Sum(0, 0):
            ended.add(worker)
    world.close()
    assert CAP.nano_usd - 20 < world.paid.nano_usd <= CAP.nano_usd


def test_the_ledger_of_an_object_store_is_kept_over_sessions() -> None:
    with s3_server() as env, reachable(env):
        make_bucket(env)
        work = WorkDir(f"s3://data/{uuid.uuid4().hex}", here="unused")
        spec = LedgerSpec(work, max_cost=1.0, max_tokens=100)
        first, second = spec.open(), spec.open()
        assert first.reserve(Sum.of(0.1, 10)) is not None
        assert first.refill(Sum.of(0.1, 10)) is None
        assert second.refill(Sum.of(0.8, 80)) is not None  # the first has set more aside
        first.settle(Sum.of(0.1, 10), Sum.of(0.05, 5))
        first.close()
        assert second.refill(Sum.of(0.8, 80)) is None
        driver = LedgerSpec(work).open()
        driver.charge_reserved()  # the second was killed
        driver.close()
        third = spec.open()
        balance = third.refill(Sum.of(0.9, 1))
        assert balance is not None
        assert balance.spent.usd >= 0.85


def test_what_was_got_for_a_request_is_not_given_back_before_it_is_sent() -> None:
    """However often the worker says meanwhile what it has spent."""
    memory = Memory()
    actor = Actor(memory, lambda: 0.0)
    ledger = Allowance(actor, (CAP.nano_usd, CAP.tokens), actor.clock)
    worst = Sum(900, 900)
    for _ in range(2):
        actor.call(lambda: ledger.refill(worst))
        balance = actor.finish()
        for _ in range(3):
            actor.call(ledger.renew)
            actor.finish()
    assert balance is not None
    assert balance.reserved.nano_usd >= worst.nano_usd
    actor.kill()
