"""An S3 server on the loopback address, and what clients need to reach it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "sk-canary-s3",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",
}


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Start a server without a bucket; yields the environment that reaches it."""
    pytest.importorskip("s3fs", reason="s3:// needs s3fs: pip install 'beam-batch[s3]'")
    server = pytest.importorskip("moto.server", reason="moto[server] stands for S3")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        yield KEYS | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    finally:
        running.stop()


def make_bucket(env: dict[str, str]) -> None:
    """Make the bucket `data`."""
    import s3fs

    s3fs.S3FileSystem(
        key=env["AWS_ACCESS_KEY_ID"],
        secret=env["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=env["AWS_ENDPOINT_URL"],
        skip_instance_cache=True,
    ).makedirs("data", exist_ok=True)  # all servers of a process share their buckets


@contextmanager
def reachable(env: dict[str, str]) -> Iterator[None]:
    """Let this process reach the server: fsspec reads the environment when a client is made."""
    import s3fs

    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            yield
        finally:
            s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def relay(url: str) -> Iterator[str]:
    """Pass connections on to a server, under another address; at the end all of them break."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    listening = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = [listening]

    def copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near = listening.accept()[0]
                far = socket.create_connection((host, int(port)))
                ends.extend((near, far))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
