"""--detach, and the commands beside a run: status, fetch and cancel."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path

from tests.batches.server import AnthropicServer, BatchServer, Fate
from tests.batches.test_runs import ROWS, arguments, env_of, folder, once_each, online
from tests.support import beam_batch, environment, interrupt, read_jsonl, start, wait_until

__all__ = ["folder"]


def test_a_detached_run_prints_the_commands_that_go_on_and_fetch_needs_nothing_else(
    folder: Path,
) -> None:
    with BatchServer() as server:
        calm = online(folder, server)
        (folder / "template.md").write_text("row {{n}}")
        args = [
            "run", "-i", "rows.jsonl", "-o", "out.jsonl", "-m", "responses.gpt-x", "--template",
            "template.md", "--id-field", "id", "--backend", "batch", "--batch-poll", "0.02",
            "--batch-size", "50", "--detach", "--telemetry-output", "t.jsonl",
        ]  # fmt: skip
        done = beam_batch(*args, env=env_of(server), cwd=folder)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["batches"] == ["batch_1", "batch_2"]
        assert not (folder / "out.jsonl").exists()
        assert server.calls["poll"] == 0
        (folder / "template.md").unlink()
        lines = [line for line in done.stderr.splitlines() if "fetch  with:" in line]
        command = shlex.split(lines[0].split("with:")[1])[1:]
        done = beam_batch(*command, env=env_of(server), cwd=folder.parent)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["ok_rows"] == ROWS
        assert server.creates == 2
        assert once_each(server)
    assert (folder / "out.jsonl").read_bytes() == calm
    assert len(read_jsonl(folder / "t.jsonl")) == ROWS
    assert not (folder / ".out.jsonl.batch").exists()


def test_status_shows_what_the_provider_says(folder: Path) -> None:
    with BatchServer(lambda number: Fate(status="expired", share=0.3, looks=0)) as server:
        beam_batch(*arguments(folder, "--detach"), env=env_of(server))
        shown = beam_batch("status", folder / "out.jsonl", env=env_of(server))
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.splitlines()[1].split() == [
            "batch_1", "1", "expired", "100", "30", "0", "100"
        ]  # fmt: skip
        shown = beam_batch("status", folder / ".out.jsonl.batch", "--json", env=env_of(server))
        assert json.loads(shown.stdout)[0]["state"] == "expired"
    shown = beam_batch("status", folder / "out.jsonl", env=env_of(server))
    assert shown.returncode == 0
    assert "cannot ask how batch_1 is" in shown.stderr
    assert "validating" in shown.stdout


def test_a_cancelled_run_keeps_what_was_done_and_sends_the_rest_at_resume(folder: Path) -> None:
    fates = [Fate(share=0.4, looks=1_000_000), Fate()]
    with BatchServer(lambda number: fates[number - 1]) as server:
        beam_batch(*arguments(folder, "--detach"), env=env_of(server))
        done = beam_batch("cancel", folder / "out.jsonl", env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert "batch_1: cancelled" in done.stderr
        done = beam_batch("fetch", folder / "out.jsonl", env=env_of(server))
        assert done.returncode == 1
        assert "60 rows have no answer" in done.stderr
        assert "Go on with" not in done.stderr
        assert server.creates == 1
        done = beam_batch(*arguments(folder, "--resume"), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert [len(work.items) for work in server.works] == [100, 60]
        assert once_each(server)
    assert len(read_jsonl(folder / "out.jsonl")) == ROWS


def test_a_batch_that_is_cancelled_elsewhere_stops_the_run(folder: Path) -> None:
    fates = [Fate(status="cancelled", share=0.4), Fate()]
    with AnthropicServer(lambda number: fates[number - 1]) as server:
        args = arguments(folder, "-m", "anthropic.claude-x")
        works = server._take
        server._take = lambda *a: _cancelled(works(*a), server)  # type: ignore[method-assign]
        done = beam_batch(*args, env=env_of(server))
        assert done.returncode == 1
        assert "batch_1 was cancelled; 60 rows have no answer" in done.stderr
        done = beam_batch(*args, "--resume", env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert [len(work.items) for work in server.works] == [100, 60]
        assert once_each(server)


def _cancelled(work, server):  # type: ignore[no-untyped-def]
    work.cancelled = server.creates == 1
    return work


def test_commands_say_where_there_is_nothing(folder: Path) -> None:
    for verb in ("status", "fetch", "cancel"):
        done = beam_batch(verb, folder / "out.jsonl", env=environment())
        assert done.returncode == 2
        assert f"no {'run is' if verb == 'status' else 'batches are'} there" in done.stderr


def test_fetch_can_finish_online(folder: Path) -> None:
    with BatchServer(lambda number: Fate(status="expired", share=0.3)) as server:
        beam_batch(*arguments(folder, "--detach"), env=env_of(server))
        done = beam_batch(
            "fetch", folder / "out.jsonl", "--batch-finish", "online", "--batch-poll", "0.01",
            env=env_of(server),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(server.online) == 70
        assert once_each(server)


def test_a_batch_that_is_perhaps_another_s_is_not_cancelled(folder: Path) -> None:
    with AnthropicServer(lambda number: Fate(looks=1_000_000)) as server:
        model = ("-m", "anthropic.claude-x")
        server.kill_at = "create"
        server.victim = start(*arguments(folder, *model), env=env_of(server))
        server.victim.communicate(timeout=120)
        done = beam_batch("cancel", folder / "out.jsonl", env=env_of(server))
        assert done.returncode == 1
        assert "was perhaps created; --resume finds it" in done.stderr
        done = beam_batch(*arguments(folder, *model, "--resume", "--detach"), env=env_of(server))
        assert "found again batch_1" in done.stderr
        done = beam_batch("cancel", folder / "out.jsonl", env=env_of(server))
        assert done.returncode == 1
        assert "batch_1 is perhaps another's" in done.stderr
        assert not server.calls["cancel"]


def test_a_run_that_is_replaced_names_the_batches_that_it_leaves_behind(folder: Path) -> None:
    with BatchServer() as server:
        beam_batch(*arguments(folder, "--detach"), env=env_of(server))
        done = beam_batch(*arguments(folder, "--overwrite"), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert "batch_1 of the replaced run are still with the provider" in done.stderr
        done = beam_batch(*arguments(folder, "--overwrite"), env=env_of(server))
        assert "replaced run" not in done.stderr


def test_a_stopped_fetch_names_itself(folder: Path) -> None:
    with BatchServer(lambda number: Fate(looks=1_000_000)) as server:
        beam_batch(*arguments(folder, "--detach"), env=env_of(server))
        process = start("fetch", folder / "out.jsonl", env=env_of(server))
        wait_until(lambda: server.calls["poll"] >= 1, process)
        returncode, stderr = interrupt(process, signal.SIGINT)
    assert returncode == 130
    assert f"Go on with: beam-batch fetch {folder / 'out.jsonl'}\n" in stderr
