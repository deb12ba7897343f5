"""Object stores and web servers: real servers on the loopback address, the command line beside."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.inputs.test_sources import STOP
from tests.stores import KEYS, s3_server
from tests.support import beam_batch, environment, read_jsonl, write_jsonl

ROWS = [{"id": f"r{n}", "n": n} for n in range(1, 41)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that servers serve, and an empty one to run in."""
    served = tmp_path / "served"
    (served / "parts").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    write_jsonl(served / "rows.jsonl", ROWS)
    pq.write_table(pa.Table.from_pylist(ROWS), served / "rows.parquet", row_group_size=10)
    (served / "rows.csv").write_text("id,n\n" + "".join(f"{r['id']},{r['n']}\n" for r in ROWS))
    (served / "rows.jsonl.gz").write_bytes(gzip.compress((served / "rows.jsonl").read_bytes()))
    for number in range(4):
        write_jsonl(served / "parts" / f"{number}.jsonl", ROWS[number * 10 : number * 10 + 10])
    return tmp_path


def results(folder: Path) -> list[tuple[int, str]]:
    found = read_jsonl(folder / "run" / "o.jsonl")
    return [(row["row_number"], row["result"]) for row in found]


WHOLE = [(row["n"], row["id"]) for row in ROWS]


def run(
    folder: Path, uri: str, *args: object, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    done = beam_batch(
        "run", "-i", uri, "-o", "o.jsonl", "-m", "echo", "-p", "{{id}}", *args,
        env=env, cwd=folder / "run",
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "sk-canary-s3" not in done.stdout + done.stderr
    return done


# S3


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as env:
        yield env["AWS_ENDPOINT_URL"]


@pytest.fixture
def bucket(s3: str, folder: Path) -> Iterator[dict[str, str]]:
    """A bucket named data with the served files; yields the environment to reach it with."""
    import boto3

    client = boto3.client(
        "s3", endpoint_url=s3, region_name="us-east-1",
        aws_access_key_id="testing", aws_secret_access_key="testing",
    )  # fmt: skip
    client.create_bucket(Bucket="data")
    served = folder / "served"
    for path in sorted(served.rglob("*")):
        if path.is_file():
            client.put_object(
                Bucket="data", Key=str(path.relative_to(served)), Body=path.read_bytes()
            )
    yield environment(AWS_ENDPOINT_URL=s3, **KEYS)
    for item in client.list_objects_v2(Bucket="data").get("Contents", []):
        client.delete_object(Bucket="data", Key=item["Key"])
    client.delete_bucket(Bucket="data")
    client.close()


def copies(folder: Path) -> list[Path]:
    """Return the copies in the work directory of a stopped run."""
    return sorted(folder.glob("run/.o.jsonl.batch/plan-*/copies/*"))


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl", "rows.csv", "rows.jsonl.gz"])
def test_an_object_is_read_and_a_stopped_run_goes_on(
    folder: Path, bucket: dict[str, str], name: str
) -> None:
    stopped = run(folder, f"s3://data/{name}", *STOP, env=bucket)
    assert stopped.returncode == 3, stopped.stderr
    assert len(copies(folder)) == (0 if name == "rows.parquet" else 1)
    done = run(folder, f"s3://data/{name}", "--resume", env=bucket)
    assert done.returncode == 0, done.stderr
    assert results(folder) == WHOLE


FILL = """
from beam_batch.reuse.making import open_cache
from tests.reuse.support import kept, key
store = open_cache("s3://data/cache")
assert store.get(key(1)) is None
for number in range(20):
    store.put(key(number), kept("x" * number, made=number))
store.forget(key(3))
store.forget(key(3))
assert store.get(key(3)) is None
assert store.get(key(4)) == kept("x" * 4, made=4)
"""


def test_a_cache_of_replies_is_kept_listed_and_pruned(bucket: dict[str, str]) -> None:
    filled = subprocess.run(
        [sys.executable, "-c", FILL], env=bucket, capture_output=True, text=True, check=False
    )
    assert (filled.returncode, filled.stderr) == (0, "")
    listed = beam_batch("cache", "ls", "s3://data/cache", "--json", env=bucket)
    assert json.loads(listed.stdout)["replies"] == 19, listed.stderr
    pruned = beam_batch("cache", "prune", "s3://data/cache", "--model", "openai.m", env=bucket)
    assert (pruned.returncode, "--yes" in pruned.stderr) == (2, True)
    pruned = beam_batch(
        "cache", "prune", "s3://data/cache", "--older-than", "1d", "--yes", env=bucket
    )
    assert pruned.stdout.startswith("removed 19 of 19 replies"), pruned.stderr
    missing = beam_batch("cache", "ls", "s3://data/parts", env=bucket)
    assert (missing.returncode, "is no cache of beam-batch" in missing.stderr) == (2, True)


def test_a_glob_of_objects_is_copied_in_order(folder: Path, bucket: dict[str, str]) -> None:
    assert run(folder, "s3://data/parts/*.jsonl", *STOP, env=bucket).returncode == 3
    assert len(copies(folder)) == 4
    done = run(folder, "s3://data/parts/*.jsonl", "--resume", env=bucket)
    assert done.returncode == 0, done.stderr
    assert results(folder) == WHOLE


def test_objects_can_be_queried_and_selected(folder: Path, bucket: dict[str, str]) -> None:
    done = run(
        folder, "s3://data/rows.parquet", "--where", "n > 10", "--offset", "5", "--limit", "3",
        env=bucket,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [result for _, result in results(folder)] == ["r16", "r17", "r18"]


def test_an_object_that_has_changed_is_refused_on_resume(
    folder: Path, bucket: dict[str, str]
) -> None:
    import boto3

    assert run(folder, "s3://data/rows.parquet", *STOP, env=bucket).returncode == 3
    pq.write_table(pa.Table.from_pylist(ROWS[::-1]), folder / "other.parquet", row_group_size=10)
    client = boto3.client(
        "s3", endpoint_url=bucket["AWS_ENDPOINT_URL"], region_name="us-east-1",
        aws_access_key_id="testing", aws_secret_access_key="testing",
    )  # fmt: skip
    client.put_object(
        Bucket="data", Key="rows.parquet", Body=(folder / "other.parquet").read_bytes()
    )
    client.close()
    done = run(folder, "s3://data/rows.parquet", "--resume", env=bucket)
    assert done.returncode == 2, done.stderr
    assert "the input has changed since the run was planned: s3://data/rows.parquet" in done.stderr


@pytest.mark.parametrize(
    "uri", ["s3://data/gone.jsonl", "s3://data/gone*.jsonl", "s3://nobody/rows.jsonl"]
)
def test_an_object_that_is_not_there_is_refused(
    folder: Path, bucket: dict[str, str], uri: str
) -> None:
    done = run(folder, uri, env=bucket)
    assert done.returncode == 2, done.stderr
    assert uri in done.stderr
    assert done.stderr.count("\n") == 1
    assert list((folder / "run").iterdir()) == []


# HTTP


class _Ranges(SimpleHTTPRequestHandler):
    """Serves files, and ranges of them where the class says so; silent."""

    ranges = True

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        path = Path(self.translate_path(self.path))
        if not self.ranges or asked is None or not path.is_file():
            super().do_GET()
            return
        data = path.read_bytes()
        part = data[int(asked[1]) : int(asked[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {asked[1]}-{asked[2]}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Last-Modified", self.date_time_string(int(os.path.getmtime(path))))
        self.end_headers()
        self.wfile.write(part)


class _Plain(_Ranges):
    ranges = False


@pytest.fixture(params=[_Ranges, _Plain], ids=["ranges", "plain"])
def web(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    handler = partial(request.param, directory=str(folder / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(30)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet", "rows.csv", "rows.jsonl.gz"])
def test_a_url_is_read_and_a_stopped_run_goes_on(folder: Path, web: str, name: str) -> None:
    stopped = run(folder, f"{web}/{name}", *STOP, env=environment())
    assert stopped.returncode == 3, stopped.stderr
    done = run(folder, f"{web}/{name}", "--resume", env=environment())
    assert done.returncode == 0, done.stderr
    assert results(folder) == WHOLE


def test_a_url_larger_than_a_read_comes_back_once_and_whole(folder: Path, web: str) -> None:
    rows = [{"id": f"r{n}", "n": n, "x": "x" * 100_000} for n in range(1, 101)]
    write_jsonl(folder / "served" / "large.jsonl", rows)
    done = run(folder, f"{web}/large.jsonl", env=environment())
    assert done.returncode == 0, done.stderr
    assert results(folder) == [(row["n"], row["id"]) for row in rows]


def test_a_query_string_does_not_hide_the_suffix(folder: Path, web: str) -> None:
    done = run(folder, f"{web}/rows.jsonl?download=1", "--limit", "2", env=environment())
    assert done.returncode == 0, done.stderr
    assert results(folder) == WHOLE[:2]


def test_a_url_that_has_changed_is_refused_on_resume(folder: Path, web: str) -> None:
    assert run(folder, f"{web}/rows.parquet", *STOP, env=environment()).returncode == 3
    pq.write_table(pa.Table.from_pylist(ROWS[1:]), folder / "served" / "rows.parquet")
    done = run(folder, f"{web}/rows.parquet", "--resume", env=environment())
    assert done.returncode == 2, done.stderr
    assert "has changed" in done.stderr


def test_a_url_that_is_not_there_is_refused(folder: Path, web: str) -> None:
    done = run(folder, f"{web}/gone.jsonl", env=environment())
    assert done.returncode == 2, done.stderr
    assert f"{web}/gone.jsonl" in done.stderr
    assert done.stderr.count("\n") == 1


# Stores that cannot be reached

_IMPATIENT = (
    "import sys\n"
    "from beam_batch.inputs import opening\n"
    "opening.ATTEMPTS = 1\n"
    "from beam_batch.cli.main import main\n"
    "sys.argv[0] = 'beam-batch'\n"
    "main()\n"
)
"""The command line without waits between attempts."""


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:1/rows.jsonl",
        "https://127.0.0.1:1/rows.parquet",
        "s3://data/rows.jsonl",
        "s3://data/*.parquet",
        "ftp-like://host/rows.jsonl",
        "nosuch://host/rows.jsonl",
    ],
)
def test_a_store_that_cannot_be_reached_is_exit_2_in_one_line(tmp_path: Path, uri: str) -> None:
    if uri.startswith("s3"):
        pytest.importorskip("s3fs", reason="s3:// needs s3fs: pip install 'beam-batch[s3]'")
    done = subprocess.run(
        [sys.executable, "-c", _IMPATIENT, "run", "-i", uri, "-o", "o.jsonl", "-m", "echo"],
        env=environment(AWS_ENDPOINT_URL="http://127.0.0.1:1", **KEYS),
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode == 2, done.stderr
    assert uri.partition("*")[0] in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_missing_keys_are_named_not_traced(folder: Path, bucket: dict[str, str]) -> None:
    without = {name: value for name, value in bucket.items() if "KEY" not in name}
    without |= {"HOME": str(folder), "AWS_CONFIG_FILE": str(folder / "none")}
    done = run(folder, "s3://data/rows.jsonl", env=without)
    assert done.returncode == 2, done.stderr
    assert "s3://data/rows.jsonl" in done.stderr
    assert json.dumps(done.stdout) == '""'
