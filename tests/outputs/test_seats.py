"""Seats: whatever happens in whatever order, no more units are used than there are."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_batch.outputs import roll, sharing
from beam_batch.outputs.roll import BEAT, TTL
from beam_batch.outputs.seats import Seat
from beam_batch.outputs.sharing import wait_for_workers
from beam_batch.outputs.stopping import StopFlag
from beam_batch.outputs.workdir import WorkDir
from beam_batch.places import place_of
from tests.outputs.stage import Actor, Memory
from tests.support import ROOT, environment


@pytest.fixture(autouse=True, scope="module")
def _one_after_another() -> Iterator[None]:
    """Read objects one by one: an actor has one thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roll, "READERS", 10**6)
        yield


class Worker:
    """A seat, with requests in flight as a gate lets them through."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.skew = world.random.uniform(-1000, 1000)
        self.actor = Actor(world.memory, lambda: world.now + self.skew)
        self.seat = Seat(self.actor, 1, world.total, self.actor.clock)
        self.allowed = self.in_flight = 0
        self.until = math.inf
        self.wanted = True

    @property
    def counts(self) -> bool:
        """Whether its units are its own."""
        return self.actor.clock() < self.until

    def act(self) -> None:
        """Go on with a step, or begin one."""
        if self.actor.is_busy:
            self.actor.advance()
        else:
            self.actor.call(lambda: self.seat.step(self.in_flight, self.wanted))
        self.collect()

    def collect(self) -> None:
        if not self.actor.is_busy:
            self.allowed, self.until = self.actor.result, self.seat.until

    def start(self) -> None:
        if self.counts:
            self.in_flight = max(self.in_flight, self.allowed)

    def step(self) -> None:
        """Finish the step at hand, and do another."""
        self.actor.finish()
        self.collect()
        self.actor.call(lambda: self.seat.step(self.in_flight, self.wanted))
        self.actor.finish()
        self.collect()


class World:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.memory = Memory()
        self.now = 0.0
        self.total = self.random.choice([1, 2, 3, 9])
        self.workers: list[Worker] = []
        self.awake: list[Worker] = []

    def used(self) -> int:
        for worker in self.workers:
            if not worker.counts:  # what it has in flight when it is cut off, nobody can call back
                worker.in_flight = 0
        return sum(worker.in_flight for worker in self.workers)

    def event(self) -> None:
        """Let something happen; some workers go on for a while, when others stand still."""
        luck = self.random.random()
        if not self.workers or (luck < 0.02 and len(self.workers) < 4):
            self.workers.append(Worker(self))
            return
        worker = self.random.choice(self.workers)
        if luck < 0.05:
            self.awake = [it for it in self.workers if self.random.random() < 0.5]
        elif luck < 0.055:
            self.kill(worker)
        elif luck < 0.075:
            self.now += self.random.choice([0.5, 3, TTL / 2, TTL + 1])
        elif luck < 0.085:
            worker.actor.breaks = not worker.actor.breaks
        elif luck < 0.11:
            worker.wanted = not worker.wanted
        elif luck < 0.18:
            worker.in_flight -= self.random.randint(0, worker.in_flight)
        elif luck < 0.28:
            worker.start()
        else:
            self.now += 0.01
            self.random.choice([it for it in self.awake if it in self.workers] or [worker]).act()

    def kill(self, worker: Worker) -> None:
        self.workers.remove(worker)
        worker.actor.kill()

    def calm(self, rounds: int) -> None:
        """Let all live and want; each does its steps, in an order that changes."""
        for worker in self.workers:
            worker.actor.breaks, worker.wanted = False, True
        for _ in range(rounds):
            self.now += 2
            self.random.shuffle(self.workers)
            for worker in self.workers:
                worker.in_flight = min(worker.in_flight, worker.allowed)
                worker.step()

    def close(self) -> None:
        for worker in list(self.workers):
            self.kill(worker)


WORKER = """
import sys
from beam_batch.outputs.seats import Seat
from beam_batch.outputs.stopping import StopFlag
from beam_batch.outputs.workdir import WorkDir
seat = Seat(WorkDir(sys.argv[1]).place, 1, 9)
for line in sys.stdin:
    print(seat.step(int(line)), flush=True)
"""


class Process:
    """A worker in a process of its own, that steps when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT,
        )  # fmt: skip

    def step(self, in_use: int) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{in_use}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@given(st.integers(0, 2**32))
@settings(max_examples=100)
def test_no_more_is_used_than_there_is_in_any_order_of_puts_and_reads(seed: int) -> None:
    world = World(seed)
    try:
        for _ in range(400):
            world.event()
            assert world.used() <= world.total
        world.calm(2 * int(TTL))
        if world.workers:
            held = sorted(worker.allowed for worker in world.workers)
            assert sum(held) == world.total
            assert held[-1] - held[0] <= 1
    finally:
        world.close()


@pytest.fixture
def pair() -> Iterator[tuple[Worker, Worker]]:
    """Two workers of which the first holds all nine units, and the second has seen it."""
    world = World(3)
    world.total = 9
    workers = Worker(world), Worker(world)
    world.workers += workers
    workers[0].step()
    workers[1].step()
    assert [worker.allowed for worker in workers] == [9, 0]
    yield workers
    world.close()


def test_who_takes_another_for_dead_does_not_hit_its_new_object(
    pair: tuple[Worker, Worker],
) -> None:
    first, second = pair
    for _ in range(4):
        first.world.now += TTL / 4
        second.step()
    first.world.now += 1
    second.act()
    while second.actor.waits_for != "remove":
        second.act()
    first.step()
    second.actor.finish()
    second.collect()
    assert first.allowed + second.allowed <= 9


def test_what_may_come_into_use_during_a_step_is_claimed_until_it_is_over(
    pair: tuple[Worker, Worker],
) -> None:
    first, second = pair
    first.in_flight = 3
    first.act()
    while b'"used":9' in b"".join(first.world.memory.objects.values()):
        first.act()
    first.in_flight = 9  # the step has not returned yet, so the gate is as wide as it was
    second.step()
    assert first.in_flight + second.allowed == 9


def test_a_put_that_lands_too_late_renews_nothing(pair: tuple[Worker, Worker]) -> None:
    first, second = pair
    first.world.now += BEAT
    first.act()
    first.world.now += TTL - 3  # the place is slow
    while first.actor.waits_for != "put":
        first.act()
    first.world.now += 2
    second.step()
    assert second.allowed == 9
    first.actor.finish()
    first.collect()
    assert first.allowed == 0


def test_a_killed_process_leaves_its_units_at_once_in_a_folder(tmp_path: Path) -> None:
    first, second = Process(tmp_path), Process(tmp_path)
    try:
        assert first.step(0) == 9
        assert second.step(0) == 0
        kept = first.step(9)
        assert kept in (4, 5)
        assert second.step(0) == 0  # nine are still in flight: none is another's yet
        assert first.step(kept) == kept
        assert second.step(0) == 9 - kept
        first.kill()
        assert second.step(4) == 9
    finally:
        first.kill()
        second.kill()
    last = Seat(WorkDir(str(tmp_path)).place, 1, 9)
    assert last.step(0) == 9
    last.close()


def test_more_workers_than_units_wait_for_their_turn_and_idle_ones_keep_none(
    tmp_path: Path,
) -> None:
    seats = [Seat(WorkDir(str(tmp_path)).place, 1, 2) for _ in range(4)]

    def steps(wanted: int) -> list[int]:
        for _ in range(3):
            held = [seat.step(0, n >= 4 - wanted) for n, seat in enumerate(seats)]
        return held

    assert sum(steps(4)) == 2
    assert steps(2) == [0, 0, 1, 1]
    assert steps(1) == [0, 0, 0, 2]
    assert steps(0) == [0, 0, 0, 0]
    for seat in seats:
        seat.close()
    assert place_of(str(tmp_path)).list("seats/") == []


def test_a_driver_waits_for_workers_and_asks_them_to_end(tmp_path: Path) -> None:
    work = WorkDir(str(tmp_path))
    assert wait_for_workers(work, lambda: None)
    flag = StopFlag(work, "stop-0003")
    work.write_manifest({"session": 3, "stop": flag.name})
    seat = Seat(work.place, 3, 9)
    seat.step(0)
    waited: list[str] = []

    def sleep(seconds: float) -> None:
        if flag.is_set():
            seat.close()

    assert wait_for_workers(work, lambda: waited.append("once"), sleep=sleep)
    assert waited == ["once"]


@pytest.mark.parametrize("lives", [True, False])
def test_in_a_store_a_worker_is_dead_when_its_object_no_longer_changes(lives: bool) -> None:
    world = World(1)
    worker = Worker(world)
    worker.step()
    driver, steps = Actor(world.memory, lambda: world.now), 0

    def sleep(seconds: float) -> None:
        nonlocal steps
        steps += 1
        world.now += seconds
        if lives:
            worker.step()

    driver.call(lambda: sharing.wait(driver, lambda: None, driver.clock, sleep))
    assert driver.finish() is not lives
    assert steps > TTL / BEAT
    world.close()
    driver.kill()


def test_a_worker_that_never_reaches_the_store_knows_that_it_is_cut_off() -> None:
    memory, now = Memory(), [0.0]
    actor = Actor(memory, lambda: now[0])
    seat = Seat(actor, 1, 9, actor.clock)

    def step() -> int:
        actor.call(lambda: seat.step(0))
        return int(actor.finish())

    actor.breaks = True
    assert step() == 0
    now[0] += TTL - 1
    assert step() == 0
    assert not seat.is_cut_off
    now[0] += 1
    assert step() == 0
    assert seat.is_cut_off
    actor.breaks = False
    assert step() == 9
    assert not seat.is_cut_off
    actor.kill()
