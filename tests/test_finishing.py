"""The end of a run: what is in place when something goes wrong, and what --resume then does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from beam_batch import OutputSpec, PromptSpec, RunSpec, SourceSpec, launch
from beam_batch.errors import RunStopped
from beam_batch.outputs.gauges import Gauge, answered_before
from beam_batch.outputs.workdir import WorkDir
from tests.fakes import Answer, ScriptedServer, error_body, prompt_of
from tests.support import read_jsonl, write_jsonl


def _answer(number: int, body: dict[str, Any]) -> Answer:
    if prompt_of(body) == "row 2":
        return Answer(status=400, body=error_body("this row is not for me"))
    return Answer(text="fine")


def _spec(folder: Path, model: str = "echo", rows: int = 1, **output: Any) -> RunSpec:
    write_jsonl(folder / "rows.jsonl", [{"n": n} for n in range(1, rows + 1)])
    return RunSpec(
        source=SourceSpec(input=str(folder / "rows.jsonl")),
        prompt=PromptSpec(template="row {{n}}"),
        output=OutputSpec(
            output=str(folder / "out.jsonl"), summary_output=str(folder / "summary.json"), **output
        ),
        model=model,
    )


def _refused(*_: object) -> None:
    raise RunStopped("the results cannot be sent")


def test_a_run_whose_files_could_not_be_put_in_place_sends_nothing_when_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(_answer) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "key-of-a-test")
        with monkeypatch.context() as patched:
            patched.setattr("beam_batch.finishing.publish", _refused)
            for resume in (False, True, True):
                with pytest.raises(RunStopped, match="cannot be sent"):
                    launch.run(_spec(tmp_path, "openai.m", 3, resume=resume))
        summary = launch.run(_spec(tmp_path, "openai.m", 3, resume=True))
        assert server.requests == 3
    assert summary.exit_code == 0  # no row was attempted
    counts = (summary.data[f"{name}_rows"] for name in ("ok", "skipped", "failed"))
    assert tuple(counts) == (0, 2, 1)
    assert [row["ok"] for row in read_jsonl(tmp_path / "out.jsonl")] == [True, False, True]


def test_ctrl_c_while_results_are_put_in_place_is_said_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "put_in_place", interrupted)
    with pytest.raises(RunStopped, match="interrupted while") as stopped:
        launch.run(_spec(tmp_path))
    assert stopped.value.exit_code == 130
    assert (tmp_path / ".out.jsonl.batch").is_dir()


def test_no_summary_says_that_all_is_in_place_where_the_hub_has_refused_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beam_batch.finishing.publish", _refused)
    with pytest.raises(RunStopped, match="cannot be sent"):
        launch.run(_spec(tmp_path))
    assert not (tmp_path / "summary.json").exists()


def test_progress_begins_with_what_earlier_sessions_have_answered(tmp_path: Path) -> None:
    work = WorkDir(str(tmp_path / "work"))
    work.create()
    for session, ok in ((1, 600), (2, 30), (3, 5)):
        Gauge(work, session).show({"ok": ok, "failed": 2}, force=True)
    assert answered_before(work, 3) == 630
    assert answered_before(work, 1) == 0
