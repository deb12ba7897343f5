"""A batch run that is killed or stopped is picked up, and submits nothing twice."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.batches.server import AnthropicServer, BatchServer, Fate
from tests.batches.test_runs import ROWS, arguments, env_of, folder, once_each, online
from tests.support import beam_batch, interrupt, read_jsonl, start, wait_until

__all__ = ["folder"]

TWO = ("--", "--direct_num_workers=2")


@pytest.mark.parametrize(("where", "engine"), [("create", TWO), ("poll", ()), ("download", ())])
def test_a_killed_run_is_resumed_without_a_second_submit(
    folder: Path, where: str, engine: tuple[str, ...]
) -> None:
    with BatchServer() as server:
        calm = online(folder, server)
        server.kill_at = where
        more = ("--batch-size", "50")
        server.victim = start(*arguments(folder, *more, *engine), env=env_of(server))
        server.victim.communicate(timeout=120)
        assert server.victim.returncode == -signal.SIGKILL
        assert server.kill_at == ""
        done = beam_batch(*arguments(folder, *more, "--resume", *engine), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert server.creates == 2
        assert once_each(server)
        assert server.calls["upload"] == 2
    assert ("found again batch_1" in done.stderr) == (where == "create")
    assert (folder / "out.jsonl").read_bytes() == calm


def test_a_batch_is_found_again_behind_newer_ones_of_the_account(folder: Path) -> None:
    with BatchServer() as server:
        server.kill_at = "create"
        server.victim = start(*arguments(folder), env=env_of(server))
        server.victim.communicate(timeout=120)
        for n in range(3):
            server._take([{"custom_id": "x"}], {"beam_batch": f"another {n}"} if n else None)
        done = beam_batch(*arguments(folder, "--resume"), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert "found again batch_1" in done.stderr
        assert server.creates == 4
        assert once_each(server)


def test_a_killed_run_is_resumed_again_and_again(folder: Path) -> None:
    fates = [Fate(status="expired", share=0.3), Fate()]
    with BatchServer(lambda number: fates[number - 1]) as server:
        calm = online(folder, server)
        kills = ("create", "poll", "download", "create", "poll", "download")
        for where in kills:
            server.victim, server.kill_at = None, where
            server.victim = start(*arguments(folder, "--resume"), env=env_of(server))
            _, stderr = server.victim.communicate(timeout=120)
            assert server.victim.returncode == -signal.SIGKILL, stderr
        done = beam_batch(*arguments(folder, "--resume"), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert [len(work.items) for work in server.works] == [100, 70]
        assert once_each(server)
    assert (folder / "out.jsonl").read_bytes() == calm


@pytest.mark.parametrize("where", ["create", "poll", "download"])
def test_a_killed_anthropic_run_is_resumed_without_a_second_submit(
    folder: Path, where: str
) -> None:
    with AnthropicServer() as server:
        server.kill_at = where
        model = ("-m", "anthropic.claude-x")
        server.victim = start(*arguments(folder, *model), env=env_of(server))
        server.victim.communicate(timeout=120)
        assert server.victim.returncode == -signal.SIGKILL
        done = beam_batch(*arguments(folder, *model, "--resume"), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert server.creates == 1
        assert once_each(server)
    assert len(read_jsonl(folder / "out.jsonl")) == ROWS


def test_another_s_batch_of_the_same_size_is_not_taken_for_ours(folder: Path) -> None:
    """Anthropic's batches have no mark of ours, so only their results tell."""
    with AnthropicServer() as server:
        server.kill_at = "create"
        model = ("-m", "anthropic.claude-x")
        server.victim = start(*arguments(folder, *model), env=env_of(server))
        server.victim.communicate(timeout=120)
        ours = server.works.pop()
        items = [item | {"custom_id": f"x-{n}"} for n, item in enumerate(ours.items)]
        server._take(items)  # our create was lost, and somebody else made this one
        done = beam_batch(*arguments(folder, *model, "--resume"), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert server.creates == 2
        assert set(server.answered.values()) == {2}
    assert "another's batch" in done.stderr
    assert all(record["ok"] for record in read_jsonl(folder / "out.jsonl"))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_a_signal_in_polling_cancels_nothing_and_names_the_command(
    folder: Path, number: signal.Signals, code: int
) -> None:
    with BatchServer(lambda number: Fate(looks=1_000_000)) as server:
        process = start(*arguments(folder), env=env_of(server))
        wait_until(lambda: server.calls["poll"] >= 3, process)
        returncode, stderr = interrupt(process, number)
        assert returncode == code, stderr
        assert "--resume" in stderr
        assert "1 batches go on at the provider" in stderr
        assert "Traceback" not in stderr
        assert not server.calls["cancel"]
        assert not (folder / "out.jsonl").exists()
        server.works[0].fate = Fate(looks=0)
        done = beam_batch(*arguments(folder, "--resume"), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert server.creates == 1
        assert once_each(server)


def test_requests_of_a_run_that_was_killed_while_writing_them_are_written_anew(
    folder: Path,
) -> None:
    with BatchServer() as server:
        done = beam_batch(*arguments(folder, "--detach"), env=env_of(server))
        assert done.returncode == 0
        batches = folder / ".out.jsonl.batch" / "batches"
        (batches / "journal.jsonl").write_bytes(b'{"at":1,"event":"plan')  # torn: nothing is known
        server.works.clear()
        done = beam_batch(*arguments(folder, "--resume", "--keep-temp"), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert server.creates == 1
        assert once_each(server)
        assert len(list(batches.glob("r1-*.jsonl"))) == 1


def test_a_torn_last_line_of_the_journal_is_passed_over(folder: Path) -> None:
    with BatchServer() as server:
        beam_batch(*arguments(folder, "--detach"), env=env_of(server))
        journal = folder / ".out.jsonl.batch" / "batches" / "journal.jsonl"
        journal.write_bytes(journal.read_bytes()[:-9])  # the line that says `created`
        done = beam_batch(*arguments(folder, "--resume"), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert "found again batch_1" in done.stderr
        assert server.creates == 1


def test_a_run_that_is_stopped_in_the_online_finish_sends_no_failed_row_again(
    folder: Path,
) -> None:
    """What a batch has failed for good stays failed over sessions."""
    from tests.fakes import Answer

    bad = Answer(status=400, body=b'{"error": {"message": "no"}}')
    fate = Fate(status="expired", share=0.3, answer=lambda p: bad if p == "row 2" else Answer())
    with BatchServer(lambda number: fate) as server:
        server.kill_at = "download"
        args = arguments(folder, "--batch-finish", "online")
        server.victim = start(*args, env=env_of(server))
        server.victim.communicate(timeout=120)
        server.refuse = lambda call, number: None
        done = beam_batch(*args, "--resume", env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert sorted(server.online) == sorted(f"row {n}" for n in range(31, ROWS + 1))
    failed = [r["id"] for r in read_jsonl(folder / "out.jsonl") if not r["ok"]]
    assert failed == ["id2"]


def test_another_backend_is_refused_while_batches_are_out(folder: Path) -> None:
    with BatchServer() as server:
        beam_batch(*arguments(folder, "--detach"), env=env_of(server))
        args = arguments(folder, "--resume", "--backend", "online")
        done = beam_batch(*args, env=env_of(server))
        assert done.returncode == 2
        assert "--backend was batch, is None" in done.stderr
        assert not server.online


def test_no_key_is_in_the_work_directory(folder: Path) -> None:
    with BatchServer() as server:
        beam_batch(*arguments(folder, "--detach"), env=env_of(server))
    files = [path for path in (folder / ".out.jsonl.batch").rglob("*") if path.is_file()]
    assert any(path.name == "run.json" for path in files)
    for path in files:
        assert b"sk-test-key" not in path.read_bytes()


def test_the_journal_tells_each_step_in_order(folder: Path) -> None:
    with BatchServer(lambda number: Fate(looks=1)) as server:
        done = beam_batch(*arguments(folder, "--keep-temp"), env=env_of(server))
        assert done.returncode == 0
    lines = (folder / ".out.jsonl.batch" / "batches" / "journal.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert events == ["planned", "uploaded", "creating", "created", "seen", "ended", "fetched"]


@pytest.mark.parametrize("finish", ["online", "resubmit"])
def test_a_run_that_is_stopped_while_it_finishes_online_goes_on_either_way(
    folder: Path, finish: str
) -> None:
    fates = [Fate(status="expired", share=0.3), Fate()]
    with BatchServer(lambda number: fates[number - 1]) as server:
        args = arguments(folder, "--batch-finish", "online", "--parallel", "1")
        server.hold_after = 20
        process = start(*args, env=env_of(server))
        wait_until(lambda: len(server.online) > 20, process)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        while "once more" not in (line := process.stderr.readline()):
            assert line, "the run ended before it said that it drains"
        server.hold_after = 1_000_000
        process.communicate(timeout=120)
        assert process.returncode == 143
        assert len(server.online) == 21
        done = beam_batch(*args, "--resume", "--batch-finish", finish, env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert server.creates == (1 if finish == "online" else 2)
        assert once_each(server)
    assert len(read_jsonl(folder / "out.jsonl")) == ROWS


def test_rows_that_were_all_answered_online_need_no_further_batch(folder: Path) -> None:
    """Here the commit is what was lost."""
    with BatchServer(lambda number: Fate(status="expired", share=0.3)) as server:
        args = arguments(folder, "--batch-finish", "online", "--keep-temp")
        assert beam_batch(*args, env=env_of(server)).returncode == 0
        (folder / ".out.jsonl.batch" / "finished").unlink()
        done = beam_batch(*args, "--resume", "--batch-finish", "resubmit", env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert server.creates == 1
        assert once_each(server)
