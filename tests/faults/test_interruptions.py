"""A run that is killed, stopped or starved loses nothing written, and pays little twice."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

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
PARALLEL = 16
KILLS = 10


def _arguments(folder: Path, output: str, *more: str) -> tuple[str, ...]:
    return (
        "run", "-i", str(folder / "rows.jsonl"), "-o", str(folder / output),
        "-m", "generic.scripted", "-p", "row {{n}}", "--parallel", str(PARALLEL),
        "--no-final-summary", *more,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(1, ROWS + 1)])
    return tmp_path


def _undisturbed(folder: Path) -> bytes:
    with ScriptedServer() as server:
        done = beam_batch(
            *_arguments(folder, "calm.jsonl"), env=environment(GENERIC_BASE_URL=server.base_url)
        )
    assert done.returncode == 0, done.stderr
    return (folder / "calm.jsonl").read_bytes()


def _sent(server: ScriptedServer) -> Counter[str]:
    return Counter(body["messages"][-1]["content"] for body in server.bodies)


def _resent(sent: Counter[str]) -> int:
    return sum(count - 1 for count in sent.values())


def test_ten_kills_lose_no_row_and_resend_at_most_what_was_in_flight(folder: Path) -> None:
    calm = _undisturbed(folder)
    dice = random.Random(20)
    with ScriptedServer(delay=0.02) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        args = _arguments(folder, "killed.jsonl", "--resume")
        asked: Counter[str] = Counter()
        for _ in range(KILLS):
            seen = server.requests
            target = seen + dice.randint(1, ROWS // 12)
            process = start(*args, env=env)
            wait_until(lambda target=target: server.requests >= target, process)
            assert process.poll() is None, process.communicate()
            interrupt(process, signal.SIGKILL)
            before, asked = asked, _sent(server)
            assert _resent(asked) - _resent(before) <= PARALLEL
        before = asked
        done = beam_batch(*args, env=env)
        assert done.returncode == 0, done.stderr
        assert _resent(_sent(server)) - _resent(before) <= PARALLEL
    assert (folder / "killed.jsonl").read_bytes() == calm
    assert not (folder / ".killed.jsonl.batch").exists()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_one_signal_drains_and_nothing_is_sent_twice(
    folder: Path, number: signal.Signals, code: int
) -> None:
    calm = _undisturbed(folder)
    with ScriptedServer(delay=0.02) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        process = start(*_arguments(folder, "out.jsonl"), env=env, fresh=True)
        wait_until(lambda: server.requests >= 50, process)
        returncode, stderr = interrupt(process, number)
        assert returncode == code, stderr
        assert "--resume" in stderr
        assert "Traceback" not in stderr
        assert not (folder / "out.jsonl").exists()
        done = beam_batch(*_arguments(folder, "out.jsonl", "--resume"), env=env)
        assert done.returncode == 0, done.stderr
        assert max(_sent(server).values()) == 1
    assert (folder / "out.jsonl").read_bytes() == calm


def test_a_second_ctrl_c_leaves_at_once(folder: Path) -> None:
    with ScriptedServer(delay=60) as server:
        process = start(
            *_arguments(folder, "out.jsonl"), env=environment(GENERIC_BASE_URL=server.base_url)
        )
        wait_until(lambda: server.requests >= 1, process)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while "once more" not in (line := process.stderr.readline()):
            assert line, "the run ended before it said that it drains"
        returncode, _ = interrupt(process, signal.SIGINT)
    assert returncode == 130


def test_torn_last_lines_are_passed_over_counted_and_reported(folder: Path) -> None:
    calm = _undisturbed(folder)
    with ScriptedServer(delay=0.01) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        process = start(*_arguments(folder, "out.jsonl"), env=env)
        wait_until(lambda: server.requests >= 120, process)
        interrupt(process, signal.SIGKILL)
        torn = list((folder / ".out.jsonl.batch" / "parts").glob("*.jsonl"))
        assert torn
        for part in torn:
            part.write_bytes(part.read_bytes()[:-7])
        done = beam_batch(*_arguments(folder, "out.jsonl", "--resume"), env=env)
    assert done.returncode == 0, done.stderr
    assert f"passed over {len(torn)} torn line" in done.stderr
    assert (folder / "out.jsonl").read_bytes() == calm


def test_torn_last_lines_of_finished_files_are_passed_over_on_resume(folder: Path) -> None:
    calm = _undisturbed(folder)
    output = folder / "calm.jsonl"
    output.write_bytes(calm[:-9])
    (folder / "t.jsonl").write_bytes(
        b'{"id":1,"row_number":1,"ok":true,"timing":{},"usage":{}}\n{"id":'
    )
    failed = {"id": 9, "row_number": 9, "ok": False, "result": None, "error": {"type": "X"}}
    write_jsonl(folder / "e.jsonl", [failed])
    with (folder / "e.jsonl").open("ab") as file:
        file.write(b'{"id":10,"row_')
    with ScriptedServer() as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        more = (
            "--resume", "--telemetry-output", str(folder / "t.jsonl"),
            "--error-output", str(folder / "e.jsonl"),
        )  # fmt: skip
        done = beam_batch(*_arguments(folder, "calm.jsonl", *more), env=env)
        assert server.requests == 1
    assert done.returncode == 0, done.stderr
    assert "torn line" in done.stderr
    assert output.read_bytes() == calm
    assert [record["row_number"] for record in read_jsonl(folder / "t.jsonl")] == [1, ROWS]
    assert read_jsonl(folder / "e.jsonl") == [failed]


def test_a_full_disk_stops_the_run_and_keeps_what_was_written(folder: Path) -> None:
    calm = _undisturbed(folder)
    with ScriptedServer() as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        args = _arguments(folder, "out.jsonl")
        limited = ["bash", "-c", 'ulimit -f 24; exec "$@"', "bash"]
        from tests.support import command

        full = subprocess.run(
            [*limited, *command(*args)], env=env, capture_output=True, text=True, check=False
        )
        assert full.returncode == 1, full.stderr
        assert "Traceback" not in full.stderr
        assert "--resume" in full.stderr
        assert not (folder / "out.jsonl").exists()
        done = beam_batch(*args, "--resume", env=env)
        assert done.returncode == 0, done.stderr
        assert sum(count - 1 for count in _sent(server).values()) <= PARALLEL
    assert (folder / "out.jsonl").read_bytes() == calm


def test_parallel_is_shared_by_worker_processes(folder: Path) -> None:
    write_jsonl(folder / "rows.jsonl", [{"n": n} for n in range(600)])
    calm = _undisturbed(folder)
    with ScriptedServer(delay=0.05) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        args = _arguments(folder, "out.jsonl", "--limit", "600")
        more = ("--parallel", "9", "--", "--direct_num_workers=2")
        done = beam_batch(*args, *more, env=env)
        assert done.returncode == 0, done.stderr
        assert server.most_in_flight == 9
    assert (folder / "out.jsonl").read_bytes() == calm


def test_a_retried_bundle_sends_again_only_what_was_in_flight(folder: Path) -> None:
    """What an engine does when a bundle fails: the same splits again, in the same work directory.

    The retry is played here by running the pipeline a second time over one session.
    """
    import beam_batch as api
    from beam_batch.engine import Engine
    from beam_batch.outputs.recording import Recorder
    from beam_batch.records import Outcome

    spec = api.RunSpec(
        source=api.SourceSpec(input=str(folder / "rows.jsonl")),
        prompt=api.PromptSpec(template="row {{n}}"),
        output=api.OutputSpec(output=str(folder / "out.jsonl")),
        model="generic.scripted",
        call=api.CallSpec(parallel=PARALLEL),
    )
    calm = _undisturbed(folder)
    real, written = Recorder.record, []

    def fail_once(self: Recorder, outcome: Outcome, kind: str) -> bool:
        real(self, outcome, kind)
        written.append(outcome)
        if len(written) == 150:
            raise ZeroDivisionError("the worker is gone")
        return True

    run_pipeline = Engine.run

    def run_twice(*args: Any, **options: Any) -> None:
        with pytest.raises(Exception, match="the worker is gone"):
            run_pipeline(*args, **options)
        run_pipeline(*args, **options)

    with ScriptedServer(delay=0.01) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENERIC_BASE_URL", server.base_url)
        patch.setattr(Recorder, "record", fail_once)
        patch.setattr(Engine, "run", run_twice)
        assert api.run(spec)["ok_rows"] == ROWS
        assert _resent(_sent(server)) <= PARALLEL
    assert (folder / "out.jsonl").read_bytes() == calm


def test_a_sigterm_while_planning_leaves_nothing(folder: Path) -> None:
    with (folder / "rows.jsonl").open("ab") as file:
        for n in range(400_000):
            file.write(b'{"n": %d}\n' % n)
    process = start(*_arguments(folder, "out.jsonl", "--id-field", "n"), env=environment())
    wait_until((folder / ".out.jsonl.batch" / "lock").exists, process)
    returncode, stderr = interrupt(process, signal.SIGTERM)
    assert returncode == 143, stderr
    assert not (folder / ".out.jsonl.batch").exists()


def test_a_second_run_on_the_same_work_directory_is_refused(folder: Path) -> None:
    refused = threading.Event()

    def script(number: int, body: dict[str, Any]) -> Answer:
        refused.wait(120)
        return Answer()

    with ScriptedServer(script) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        first = start(*_arguments(folder, "out.jsonl"), env=env)
        wait_until(lambda: server.requests >= 1, first)
        second = beam_batch(*_arguments(folder, "out.jsonl", "--resume"), env=env)
        refused.set()
        first.communicate(timeout=120)
    assert second.returncode == 2
    assert "another run is using it" in second.stderr
    assert first.returncode == 0


def test_a_resume_with_other_settings_is_refused_and_names_them(folder: Path) -> None:
    with ScriptedServer(delay=0.02) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        process = start(*_arguments(folder, "out.jsonl"), env=env)
        wait_until(lambda: server.requests >= 20, process)
        interrupt(process, signal.SIGKILL)
        seen = server.requests
        changed = [a.replace("row {{n}}", "ROW {{n}}") for a in _arguments(folder, "out.jsonl")]
        refused = beam_batch(*changed, "--resume", env=env)
        assert refused.returncode == 2
        assert "--template or --prompt" in refused.stderr
        other = beam_batch(*_arguments(folder, "out.jsonl", "--resume", "--limit", "3"), env=env)
        assert other.returncode == 2
        assert "--limit was None, is 3" in other.stderr
        assert server.requests == seen
        again = beam_batch(*changed, "--resume", "--overwrite", env=env)
    assert again.returncode == 0, again.stderr
    results = [record["result"] for record in read_jsonl(folder / "out.jsonl")]
    assert results[0] == "ROW 1"
    assert len(results) == ROWS
