"""`beam-batch status` beside a run: while it is at work, and after it was stopped, killed, done."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beam_batch.outputs import status
from beam_batch.outputs.workdir import WorkDir
from beam_batch.places import place_of
from tests.fakes import PRICE, Answer, ScriptedServer
from tests.stores import make_bucket, reachable, s3_server
from tests.support import beam_batch, environment, interrupt, start, wait_until, write_jsonl

ROWS = 40


class Gate:
    """Refuses the first request, which goes alone; rows after the eleventh wait until it opens."""

    def __init__(self) -> None:
        self.opened = False

    def __call__(self, number: int, body: dict[str, Any]) -> Answer:
        if number == 1:
            return Answer(status=503)
        row = int(body["messages"][-1]["content"].removeprefix("row "))
        if self.opened:
            return Answer()
        return Answer(
            finish_reason="length" if row == 4 else "stop", fault="hang" if row > 10 else ""
        )


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with s3_server() as env, reachable(env):
        make_bucket(env)
        yield env


def _command(folder: Path, *more: str) -> list[str]:
    write_jsonl(folder / "rows.jsonl", [{"t": f"row {n}"} for n in range(ROWS)])
    return [
        "run", "-i", f"{folder}/rows.jsonl", "-o", f"{folder}/out.jsonl", "-p", "{{t}}",
        "-m", "generic.m", "--parallel", "4", "--retry-wait", "0.01", *PRICE,
        "--max-attempts", "2", "--no-progress", "--no-final-summary", *more,
    ]  # fmt: skip


def _status(named: Path) -> Any:
    done = beam_batch("status", named, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _check_at_work(found: dict[str, Any]) -> None:
    assert (found["state"], found["session"], found["rows"]) == ("at work", 1, ROWS)
    assert (found["ok"], found["failed"], found["left"]) == (10, 1, ROWS - 11)
    assert (found["requests"], found["retries"]) == (12, 1)
    assert (found["input_tokens"], found["output_tokens"]) == (55, 22)
    assert found["usd"] == pytest.approx(55 * 1e-4 + 22 * 1e-3)
    assert found["rows_per_s"] > 0
    assert found["latency_ms"] > 0
    assert [worker["in_flight"] for worker in found["workers"]] == [4]


def test_the_numbers_of_a_run_at_work_stopped_killed_resumed_and_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, copy, output = (tmp_path / name for name in (".out.jsonl.batch", "copy", "out.jsonl"))
    gate = Gate()
    with ScriptedServer(gate) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        command = _command(tmp_path)
        with start(*command, env=env) as process:
            wait_until(lambda: server.in_flight == 4 and server.requests == 16, process)
            wait_until(lambda: _status(work)["requests"] == 12, process)
            _check_at_work(_status(output))
            shutil.copytree(work, copy)
            process.send_signal(signal.SIGINT)
            wait_until(lambda: _status(work)["state"] == "stopping", process)
            code, _ = interrupt(process, signal.SIGINT)  # the second time it leaves at once
        assert code == 130
        monkeypatch.setattr(status, "FRESH", 0)
        stopped = status.survey(WorkDir(str(work)))
        assert (stopped["state"], stopped["reason"]) == ("stopped", "interrupted")
        assert status.survey(WorkDir(str(copy)))["state"] == "silent"

        gate.opened = True
        resumed = beam_batch(*command, "--resume", "--keep-temp", env=env)
        assert resumed.returncode == 0, resumed.stderr
    found = _status(work)
    assert (found["state"], found["session"]) == ("finished", 2)
    assert (found["ok"], found["failed"], found["left"], found["in_flight"]) == (ROWS, 0, 0, 0)
    shutil.rmtree(work)
    assert _status(output) == {"state": "finished"}


def test_a_work_directory_in_an_object_store_is_read_the_same_way(
    tmp_path: Path, s3: dict[str, str]
) -> None:
    command = _command(tmp_path)
    command[command.index("generic.m")] = "echo"
    done = beam_batch(*command, "--keep-temp", env=environment())
    assert done.returncode == 0, done.stderr
    work = WorkDir(str(tmp_path / ".out.jsonl.batch"))
    store = place_of("s3://data/work")
    for path in work.root.rglob("*"):
        if path.is_file():
            store.put(str(path.relative_to(work.root)), path.read_bytes())
    found = status.find_run("s3://data/work")
    assert found is not None
    assert status.survey(found) | {"told_s": 0, "workers": 0} == status.survey(work) | {
        "told_s": 0, "workers": 0,
    }  # fmt: skip


def test_a_run_for_people_and_a_place_without_one(tmp_path: Path) -> None:
    command = _command(tmp_path)
    command[command.index("generic.m")] = "echo"
    beam_batch(*command, "--keep-temp", env=environment())
    done = beam_batch("status", tmp_path / "out.jsonl")
    assert done.stdout.startswith("finished\nsession   1, workers wrote")
    assert "rows      40: ok 40, failed 0, in flight 0, left 0\n" in done.stdout
    none = beam_batch("status", tmp_path / "none.jsonl")
    assert (none.returncode, none.stdout) == (2, "")
    assert "no run is there" in none.stderr


def test_a_summary_goes_to_an_object_store(tmp_path: Path, s3: dict[str, str]) -> None:
    command = _command(tmp_path)
    command[command.index("generic.m")] = "echo"
    named = ("--summary-output", "s3://data/runs/one.json")
    done = beam_batch(*command, *named, env=environment(**s3))
    assert done.returncode == 0, done.stderr
    summary = place_of("s3://data/runs").get("one.json")
    assert json.loads(summary or b"")["ok_rows"] == ROWS
    lost = beam_batch(
        *command, "--overwrite", "--summary-output", "s3://none/one.json",
        env=environment(**s3),
    )  # fmt: skip
    assert (lost.returncode, lost.stdout) == (1, "")
    assert "the results are in place, but --summary-output s3://none/one.json" in lost.stderr
    for wrong in ("s3://one.json", "ftp://host/one.json"):
        refused = beam_batch(*command, "--overwrite", "--summary-output", wrong)
        assert refused.returncode == 2
