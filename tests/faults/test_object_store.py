"""A work directory in an object store keeps every promise that one in a folder keeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import Answer, PayingServer, ScriptedServer
from tests.stores import make_bucket, relay, s3_server
from tests.support import (
    ROOT,
    beam_batch,
    environment,
    interrupt,
    read_jsonl,
    start,
    wait_until,
    write_jsonl,
)

ROWS = 150
PARALLEL = 8
TWO = ("--", "--direct_num_workers=2")
HURRY = """
import sys
from beam_batch.outputs import roll, workdir
from beam_batch.calling import window  # noqa: F401
from beam_batch import progress, launch  # noqa: F401

for name, module in list(sys.modules.items()):
    if name.startswith("beam_batch."):
        for constant, value in (("TTL", 10.0), ("BEAT", 0.3), ("STORE_INTERVAL", 0.3)):
            if hasattr(module, constant):
                setattr(module, constant, value)
"""
"""Processes that look at the store more often than they do, so that the dead are found sooner."""


@dataclass
class Place:
    """A folder with rows, an S3 server with a bucket, and what processes need to reach it."""

    folder: Path
    env: dict[str, str]
    files: Any
    uri: str

    def arguments(self, output: str, *more: str) -> tuple[str, ...]:
        return (
            "run", "-i", str(self.folder / "rows.jsonl"), "-o", str(self.folder / output),
            "-m", "generic.scripted?max_tokens=40", "-p", "row {{n}}",
            "--parallel", str(PARALLEL), "--work-dir", self.uri, "--no-final-summary", *more,
        )  # fmt: skip

    def reaching(self, server: ScriptedServer, **more: str) -> dict[str, str]:
        return environment(GENERIC_BASE_URL=server.base_url, **{**self.env, **more})

    def run(
        self, server: ScriptedServer, output: str, *more: str
    ) -> subprocess.CompletedProcess[str]:
        return beam_batch(*self.arguments(output, *more), env=self.reaching(server))

    def patch(self, code: str) -> None:
        with (self.folder / "patch" / "sitecustomize.py").open("a") as file:
            file.write(code)

    def there(self) -> list[str]:
        return sorted(self.files.find(self.uri))

    def check_whole(self, output: str, rows: int = ROWS) -> None:
        """Each row has one envelope, in order, and nothing else is left."""
        found = read_jsonl(self.folder / output)
        assert [line["row_number"] for line in found] == list(range(1, rows + 1))
        assert all(line["ok"] for line in found)
        assert self.there() == []
        assert not list(self.folder.glob("*.batch"))


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with s3_server() as env:
        make_bucket(env)
        yield env


@pytest.fixture
def place(s3: dict[str, str], tmp_path: Path) -> Place:
    import s3fs

    patch = tmp_path / "patch"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(HURRY)
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(1, ROWS + 1)])
    files = s3fs.S3FileSystem(
        key=s3["AWS_ACCESS_KEY_ID"],
        secret=s3["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=s3["AWS_ENDPOINT_URL"],
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    env = s3 | {"PYTHONPATH": f"{patch}{os.pathsep}{ROOT}"}
    return Place(tmp_path, env, files, f"s3://data/{tmp_path.name}")


REFUSING = """
import os
import s3fs

put = s3fs.S3FileSystem._pipe_file

async def refused(self, *args, **options):
    if os.path.exists(os.environ["REFUSES"]):
        raise PermissionError("Access Denied")
    return await put(self, *args, **options)

s3fs.S3FileSystem._pipe_file = refused
"""
TWICE = """
import threading
from beam_batch.engine import Engine

run = Engine._run

def twice(self, *args):
    other = threading.Thread(target=run, args=(self, *args))
    other.start()
    run(self, *args)
    other.join()

Engine._run = twice
"""


def _sent(server: ScriptedServer) -> Counter[str]:
    return Counter(body["messages"][-1]["content"] for body in server.bodies)


def _resent(server: ScriptedServer) -> int:
    return sum(count - 1 for count in _sent(server).values())


@pytest.mark.parametrize("engine", [TWO], ids=["two-processes"])
def test_a_run_writes_what_it_writes_with_a_folder(place: Place, engine: tuple[str, ...]) -> None:
    with ScriptedServer() as server:
        done = place.run(server, "store.jsonl", *engine)
        assert done.returncode == 0, done.stderr
        assert server.requests == ROWS
        place.check_whole("store.jsonl")
        place.uri = str(place.folder / "work")
        done = place.run(server, "folder.jsonl", *engine)
        assert done.returncode == 0, done.stderr
    written = [(place.folder / f"{name}.jsonl").read_bytes() for name in ("store", "folder")]
    assert written[0] == written[1]


def test_beam_s_own_s3_file_system_sees_the_same_work_directory(place: Place) -> None:
    """Part files are plain objects, for whatever else reads the store."""
    with ScriptedServer() as server:
        done = place.run(server, "out.jsonl", "--keep-temp")
        assert done.returncode == 0, done.stderr
    pytest.importorskip("boto3", reason="Beam's S3 file system needs boto3; moto brings it")
    from apache_beam.io.aws.s3filesystem import S3FileSystem
    from apache_beam.options.pipeline_options import PipelineOptions

    reach = {"endpoint_url": "AWS_ENDPOINT_URL", "region_name": "AWS_DEFAULT_REGION"}
    reach |= {"access_key_id": "AWS_ACCESS_KEY_ID", "secret_access_key": "AWS_SECRET_ACCESS_KEY"}
    files = S3FileSystem(PipelineOptions([f"--s3_{k}={place.env[v]}" for k, v in reach.items()]))
    (found,) = files.match([f"{place.uri}/parts/*"])
    lines = [line for file in found.metadata_list for line in files.open(file.path)]
    assert {json.loads(line)["row_number"] for line in lines} == set(range(1, ROWS + 1))


@pytest.mark.parametrize("engine", [TWO], ids=["two-processes"])
def test_a_killed_driver_costs_at_most_its_window(place: Place, engine: tuple[str, ...]) -> None:
    with ScriptedServer(delay=0.05) as server:
        args = place.arguments("out.jsonl", "--resume", *engine)
        process = start(*args, env=place.reaching(server))
        wait_until(lambda: server.requests >= 60, process)
        interrupt(process, signal.SIGKILL)
        done = beam_batch(*args, env=place.reaching(server))
        assert done.returncode == 0, done.stderr
        assert _resent(server) <= 2 * PARALLEL
        assert server.most_in_flight <= PARALLEL
    place.check_whole("out.jsonl")


def test_ctrl_c_drains_and_nothing_is_sent_twice(place: Place) -> None:
    with ScriptedServer(delay=0.05) as server:
        process = start(*place.arguments("out.jsonl"), env=place.reaching(server))
        wait_until(lambda: server.requests >= 50, process)
        code, stderr = interrupt(process, signal.SIGINT)
        assert code == 130, stderr
        assert "Traceback" not in stderr
        assert place.there()
        done = place.run(server, "out.jsonl", "--resume")
        assert done.returncode == 0, done.stderr
        assert max(_sent(server).values()) == 1
    place.check_whole("out.jsonl")


def test_caps_hold_and_a_resumed_run_goes_on(place: Place) -> None:
    with PayingServer(1) as server:
        price = ("--price", "input=100,output=1000")
        for cap in (1.0, 2.0):
            done = place.run(server, "out.jsonl", "--resume", "--max-cost", str(cap), *price)
            assert done.returncode == 4, done.stderr
            assert f"--max-cost {cap:g}" in done.stderr
            assert cap - 0.6 < server.paid_usd <= cap


def test_max_errors_stops_the_run(place: Place) -> None:
    with ScriptedServer(lambda number, body: Answer(status=400), delay=0.05) as server:
        done = place.run(server, "out.jsonl", "--max-errors", "10")
        assert done.returncode == 3, done.stderr
        assert "stopped by --max-errors 10" in done.stderr
        assert 10 <= server.requests < ROWS


def test_a_second_driver_is_refused_while_the_first_lives(place: Place) -> None:
    with ScriptedServer(delay=0.1) as server:
        process = start(*place.arguments("out.jsonl"), env=place.reaching(server))
        wait_until(lambda: server.requests >= 20, process)
        second = place.run(server, "other.jsonl")
        assert second.returncode == 2, second.stderr
        assert f"--work-dir {place.uri}: another run is using it" in second.stderr
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
        assert server.requests == ROWS
    place.check_whole("out.jsonl")


def test_a_driver_that_was_held_up_for_long_leaves_the_directory_to_the_next(place: Place) -> None:
    with ScriptedServer(delay=0.1) as server:
        process = start(*place.arguments("out.jsonl"), env=place.reaching(server))
        wait_until(lambda: server.requests >= 20, process)
        process.send_signal(signal.SIGSTOP)
        done = place.run(server, "out.jsonl", "--resume")
        assert done.returncode == 0, done.stderr
        process.send_signal(signal.SIGCONT)
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 1, stderr
        assert "may be another's" in stderr
        assert _resent(server) <= 2 * PARALLEL
    found = read_jsonl(place.folder / "out.jsonl")
    assert [line["row_number"] for line in found] == list(range(1, ROWS + 1))


def test_what_others_keep_under_the_prefix_is_left_alone(place: Place) -> None:
    place.files.pipe_file(f"{place.uri}/notes.txt", b"mine")
    with ScriptedServer() as server:
        done = place.run(server, "out.jsonl", "--overwrite")
        assert done.returncode == 2, done.stderr
        assert "it holds 'notes.txt'" in done.stderr
        place.files.pipe_file(f"{place.uri}-2/notes.txt", b"a neighbour's")
        place.files.rm(f"{place.uri}/notes.txt")
        done = place.run(server, "out.jsonl")
        assert done.returncode == 0, done.stderr
    place.check_whole("out.jsonl")
    assert place.files.cat_file(f"{place.uri}-2/notes.txt") == b"a neighbour's"


@pytest.mark.parametrize(
    ("uri", "more", "said"),
    [
        ("s3://no-such-bucket/work", {}, "Make the bucket first, or name another"),
        ("s3://data/work", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "Look at the address"),
        ("ftp://data/work", {}, "use s3://, gs:// or az://"),
    ],
    ids=["no bucket", "no server", "no store"],
)
def test_a_store_that_cannot_be_used_is_refused_before_anything_is_sent(
    place: Place, uri: str, more: dict[str, str], said: str
) -> None:
    place.uri = uri
    with ScriptedServer() as server:
        done = beam_batch(*place.arguments("out.jsonl"), env=place.reaching(server, **more))
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith(f"Error: --work-dir {uri}")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
        assert server.requests == 0
    assert not list(place.folder.glob("*.batch"))


def test_a_batch_api_needs_a_folder(place: Place) -> None:
    with ScriptedServer() as server:
        model = ("-m", "openai.gpt-5-nano", "--backend", "batch")
        done = beam_batch(
            *place.arguments("out.jsonl", *model),
            env=place.reaching(server, OPENAI_API_KEY="sk-canary"),
        )
        assert done.returncode == 2
        assert f"--work-dir {place.uri}: --backend batch keeps its journal in a folder" in (
            done.stderr
        )
    for command in ("status", "fetch", "cancel"):
        done = beam_batch(command, place.uri, env=environment(**place.env))
        assert done.returncode == 2
        said = "no run is there" if command == "status" else "batches are kept in folders only"
        assert said in done.stderr


@pytest.mark.parametrize("kind", ["store", "folder"])
def test_two_attempts_of_a_bundle_at_once_leave_one_envelope_and_count_both_costs(
    place: Place, kind: str
) -> None:
    place.patch(TWICE)
    if kind == "folder":
        place.uri = str(place.folder / "work")
    summary = place.folder / "summary.json"
    write_jsonl(place.folder / "rows.jsonl", [{"n": n} for n in range(1, 61)])
    with ScriptedServer(delay=0.3) as server:
        done = place.run(server, "out.jsonl", "--no-dedupe", "--summary-output", str(summary))
        assert done.returncode == 0, done.stderr
        assert 60 < server.requests <= 120
        usage = json.loads(summary.read_text())["usage"]
        assert usage["input_tokens"] == 5 * server.requests
        assert usage["output_tokens"] == 2 * server.requests
    found = read_jsonl(place.folder / "out.jsonl")
    assert [line["row_number"] for line in found] == list(range(1, 61))


@pytest.mark.parametrize("engine", [()], ids=["direct"])
def test_a_store_that_takes_nothing_any_more_stops_the_run(
    place: Place, engine: tuple[str, ...]
) -> None:
    place.patch(REFUSING)
    mark = place.folder / "refuses"
    with ScriptedServer(delay=0.05) as server:
        env = place.reaching(server, REFUSES=str(mark))
        process = start(*place.arguments("out.jsonl", *engine), env=env)
        wait_until(lambda: server.requests >= 60, process)
        mark.touch()
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 1, stderr
        assert "Access Denied" in stderr
        assert "Traceback" not in stderr
        assert server.requests < ROWS
        mark.unlink()
        done = beam_batch(*place.arguments("out.jsonl", "--resume"), env=env)
        assert done.returncode == 0, done.stderr
        assert _resent(server) <= 2 * PARALLEL
    place.check_whole("out.jsonl")


def test_a_store_that_refuses_us_is_refused(place: Place) -> None:
    place.patch(REFUSING)
    with ScriptedServer() as server:
        env = place.reaching(server, REFUSES=str(place.folder))
        done = beam_batch(*place.arguments("out.jsonl"), env=env)
        assert done.returncode == 2, done.stderr
        assert f"--work-dir {place.uri}: cannot be used (Access Denied)" in done.stderr
        assert "must be allowed to list, read, write and delete" in done.stderr
        assert server.requests == 0


def test_a_store_that_goes_away_loses_nothing_that_it_has(place: Place) -> None:
    with ScriptedServer(delay=0.05) as server:
        with relay(place.env["AWS_ENDPOINT_URL"]) as url:
            env = place.reaching(server, AWS_ENDPOINT_URL=url)
            process = start(*place.arguments("out.jsonl"), env=env)
            wait_until(lambda: server.requests >= 60, process)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 1, stderr
        assert "Traceback" not in stderr
        assert f"Finished rows are kept in {place.uri}" in stderr
        done = place.run(server, "out.jsonl", "--resume")
        assert done.returncode == 0, done.stderr
        assert _resent(server) <= 2 * PARALLEL
    place.check_whole("out.jsonl")
