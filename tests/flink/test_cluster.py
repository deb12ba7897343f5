"""What the driver finds out about a cluster before it submits: a real one, and what is none."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from beam_batch.errors import OptionsError
from beam_batch.runners import flink as runner
from beam_batch.runners.flink import check_cluster
from tests.conftest import free_port
from tests.flink.cluster import Flink
from tests.flink.conftest import SLOTS, Started

OVERVIEW = {"taskmanagers": 1, "slots-total": 4, "slots-available": 3}
Serve = Callable[..., str]


def test_a_real_cluster_says_its_version_and_slots(flink: Flink) -> None:
    cluster = check_cluster(flink.master)
    assert cluster == (f"http://{flink.master}", cluster.version, cluster.release, 1, SLOTS, SLOTS)
    assert cluster.version.startswith(f"{cluster.release}.")
    assert cluster.release in runner.RELEASES


def test_a_real_cluster_without_a_task_manager_is_refused(started: Started) -> None:
    assert f"--flink-master {started.flink.master} has no TaskManager" in started.refusal
    assert "slotmanager.number-of-slots.min" in started.refusal


def test_releases_are_those_that_beam_has_job_servers_for() -> None:
    from apache_beam.options.pipeline_options import FlinkRunnerOptions

    assert list(runner.RELEASES) == FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that answers each path with (status, body, headers)."""
    servers: list[HTTPServer] = []

    def start(answers: dict[str, Any], family: int = socket.AF_INET) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body, headers = answers.get(self.path, (404, "none", {}))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        class Server(HTTPServer):
            address_family = family

        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        server = Server((host, 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"[{host}]:{server.server_port}" if ":" in host else f"{host}:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _flink(version: str = "2.0.1", prefix: str = "", **overview: int) -> dict[str, Any]:
    found = OVERVIEW | {name.replace("_", "-"): value for name, value in overview.items()}
    return {
        f"{prefix}/v1/config": (200, json.dumps({"flink-version": version}), {}),
        f"{prefix}/v1/overview": (200, json.dumps(found), {}),
    }


def _refused(master: str) -> str:
    with pytest.raises(OptionsError) as refused:
        check_cluster(master)
    return str(refused.value)


@pytest.mark.parametrize("version", ["1.19.3", "1.20-SNAPSHOT", "2.2.1-vendor-7"])
def test_a_version_counts_by_its_first_two_numbers(serve: Serve, version: str) -> None:
    cluster = check_cluster(serve(_flink(version)))
    assert cluster.release == ".".join(version.replace("-", ".").split(".")[:2])
    assert (cluster.version, cluster.slots, cluster.free) == (version, 4, 3)


@pytest.mark.parametrize("version", ["1.18.1", "2.3.0", "3.0", "nightly"])
def test_a_version_that_beam_does_not_know_is_refused(serve: Serve, version: str) -> None:
    said = _refused(serve(_flink(version)))
    assert f"runs Flink {version}; Beam 2." in said
    assert "1.19, 1.20, 2.0, 2.1 and 2.2" in said


def test_task_managers_without_slots_are_refused(serve: Serve) -> None:
    assert "taskmanager.numberOfTaskSlots" in _refused(serve(_flink(slots_total=0)))


def test_an_address_may_be_ipv6_or_a_url_with_a_path(serve: Serve) -> None:
    try:
        six = serve(_flink(), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert check_cluster(six).url == f"http://{six}"
    four = serve(_flink(prefix="/jobs/one"))
    assert check_cluster(f" http://{four}/jobs/one/ ").url == f"http://{four}/jobs/one"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((200, "<html>Grafana</html>", {"Content-Type": "text/html"}), "no flink-version"),
        ((200, '{"status": "ok"}', {}), "no flink-version"),
        ((200, '["flink-version"]', {}), "no flink-version"),
        ((200, '{"flink-version": 2}', {}), "no flink-version"),
        ((200, "[" * 100_000, {}), "no flink-version"),
        ((404, "none", {}), "HTTP 404"),
        ((502, "none", {}), "HTTP 502"),
        ((401, "none", {}), "wants a login"),
        ((302, "", {"Location": "https://x:pass@elsewhere/"}), "redirect to https://elsewhere/"),
    ],
)  # fmt: skip
def test_a_server_that_is_no_flink_is_named_as_such(serve: Serve, answer: Any, why: str) -> None:
    master = serve({"/v1/config": answer})
    said = _refused(master)
    assert f"--flink-master {master}: what answers at http://{master} is no Flink" in said
    assert why in said


def test_a_flink_without_numbers_in_its_overview_is_none(serve: Serve) -> None:
    answers = _flink() | {"/v1/overview": (200, '{"taskmanagers": true}', {})}
    assert "no taskmanagers in its answer" in _refused(serve(answers))


def test_a_port_where_nothing_listens_is_named() -> None:
    master = f"127.0.0.1:{free_port()}"
    said = _refused(master)
    assert (
        f"--flink-master {master}: nothing answers at http://{master} (Connection refused" in said
    )
    assert "8081" in said


def test_a_port_that_speaks_another_protocol_or_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        master = f"127.0.0.1:{listener.getsockname()[1]}"
        start = time.monotonic()
        assert "no answer within 0 seconds" in _refused(master)  # it is never accepted
        assert time.monotonic() - start < 2

        def greet() -> None:
            for _ in range(2):  # the connection above is still in the queue
                connection, _ = listener.accept()
                connection.sendall(b"SSH-2.0-OpenSSH_9\r\n")
                connection.close()

        server = threading.Thread(target=greet, daemon=True)
        server.start()
        said = _refused(master)
        server.join(5)
    assert "is no Flink JobManager" in said or "nothing answers" in said


@pytest.mark.parametrize(
    ("master", "why"),
    [
        ("", "no host"),
        ("jobmanager", "no port"),
        ("jobmanager:", "no port"),
        ("jobmanager:0", "no port"),
        ("jobmanager:99999", "out of range"),
        ("jobmanager:rest", "rest"),
        ("[auto]", "auto"),
        ("::1:8081", "HOST:PORT"),
        ("ftp://jobmanager:8081", "ftp is neither http nor https"),
        ("http://job manager:8081", "blank"),
        ("http://jobmanager:8081?a=b", "more than an address"),
        (f"{'a' * 70}:8081", "HOST:PORT"),
    ],
)
def test_what_is_no_address_is_refused_with_the_form_of_one(master: str, why: str) -> None:
    said = _refused(master)
    assert said.startswith("--flink-master")
    assert why in said
    assert "HOST:PORT, [IPV6]:PORT or http(s)://HOST:PORT" in said


@pytest.mark.parametrize("master", ["https://me:s3cret@flink:8081", "me:s3cret@flink:x"])
def test_a_password_in_an_address_is_refused_and_not_repeated(master: str) -> None:
    assert "s3cret" not in _refused(master)
