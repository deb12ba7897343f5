"""From the command line to a real Flink: the jar, Beam's flags, the REST conversation, a run."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from beam_batch.errors import OptionsError
from beam_batch.runners.flink import Cluster, check_cluster, flink_flags
from beam_batch.runners.flink_jar import (
    ENTRY,
    JAR_VARIABLE,
    PATIENCE,
    beam_version,
    jar_name,
    job_server_jar,
)
from beam_batch.runners.flink_job import flink_runner
from tests.conftest import free_port, running
from tests.fakes import ScriptedServer
from tests.flink.cluster import HOME, Flink
from tests.support import beam_batch, environment, read_jsonl, wait_until, write_jsonl

CLUSTER = Cluster("http://[::1]:8081", "2.2.1", "2.2", 2, 8, 8)
NO_JAR = f"{JAR_VARIABLE} names no jar: Beam's Flink job server is in no registry reachable here"


def _jar(path: Path, entry: str = ENTRY) -> Path:
    with zipfile.ZipFile(path, "w") as jar:
        jar.writestr(entry, "")
    return path


def _refused(environment: dict[str, str], **more: object) -> str:
    with pytest.raises(OptionsError) as refused:
        job_server_jar("2.2", environment, **more)  # type: ignore[arg-type]
    return str(refused.value)


def test_a_jar_is_taken_from_the_flag_then_the_variable_then_beams_look_up(tmp_path: Path) -> None:
    named, variable, fetched = (_jar(tmp_path / f"{name}.jar") for name in "abc")
    variables = {JAR_VARIABLE: str(variable)}

    def fetch(target: str) -> str:
        assert target == ":runners:flink:2.2:job-server:shadowJar"
        return str(fetched)

    assert job_server_jar("2.2", variables, str(named), fetch) == str(named)
    assert job_server_jar("2.2", variables, None, fetch) == str(variable)
    assert job_server_jar("2.2", {JAR_VARIABLE: ""}, None, fetch) == str(fetched)


def test_beams_look_up_knows_the_jar_by_the_name_that_we_give_it() -> None:
    from apache_beam.utils.subprocess_server import JavaJarServer

    url = JavaJarServer.path_to_beam_jar(":runners:flink:2.2:job-server:shadowJar")
    assert url.endswith(
        f"org/apache/beam/beam-runners-flink-2.2-job-server/{beam_version()}/{jar_name('2.2')}"
    )


def test_a_jar_that_cannot_be_had_is_named_with_the_variable_to_set() -> None:
    def fetch(target: str) -> str:
        assert socket.getdefaulttimeout() == PATIENCE
        try:  # as Beam does, which leaves these errors below its own
            try:
                raise ValueError("no file system for https")
            except ValueError:
                raise URLError("Name or service not known")  # noqa: B904
        except URLError:
            raise RuntimeError("Unable to fetch https://one/of/two\nmore")  # noqa: B904

    for said in (_refused({}), _refused({}, fetch=fetch)):
        assert socket.getdefaulttimeout() is None
        assert f"--runner flink needs {jar_name('2.2')}" in said
        assert f"org.apache.beam:beam-runners-flink-2.2-job-server:{beam_version()}" in said
        assert f"set {JAR_VARIABLE}" in said
        assert "--flink_job_server_jar=PATH after --" in said
    assert "cannot fetch it (<urlopen error Name or service not known>). Beam" in said


def test_a_jar_that_is_another_one_is_refused_before_it_is_uploaded(tmp_path: Path) -> None:
    text = tmp_path / "page.jar"
    text.write_text("<html>")
    other = _jar(tmp_path / "other.jar", "Main.class")
    old = _jar(tmp_path / f"beam-runners-flink-1.19-job-server-{beam_version()}.jar")
    assert f"{JAR_VARIABLE} {text} is not Beam's" in _refused({JAR_VARIABLE: str(text)})
    assert f"--flink_job_server_jar {other} is not Beam's" in _refused({}, named=str(other))
    assert "is for Flink 1.19" in _refused({JAR_VARIABLE: str(old)})
    for missing in (tmp_path / "none.jar", tmp_path):
        assert "cannot be read" in _refused({JAR_VARIABLE: str(missing)})


def test_flags_are_beams_and_those_of_a_user_win() -> None:
    from apache_beam.options.pipeline_options import (
        FlinkRunnerOptions,
        PipelineOptions,
        PortableOptions,
    )

    flags = flink_flags(CLUSTER, "/jars/a.jar")
    options = PipelineOptions(flags=[*flags, "--parallelism=3"], allow_abbrev=False)
    flink, portable = options.view_as(FlinkRunnerOptions), options.view_as(PortableOptions)
    assert (flink.flink_master, flink.flink_version) == ("http://[::1]:8081", "2.2")
    assert (flink.flink_job_server_jar, flink.flink_submit_uber_jar) == ("/jars/a.jar", True)
    assert flink.parallelism == 3
    assert (portable.environment_type, portable.environment_config) == (
        "EXTERNAL", "localhost:50000",
    )  # fmt: skip
    assert "--parallelism=8" in flags


def test_each_environment_takes_what_it_needs_and_nothing_else() -> None:
    def config(*given: str | None) -> str:
        return flink_flags(CLUSTER, "a.jar", *given)[-1]

    assert config("external", "[::1]:50000") == "--environment_config=[::1]:50000"
    assert config("docker", "me/workers:1") == "--environment_config=me/workers:1"
    assert config("process", "/opt/boot") == '--environment_config={"command": "/opt/boot"}'
    assert config("loopback", None) == "--environment_type=LOOPBACK"
    for wrong in (
        ("docker", None), ("process", None), ("loopback", "x"), ("yarn", None), ("external", "p"),
    ):  # fmt: skip
        with pytest.raises(OptionsError, match="--environment"):
            config(*wrong)


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A jar that Beam takes for its job server, compiled against the Flink that runs it."""
    if not shutil.which("javac"):
        pytest.skip("there is no javac to make a stand-in for Beam's jar")
    folder = tmp_path_factory.mktemp("stand-in")
    source = Path(__file__).with_name("FlinkPipelineRunner.java")
    subprocess.run(
        ["javac", "-cp", f"{HOME}/lib/*", "-d", folder, source], check=True, capture_output=True
    )
    jar = folder / "job-server.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        for path in folder.rglob("*.class"):
            archive.write(path, path.relative_to(folder))
    return jar


def _start(flink: Flink, jar: Path, name: str) -> Any:
    """Submit a pipeline as the engine does, and return Beam's result of it."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    found = job_server_jar("2.2", {JAR_VARIABLE: str(jar)})
    flags = [*flink_flags(check_cluster(flink.master), found), f"--job_name={name}"]
    options = PipelineOptions(flags=flags, allow_abbrev=False)
    pipeline = beam.Pipeline(flink_runner(), options=options)
    pipeline | beam.Create([1])
    return pipeline.run()


def _states(flink: Flink) -> list[str]:
    jobs = flink.get("jobs/overview")["jobs"]
    return [job["state"] for job in sorted(jobs, key=lambda job: -job["start-time"])]


def test_beam_uploads_and_starts_a_job_on_a_real_flink_with_our_flags(
    flink: Flink, stand_in: Path
) -> None:
    """All that a submission does on this side of the cluster; Beam's own Java is stood in for."""
    assert _start(flink, stand_in, "to-end").wait_until_finish() == "DONE"
    assert _states(flink)[0] == "FINISHED"
    assert flink.get("jars")["files"] == []  # Beam has cleared its upload away


def test_a_job_that_fails_on_a_real_flink_says_why(flink: Flink, stand_in: Path) -> None:
    with pytest.raises(RuntimeError, match="failed as asked"):
        _start(flink, stand_in, "to-fail").wait_until_finish()
    assert _states(flink)[0] == "FAILED"


def test_a_job_on_a_real_flink_can_be_cancelled(flink: Flink, stand_in: Path) -> None:
    result = _start(flink, stand_in, "to-go-on")
    wait_until(lambda: _states(flink)[0] == "RUNNING")
    result.cancel()
    wait_until(lambda: _states(flink)[0] == "CANCELED")


def _wired() -> bool:
    from beam_batch.cli.main import cli

    return "flink_master" in {parameter.name for parameter in cli.commands["run"].params}


wired = pytest.mark.skipif(not _wired(), reason="`run` has no --flink-master yet")


def _arguments(rows: Path, output: Path, flink: Flink) -> list[object]:
    return [
        "run", "-i", rows, "-o", output, "-m", "generic.m", "-p", "{{text}}", "--id-field", "id",
        "--runner", "flink", "--flink-master", flink.master,
        "--work-dir", output.parent / "work", "--work-dir-is-shared", "--no-final-summary",
    ]  # fmt: skip


@wired
def test_a_run_without_the_jar_ends_in_one_line_that_names_it(flink: Flink, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"id": "a", "text": "b"}])
    output = tmp_path / "out.jsonl"
    nowhere = f"http://127.0.0.1:{free_port()}"
    with ScriptedServer() as server:
        done = beam_batch(
            *_arguments(rows, output, flink),
            env=environment(
                GENERIC_BASE_URL=server.base_url, HOME=str(tmp_path), https_proxy=nowhere,
                **{JAR_VARIABLE: ""},
            ),
        )  # fmt: skip
        assert server.requests == 0
    assert done.returncode == 2
    assert f"set {JAR_VARIABLE}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()


@pytest.fixture
def pool() -> Iterator[int]:
    """A worker pool in a process of its own; yields its port."""
    port = free_port()
    command = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with running([*command, f"--service_port={port}"], lambda: True, environment(PATH=path)):
        yield port


@wired
@pytest.mark.skipif(not os.environ.get(JAR_VARIABLE), reason=NO_JAR)
def test_a_run_on_a_real_flink_answers_every_row(flink: Flink, pool: int, tmp_path: Path) -> None:
    data = [{"id": f"r{n}", "text": f"row {n}"} for n in range(1, 101)]
    data[6].pop("text")
    rows, output = write_jsonl(tmp_path / "rows.jsonl", data), tmp_path / "out.jsonl"
    with ScriptedServer() as server:
        done = beam_batch(
            *_arguments(rows, output, flink), "--", f"--environment_config=localhost:{pool}",
            env=environment(GENERIC_BASE_URL=server.base_url),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert server.requests == 99
    envelopes = read_jsonl(output)
    assert [envelope["id"] for envelope in envelopes] == [row["id"] for row in data]
    assert sum(envelope["ok"] for envelope in envelopes) == 99
