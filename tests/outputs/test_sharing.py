"""One driver at a time in a work directory, and failures that all workers count together."""

from __future__ import annotations

import random
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_batch.errors import OptionsError
from beam_batch.outputs.failures import Failures
from beam_batch.outputs.roll import BEAT, TTL
from beam_batch.outputs.sharing import StoreHold, hold
from beam_batch.outputs.stopping import StopFlag
from beam_batch.outputs.workdir import WorkDir
from tests.outputs.stage import Actor, Memory
from tests.stores import make_bucket, reachable, s3_server


class Driver:
    """A driver that takes a hold when it is let."""

    def __init__(self, memory: Memory, time: list[float]) -> None:
        self.actor = Actor(memory, lambda: time[0])
        self.hold = StoreHold(self.actor, self.actor.clock)
        self.actor.call(self._take)

    @property
    def holds(self) -> bool:
        return self.actor.result is True

    def _take(self) -> bool:
        try:
            self.hold.take(lambda: None, lambda seconds: self.actor.rest())
        except OptionsError:
            return False
        return True

    def keep(self) -> None:
        self.actor.call(self.hold.keep)
        self.actor.finish()
        self.actor.result = True


@given(st.integers(0, 2**32))
@settings(max_examples=60)
def test_of_drivers_that_start_at_once_one_goes_on(seed: int) -> None:
    luck, memory, time = random.Random(seed), Memory(), [0.0]
    drivers = [Driver(memory, time) for _ in range(luck.choice([2, 3]))]
    while busy := [it for it in drivers if it.actor.is_busy]:
        driver = luck.choice(busy)
        if driver.actor.waits_for == "rest":  # all that rest go on together, with time
            for other in [it for it in busy if it.actor.waits_for == "rest"]:
                other.actor.advance()
            time[0] += BEAT
        else:
            driver.actor.advance()
        for other in drivers:
            if other.holds:
                other.keep()
    assert sum(driver.holds for driver in drivers) == 1
    for driver in drivers:
        driver.actor.kill()


@pytest.mark.parametrize("lives", [True, False])
def test_a_dead_driver_s_hold_is_taken_over_and_a_living_one_s_is_not(
    lives: bool, tmp_path: Path
) -> None:
    memory, time = Memory(), [0.0]
    first = Driver(memory, time)
    first.actor.finish()
    assert first.holds
    flag = StopFlag(WorkDir(str(tmp_path)), "stop")
    first.hold.stops(flag)
    second = Driver(memory, time)
    while second.actor.is_busy:
        second.actor.advance()
        if second.actor.waits_for == "rest":
            time[0] += BEAT
            if lives:
                first.keep()
    assert second.holds is not lives
    assert (time[0] > TTL) is not lives
    first.keep()
    assert flag.is_set() is not lives  # it lives after all: it has lost its hold, and stops
    first.actor.kill()
    second.actor.kill()


def test_a_work_directory_is_held_wherever_it_is(tmp_path: Path) -> None:
    with s3_server() as env, reachable(env):
        make_bucket(env)
        store = f"s3://data/{uuid.uuid4().hex}"
        for work in (WorkDir(str(tmp_path)), WorkDir(store, here=str(tmp_path))):
            held = hold(work, lambda: None)
            held.stops(StopFlag(WorkDir(str(tmp_path)), "stop"))
            held.release()
            hold(work, lambda: None).release()
    held = hold(WorkDir(str(tmp_path)), lambda: None)
    with pytest.raises(OptionsError, match="another run is using it"):
        hold(WorkDir(str(tmp_path)), lambda: None)
    held.release()


def test_failures_of_all_workers_are_counted_together() -> None:
    memory = Memory()
    actors = [Actor(memory, lambda: 0.0) for _ in range(2)]
    one, other = (Failures(actor, 1) for actor in actors)

    def sync(number: int) -> object:
        actors[number].call((one, other)[number].sync)
        return actors[number].finish()

    assert [one.add(), one.add(), other.add()] == [1, 2, 1]
    assert sync(0) == 2
    assert sync(1) == 3
    assert other.add() == 4
    assert sync(1) == 4
    assert one.add() == 3
    assert sync(0) == 5
    for actor in actors:
        actor.kill()


def test_a_flag_that_a_store_did_not_take_is_put_at_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Place:
        taken: dict[str, bytes] = {}  # noqa: RUF012
        fails = 1

        def get(self, name: str) -> bytes | None:
            return self.taken.get(name)

        def put(self, name: str, data: bytes) -> None:
            if self.fails:
                self.fails -= 1
                raise OSError("no route")
            self.taken[name] = data

    place = Place()
    monkeypatch.setattr(WorkDir, "place", place)
    flag = StopFlag(WorkDir("s3://b/once", here="none"), "stop")
    flag.set("enough", 3)
    assert not place.taken
    assert flag.is_set()
    assert flag.read() == ("enough", 3)
    assert place.taken
