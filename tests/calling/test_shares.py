"""Windows that divide the limits of a run: of several processes, here in one."""

from __future__ import annotations

import dataclasses
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beam_batch.calling import window as windows
from beam_batch.calling.gate import GateSpec
from beam_batch.calling.lane import Lane
from beam_batch.calling.setup import WindowSpec
from beam_batch.calling.shares import PARTS, Share
from beam_batch.calling.window import Window
from beam_batch.options import BudgetSpec, CallSpec, PriceSpec
from beam_batch.outputs import roll, seats
from beam_batch.outputs.ledger import LedgerSpec
from beam_batch.outputs.recording import RecordSpec
from beam_batch.outputs.seats import Seat
from beam_batch.outputs.stopping import StopFlag
from beam_batch.outputs.workdir import WorkDir
from beam_batch.providers import resolve_model
from beam_batch.records import Prompt, Row
from tests.fakes import Answer, PayingServer, ScriptedServer
from tests.stores import make_bucket, reachable, s3_server


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WorkDir]:
    """A work directory in an object store, where workers look ten times as often as they do."""
    for module in (roll, seats, windows):
        monkeypatch.setattr(module, "BEAT", 0.2)
    with s3_server() as env, reachable(env):
        make_bucket(env)
        yield WorkDir(f"s3://data/{uuid.uuid4().hex}", here=str(tmp_path))


def _spec(
    work: WorkDir, session: int, server: ScriptedServer, budget: BudgetSpec, errors: int | None
) -> WindowSpec:
    env = {"GENERIC_BASE_URL": server.base_url}
    stop = StopFlag(work, f"stop-{session:04d}-{uuid.uuid4().hex}")
    if not work.is_folder:
        work.write_manifest({"session": session, "stop": stop.name})
    return WindowSpec(
        token=uuid.uuid4().hex,
        model=resolve_model("generic.m?max_tokens=40", env),
        instruction="",
        schema=None,
        call=CallSpec(parallel=4, retry_wait=0.01),
        include_input=False,
        budget=budget,
        record=RecordSpec(
            work=work,
            session=session,
            stop=stop,
            max_errors=errors,
        ),
    )


def _feed(window: Window, first: int, rows: int, is_stopped: Callable[[], bool]) -> None:
    lane = Lane(window)
    for number in range(first, first + rows):
        prompt = Prompt(Row(0, number, number, {}), f"row {number}")
        while not is_stopped() and not lane.try_submit(prompt):
            pass
    while lane.pending:
        lane.wait()
    lane.close()


def _work(spec: WindowSpec, rows: int = 200) -> tuple[str, int] | None:
    """Have two windows answer rows at once; return why they stopped."""
    assert spec.record is not None
    stop = spec.record.stop
    two = [Window(spec), Window(spec)]
    feeders = [
        threading.Thread(target=_feed, args=(window, 1 + number * rows, rows, stop.is_set_here))
        for number, window in enumerate(two)
    ]
    for feeder in feeders:
        feeder.start()
    for feeder in feeders:
        feeder.join()
    for window in two:
        window.close()
    return stop.read()


def test_a_cap_in_an_object_store_is_never_passed(store: WorkDir) -> None:
    with PayingServer(1) as server:
        ledger = LedgerSpec(store).open()
        ledger.charge_reserved()
        ledger.close()
        budget = BudgetSpec(max_cost=1.0, price=PriceSpec(input=100, output=1000))
        stopped = _work(_spec(store, 1, server, budget, None))
        assert stopped is not None
        assert stopped[1] == 4
        assert "--max-cost 1" in stopped[0]
        assert 0.4 < server.paid_usd <= 1.0
        assert server.most_in_flight <= 4


def test_failures_in_an_object_store_stop_all_workers(store: WorkDir) -> None:
    with ScriptedServer(lambda number, body: Answer(status=400)) as server:
        stopped = _work(_spec(store, 1, server, BudgetSpec(), 10))
        assert stopped is not None
        assert stopped[1] == 3
        assert "stopped by --max-errors 10" in stopped[0]
        assert 10 <= server.requests < 200


@pytest.mark.parametrize("most", [1, 4, 100, 512])
def test_units_of_auto_are_as_many_requests_as_are_in_flight(most: int, tmp_path: Path) -> None:
    limits = GateSpec(parallel=None, most=most, rpm=60.0)
    seat = Seat(WorkDir(str(tmp_path)).place, 1, PARTS)
    share = Share(limits, seat)
    for units in range(1, PARTS + 1):
        part = share._part(units)
        assert part.most >= 1
        assert share._units(part.most) <= units
    assert share._part(0).share == 0
    assert share.step(0, 1) == limits
    share.close()


def test_a_worker_that_comes_after_its_session_sends_nothing(tmp_path: Path) -> None:
    """As where an engine starts one late, and --overwrite has begun a run of its own meanwhile."""
    work = WorkDir(str(tmp_path))
    work.write_manifest({"session": 1, "stop": "stop-0001-new"})
    with ScriptedServer() as server:
        for name, is_past in (("stop-0001-old", True), ("stop-0001-new", False)):
            spec = _spec(work, 1, server, BudgetSpec(), None)
            record = dataclasses.replace(spec.record, stop=StopFlag(work, name))
            Window(dataclasses.replace(spec, record=record)).close()
            assert record.stop.is_set() == is_past


def test_a_worker_that_comes_after_a_finished_run_sends_nothing(store: WorkDir) -> None:
    """Its work directory is gone, which in a store nothing else shows."""
    with ScriptedServer() as server:
        spec = _spec(store, 1, server, BudgetSpec(), None)
        store.place.remove([item.name for item in store.place.list("")])
        assert spec.record is not None
        window = Window(spec)
        assert spec.record.stop.is_set_here()
        window.close()
        assert server.requests == 0
