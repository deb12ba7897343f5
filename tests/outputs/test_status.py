"""What a run's notes say of it, where some of its workers are gone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from beam_batch import jsonio
from beam_batch.outputs import status
from beam_batch.outputs.gauges import AT, BEGAN
from beam_batch.outputs.stopping import StopFlag
from beam_batch.outputs.workdir import WorkDir

GONE = 2 * status.FRESH


@pytest.fixture
def work(tmp_path: Path) -> WorkDir:
    """A run of ten rows with two workers, of which one has written nothing for long."""
    work = WorkDir(str(tmp_path / "work"))
    work.create()
    work.write_manifest({"session": 1, "plan": "plan-1", "stop": "stop-1"})
    work.place.put("plan-1/plan.json", jsonio.dumps({"selected_rows": 10}))
    _show(work, "killed", GONE)
    _show(work, "living", 1)
    return work


def _show(work: WorkDir, name: str, ago: float) -> None:
    now = time.time()
    values = {"ok": 2, "in_flight": 3, "usd": 0.5, BEGAN: now - 100, AT: now - ago}
    work.place.put(f"gauges/0001-{name}.json", jsonio.dumps(values))


def _workers(found: dict[str, Any]) -> list[str]:
    return [worker["name"] for worker in found["workers"]]


def test_a_killed_worker_has_nothing_in_flight_and_what_it_did_counts(work: WorkDir) -> None:
    found = status.survey(work)
    assert (found["state"], found["in_flight"], _workers(found)) == ("at work", 3, ["living"])
    assert (found["ok"], found["usd"]) == (4, 1.0)


def test_a_run_is_stopped_when_nobody_who_lives_has_something_in_flight(work: WorkDir) -> None:
    StopFlag(work, "stop-1").set("interrupted", 130)
    assert status.survey(work)["state"] == "stopping"
    work.place.put("gauges/0001-living.json", jsonio.dumps({"in_flight": 0, AT: time.time()}))
    assert status.survey(work)["state"] == "stopped"


def test_a_run_whose_workers_are_all_gone_shows_none_and_is_silent(work: WorkDir) -> None:
    _show(work, "living", GONE)
    found = status.survey(work)
    assert (found["state"], found["in_flight"], _workers(found)) == ("silent", 0, [])
    assert found["ok"] == 4
    assert "in flight 0" in status.show(found)


def test_the_manifest_of_an_earlier_version_names_no_flag(work: WorkDir) -> None:
    work.write_manifest({"session": 1, "plan": "plan-1"})
    assert status.survey(work)["state"] == "at work"
