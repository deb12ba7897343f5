"""What a worker is told that lacks something."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from beam_batch.errors import OptionsError
from beam_batch.inputs.plan import plan_rows
from beam_batch.options import OutputSpec, RunSpec, SourceSpec
from beam_batch.outputs.workdir import WorkDir
from beam_batch.providers import resolve_model
from beam_batch.workers import WorkerSpec, check_place, problem_of, worker_spec
from tests.support import write_jsonl

ECHO = resolve_model("echo", {})


@pytest.fixture
def spec(tmp_path: Path) -> WorkerSpec:
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"n": 1}])
    source = SourceSpec(input=str(rows))
    work = WorkDir(str(tmp_path / "work"))
    plan = plan_rows(source, tmp_path)
    run = RunSpec(source=source, output=OutputSpec(output="out.jsonl"), model=ECHO)
    found = worker_spec(run, work, plan.splits)
    work.place.put(found.file, b"")
    return found


def test_a_worker_that_has_all_leaves_a_file(spec: WorkerSpec) -> None:
    check_place(spec)
    assert problem_of(spec, {}) is None
    (_, answer) = spec.work.place.list(spec.file)
    assert f"process {os.getpid()}" in answer.name


def test_a_work_directory_of_another_machine_is_named_and_not_made(spec: WorkerSpec) -> None:
    there = Path(spec.work.path)
    for path in there.iterdir():
        path.unlink()
    there.rmdir()
    with pytest.raises(OptionsError, match="does not see there what the driver has written"):
        check_place(spec)
    assert not there.exists()


def test_a_work_directory_that_cannot_be_written_is_named(
    spec: WorkerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("beam_batch.places.folder.write_atomically", full)
    with pytest.raises(OptionsError, match=r"cannot use it \(.*Permission denied"):
        check_place(spec)


def test_an_input_that_is_not_there_is_named_with_the_worker(
    spec: WorkerSpec, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").unlink()
    problem = problem_of(spec, {})
    assert problem is not None
    assert "rows.jsonl is gone" in problem
    assert problem.startswith("worker ")
