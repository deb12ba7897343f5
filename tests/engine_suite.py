"""What every engine must do when things break; test modules import these and name the engines."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.engines import Started
from tests.fakes import Answer, ScriptedServer
from tests.support import (
    beam_batch,
    environment,
    interrupt,
    read_jsonl,
    start,
    wait_until,
    write_jsonl,
)

ROWS = 400
PARALLEL = 8
KILLS = 2


def _arguments(folder: Path, output: str, engine: Started | None, *more: str) -> tuple[str, ...]:
    return (
        "run", "-i", str(folder / "rows.jsonl"), "-o", str(folder / output),
        "-m", "generic.scripted", "-p", "row {{n}}", "--parallel", str(PARALLEL),
        "--no-final-summary", *more, *(engine.arguments if engine else ()),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(1, ROWS + 1)])
    return tmp_path


@pytest.fixture
def calm(folder: Path) -> bytes:
    """What an undisturbed run of the direct runner writes."""
    with ScriptedServer() as server:
        done = beam_batch(
            *_arguments(folder, "calm.jsonl", None),
            env=environment(GENERIC_BASE_URL=server.base_url),
        )
    assert done.returncode == 0, done.stderr
    return (folder / "calm.jsonl").read_bytes()


def _sent(server: ScriptedServer) -> Counter[str]:
    return Counter(body["messages"][-1]["content"] for body in server.bodies)


def _resent(server: ScriptedServer) -> int:
    return sum(count - 1 for count in _sent(server).values())


def _check_whole(folder: Path, output: str, calm: bytes) -> None:
    assert (folder / output).read_bytes() == calm
    assert not (folder / f".{output}.batch").exists()


def test_kills_of_the_driver_lose_no_row_and_resend_at_most_what_was_in_flight(
    folder: Path, engine: Started, calm: bytes
) -> None:
    dice = random.Random(20)
    with ScriptedServer(delay=0.05) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        args = _arguments(folder, "out.jsonl", engine, "--resume")
        for _ in range(KILLS):
            target = server.requests + dice.randint(1, ROWS // 6)
            process = start(*args, env=env)
            wait_until(lambda target=target: server.requests >= target, process)
            assert process.poll() is None, process.communicate()
            interrupt(process, signal.SIGKILL)
        done = beam_batch(*args, env=env)
        assert done.returncode == 0, done.stderr
        assert server.most_in_flight <= PARALLEL  # however many workers there are
        assert _resent(server) <= KILLS * server.most_in_flight
    _check_whole(folder, "out.jsonl", calm)


def test_ctrl_c_drains_and_nothing_is_sent_twice(
    folder: Path, engine: Started, calm: bytes
) -> None:
    """As a terminal sends it: to the whole group."""
    with ScriptedServer(delay=0.05) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        process = start(*_arguments(folder, "out.jsonl", engine), env=env, new_group=True)
        wait_until(lambda: server.requests >= 50, process)
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 130, stderr
        assert "--resume" in stderr
        assert "Traceback" not in stderr
        assert not (folder / "out.jsonl").exists()
        done = beam_batch(*_arguments(folder, "out.jsonl", engine, "--resume"), env=env)
        assert done.returncode == 0, done.stderr
        assert max(_sent(server).values()) == 1
    _check_whole(folder, "out.jsonl", calm)


def test_a_worker_that_is_killed_costs_at_most_what_it_had_in_flight(
    folder: Path, engine: Started, calm: bytes
) -> None:
    workers = engine.workers
    if workers is None:
        pytest.skip("its worker is the driver, which other tests kill")
    with ScriptedServer(delay=0.05) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        process = start(*_arguments(folder, "out.jsonl", engine), env=env)
        wait_until(lambda: server.requests >= 50, process)
        wait_until(lambda: len(workers(process.pid)) == engine.splits, process)
        os.kill(workers(process.pid)[0], signal.SIGKILL)
        _, stderr = process.communicate(timeout=120)
        assert "Traceback" not in stderr
        if engine.heals:
            assert process.returncode == 0, stderr
        else:
            assert process.returncode == 1, stderr
            assert "the run failed" in stderr
            assert not (folder / "out.jsonl").exists()
            done = beam_batch(*_arguments(folder, "out.jsonl", engine, "--resume"), env=env)
            assert done.returncode == 0, done.stderr
        assert _resent(server) <= server.most_in_flight
    _check_whole(folder, "out.jsonl", calm)


def _every_way(number: int, body: dict[str, Any]) -> Answer:
    """Answer by what the prompt asks for."""
    text = body["messages"][-1]["content"]
    answers = {
        "rejected": Answer(status=400, body=b'{"error": {"message": "no"}}'),
        "cut": Answer(text='{"label": "', finish_reason="length"),
        "filtered": Answer(text="", finish_reason="content_filter"),
        "off schema": Answer(text='{"label": 7}'),
        "no json": Answer(text="label: good"),
        "garbage": Answer(body=b"<html>"),
    }
    return answers.get(text, Answer(text='{"label": "good"}'))


SCHEMA = {
    "type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"],
    "additionalProperties": False,
}  # fmt: skip


def test_rows_that_fail_in_every_way_get_the_envelopes_of_the_direct_runner(
    tmp_path: Path, engine: Started
) -> None:
    texts = ["rejected", "cut", "filtered", "off schema", "no json", "garbage"]
    rows: list[Any] = [{"id": f"r{n}", "text": f"row {n}"} for n in range(1, 251)]
    rows[7:7] = [{"id": text, "text": text} for text in texts]
    rows[30:30] = [{"id": "no field"}, {"text": "no id"}, [1, 2], {"id": "null", "text": None}]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    with source.open("ab") as file:
        file.write(b'{"id": "torn", \n\xff\xfe\n')
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    written = {}
    with ScriptedServer(_every_way) as server:
        for name, more in (("plain", ()), (engine.name, engine.arguments)):
            done = beam_batch(
                "run", "-i", source, "-o", tmp_path / f"{name}.jsonl", "-m", "generic.m",
                "-p", "{{text}}", "--id-field", "id", "--schema", tmp_path / "schema.json",
                "--max-attempts", "2", "--retry-wait", "0.01", "--parallel", "8", "--include-input",
                "--error-output", tmp_path / f"{name}-errors.jsonl", "--no-final-summary", *more,
                env=environment(GENERIC_BASE_URL=server.base_url),
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            written[name] = [
                [json.dumps(line, sort_keys=True) for line in read_jsonl(tmp_path / file)]
                for file in (f"{name}.jsonl", f"{name}-errors.jsonl")
            ]
    assert written[engine.name] == written["plain"]
    failed = Counter(json.loads(line)["error"]["type"] for line in written["plain"][1])
    assert len(written["plain"][0]) == len(rows) + 2
    assert len(failed) >= 7, failed
