"""What is wrong with an engine is said before anything is planned, by the flag that says it."""

from __future__ import annotations

import importlib.util
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beam_batch.engine import CHECK, Engine, make_engine
from beam_batch.errors import OptionsError, RunStopped
from beam_batch.options import OutputSpec, RunnerSpec, RunSpec, SourceSpec
from beam_batch.outputs.workdir import WorkDir
from beam_batch.providers import resolve_model
from beam_batch.runners.base import is_here, why
from beam_batch.runners.choosing import choose
from beam_batch.runners.prism import find_prism, serving
from beam_batch.session import open_session


def _run_spec(model: str = "echo", **runner: Any) -> RunSpec:
    return RunSpec(
        source=SourceSpec(input="rows.jsonl"),
        output=OutputSpec(output="out.jsonl"),
        model=resolve_model(model, {}),
        runner=RunnerSpec(**runner),
    )


@pytest.fixture
def deaf() -> Iterator[str]:
    """An address where nothing answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def stranger() -> Iterator[str]:
    """An address where something takes connections and says nothing that an engine would."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What passes for Prism as long as nobody starts it."""
    path = tmp_path / "prism"
    path.write_text("#!/bin/sh\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("BEAM_BATCH_PRISM", str(path))
    return path


@pytest.mark.parametrize(
    ("runner", "said"),
    [
        ({"name": ""}, "--runner"),
        ({"environment": "loopback"}, "--environment is for"),
        ({"name": "dask", "environment": "loopback"}, "--environment is for"),
        ({"name": "prism", "environment": "cloud"}, "--environment must be one of"),
        ({"name": "prism", "environment_config": "a:1"}, "needs --environment"),
        ({"name": "prism", "environment": "external"}, "needs --environment-config"),
        ({"name": "flink", "environment": "docker"}, "needs --environment-config"),
        (
            {"name": "prism", "environment": "loopback", "environment_config": "x"},
            "takes no --environment-config",
        ),
        ({"name": "prism", "flink_master": "a:1"}, "--flink-master is for"),
        ({"beam_args": ("junk",)}, "flags of Beam go after --"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(runner: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionsError, match=said):
        RunnerSpec(**runner)


@pytest.mark.parametrize(
    ("runner", "said"),
    [
        ({"name": "Bogus"}, "--runner Bogus"),
        ({"beam_args": ("--no_such=1",)}, "no flag of Beam's direct runner"),
        ({"name": "dask", "beam_args": ("--no_such=1",)}, "no flag of Beam's dask runner"),
        ({"name": "prism", "beam_args": ("--no_such=1",)}, "no flag of Beam's prism runner"),
        ({"name": "BundleBasedDirectRunner", "beam_args": ("--no_such",)}, "no flag of Beam's"),
        ({"beam_args": ("--direct_num_workers=many",)}, "invalid int value"),
        ({"name": "portable"}, "--job_endpoint=HOST:PORT"),
        ({"name": "portable", "beam_args": ("--job_endpoint=here",)}, "is no address"),
        (
            {
                "name": "prism",
                "environment": "loopback",
                "beam_args": ("--environment_type=DOCKER",),
            },
            "exclude each other",
        ),
    ],
)
def test_what_an_engine_does_not_know_is_refused(
    program: Path, runner: dict[str, Any], said: str
) -> None:
    with pytest.raises(OptionsError, match=said):
        make_engine(_run_spec(**runner))


def test_an_address_where_nothing_answers_is_named(program: Path, deaf: str) -> None:
    pools = {"environment": "external", "environment_config": deaf}
    for runner in (
        {"name": "prism", **pools},
        {"name": "portable", "beam_args": (f"--job_endpoint={deaf}",)},
        {
            "name": "dask",
            "beam_args": (f"--dask_client_address={deaf}", "--dask_connection_timeout=1"),
        },
    ):
        with pytest.raises(OptionsError, match=deaf):
            make_engine(_run_spec(**runner))


def test_something_else_at_the_address_of_a_server_is_no_server(
    stranger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beam_batch.runners.portable.PATIENCE", 0.5)
    for runner in (
        {"name": "portable", "beam_args": (f"--job_endpoint={stranger}",)},
        {
            "name": "dask",
            "beam_args": (f"--dask_client_address={stranger}", "--dask_connection_timeout=1"),
        },
    ):
        with pytest.raises(OptionsError, match=stranger):
            make_engine(_run_spec(**runner))


def test_without_prism_the_command_that_installs_it_is_named(tmp_path: Path, program: Path) -> None:
    empty = {"PATH": str(tmp_path / "none")}
    assert find_prism((), empty | {"PATH": str(tmp_path)}) == str(program)
    assert find_prism((f"--prism_location={program}",), empty) == str(program)
    assert find_prism(("--prism_location", str(program)), empty) == str(program)
    for args, env in (
        (("--prism_location=/no/where",), empty),
        ((), empty | {"BEAM_BATCH_PRISM": "/no/where"}),
    ):
        with pytest.raises(OptionsError, match=r"/no/where.*go install .*prism@v2.77.0"):
            find_prism(args, env)


def test_prism_that_ends_at_once_ends_the_run(tmp_path: Path, program: Path) -> None:
    program.write_text("#!/bin/sh\necho no port is free\nexit 3\n")
    work = WorkDir(str(tmp_path / "work"))
    work.root.mkdir()
    with (
        pytest.raises(RunStopped, match=r"Prism did not start; .*run\.log"),
        serving(str(program), work),
    ):
        pytest.fail("it serves")
    assert "no port is free" in work.log.read_text()


def test_prism_that_beam_has_downloaded_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(OptionsError, match=r"go install .*prism@v2.77.0"):
        find_prism((), {"PATH": ""})
    cache = tmp_path / ".apache_beam" / "cache" / "prism" / "bin"
    cache.mkdir(parents=True)
    (cache / "apache_beam-v2.77.0-prism-linux-amd64").touch()
    (cache / "apache_beam-v2.77.0-prism-linux-amd64.zip").touch()
    assert find_prism((), {"PATH": ""}).endswith("prism-linux-amd64")


def test_dask_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "distributed" else real(name),
    )
    with pytest.raises(OptionsError, match=r"beam-batch\[dask\]"):
        make_engine(_run_spec(name="dask"))


def test_a_local_model_is_refused_where_workers_may_not_reach_it(program: Path) -> None:
    docker = {"name": "prism", "environment": "docker", "environment_config": "image:1"}
    with pytest.raises(OptionsError, match=r"--model local\.smollm2"):
        make_engine(_run_spec("local.smollm2", **docker))
    assert not make_engine(_run_spec("local.smollm2", name="prism")).setup.remote


def test_names_of_beam_and_ours_are_the_same_engines(program: Path) -> None:
    for name, kind in (
        ("PrismRunner", "prism"), ("DirectRunner", "direct"), ("DaskRunner", "dask"),
        ("apache_beam.runners.portability.fn_api_runner.FnApiRunner", "direct"),
    ):  # fmt: skip
        assert RunnerSpec(name=name).kind == kind
    setup = make_engine(_run_spec(name="PrismRunner")).setup
    assert setup.flags == ("--environment_type=LOOPBACK",)
    assert (setup.workers, setup.remote, setup.pools) == (1, False, ())


def test_dask_without_a_scheduler_uses_processes_of_this_machine() -> None:
    setup = make_engine(_run_spec(name="dask")).setup
    assert (setup.workers, setup.remote, setup.fused) == (os.cpu_count(), False, True)
    assert "--dask_partition_size=1" in setup.flags
    sized = make_engine(_run_spec(name="dask", beam_args=("--dask_npartitions=7",))).setup
    assert "--dask_partition_size=1" not in sized.flags


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("localhost:1", True), ("127.0.0.1:1", True), ("[::1]:1", True),
        ("tcp://127.0.0.2:1", True), ("tcp://10.0.0.1:1", False), ("host:1", False), ("", False),
    ],
)  # fmt: skip
def test_only_a_loopback_address_is_here(address: str, here: bool) -> None:
    assert is_here(address) == here


def test_a_failed_job_says_what_python_said_and_no_stack_of_go() -> None:
    python = "Traceback\n  File x\nZeroDivisionError: the worker is gone"
    text = f"{python}\n\ngoroutine 7 [running]:\n\tgo.go"
    assert why(RuntimeError(text)) == "RuntimeError: ZeroDivisionError: the worker is gone"
    assert why(RuntimeError("")) == "RuntimeError: no message"
    assert why(ConnectionError("first\nsecond")) == "ConnectionError: first"


def test_a_worker_that_comes_late_and_lacks_something_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have sent rows by then, so it is no mistake that is found before anything is sent."""
    (tmp_path / "rows.jsonl").write_text('{"n": 1}\n')
    spec = RunSpec(
        source=SourceSpec(input=str(tmp_path / "rows.jsonl")),
        output=OutputSpec(output=str(tmp_path / "out.jsonl")),
        model=resolve_model("echo", {}),
    )
    work = WorkDir(str(tmp_path / "work"))
    work.claim()
    session = open_session(spec, work, spec.output.output)

    def wait(_: Engine, job: Any, opened: Any, graph: str) -> None:
        if graph == CHECK:
            work.place.put(f"{job.worker.file}-worker", b"")
            return
        raise OptionsError("worker w has no key.")

    monkeypatch.setattr(Engine, "_wait", wait)
    engine = make_engine(spec)._replace(checks_workers=True)
    with pytest.raises(RunStopped, match=r"the run failed: worker w has no key\. Finished") as it:
        engine.run(spec, session)
    assert it.value.exit_code == 1


def test_short_names_may_be_written_large() -> None:
    assert RunnerSpec(name="Direct").kind == "direct"
    assert RunnerSpec(name="DASK").kind == "dask"


def test_a_worker_s_command_that_is_not_there_is_named(program: Path) -> None:
    spec = RunnerSpec(
        name="prism",
        environment="process",
        environment_config="no-such-command --x",
        beam_args=(f"--prism_location={program}",),
    )
    with pytest.raises(OptionsError, match=r"no-such-command --x: there is no command no-such-com"):
        choose(spec, None, {})


def test_what_grpc_says_is_said() -> None:
    class Refused(Exception):
        def details(self) -> str:
            return "worker pool is gone"

        def __str__(self) -> str:
            return "<_MultiThreadedRendezvous\n\tdetails = x\n>"

    assert why(Refused()) == "Refused: worker pool is gone"


def test_a_shared_work_directory_is_not_for_workers_that_are_here() -> None:
    with pytest.raises(OptionsError, match="--work-dir-is-shared is for engines with workers else"):
        RunnerSpec(work_dir_is_shared=True)
