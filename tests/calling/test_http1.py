"""The lean HTTP path against servers that send exactly these bytes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import socket
import ssl
import subprocess
import sys
from typing import Any

import pytest
import trustme

from beam_batch.calling.caller import _may_be_paid
from beam_batch.calling.transports import http1
from beam_batch.calling.transports.answers import Response
from beam_batch.errors import ConnectionLost, InvalidResponse, OptionsError, TimedOut
from tests.calling.raw import CHUNKED, WHOLE, Peer, Script, answering, closing, serving
from tests.support import environment


def post_once(script: Script, **options: Any) -> Response:
    """Send one request to a server, and return the answer."""

    async def main() -> Response:
        async with serving(script) as (pool, _):
            return await pool.post("/chat", b"{}", **({"total": 30} | options))

    return asyncio.run(main())


def test_a_request_says_what_it_has_to_and_no_more() -> None:
    heads: list[tuple[str, bytes]] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.request())
        await peer.send(WHOLE)

    async def main() -> str:
        async with serving(script, headers={"X-Key": "k"}) as (pool, server):
            await pool.post("/models/a b:do?x=1", b"body", total=30)
            return server.base_url.removeprefix("http://").removesuffix("/v1")

    host = asyncio.run(main())
    assert heads == [
        (
            f"POST /v1/models/a%20b:do?x=1 HTTP/1.1\r\nHost: {host}\r\n"
            "Accept-Encoding: identity\r\nX-Key: k\r\nContent-Length: 4\r\n\r\n",
            b"body",
        )
    ]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://api.example.com/v1", "api.example.com"),
        ("https://api.example.com:8443/v1", "api.example.com:8443"),
        ("http://api.example.com:80", "api.example.com"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("http://bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_the_host_is_named_as_it_must_be(url: str, host: str) -> None:
    assert f"Host: {host}\r\n".encode() in http1.Pool(url, {})._new_head("/")


def test_a_header_cannot_smuggle_another() -> None:
    with pytest.raises(OptionsError, match="X-Key"):
        http1.Pool("http://127.0.0.1", {"X-Key": "a\r\nX-Other: b"})


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE,
        CHUNKED + b"1\r\no\r\n1;note=1\r\nk\r\n0\r\nTrailer: x\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + WHOLE,
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nUpgrade: h2\r\nConnection: Upgrade, Keep-Alive\r\n"
        b"Content-Length: 2\r\n\r\nok",
    ],
    ids=["length", "chunked", "1xx", "bare-newlines", "upgrade-offered"],
)
def test_an_answer_in_pieces_is_whole_wherever_it_is_cut(answer: bytes) -> None:
    cuts: list[tuple[bytes, ...]] = [(answer[:at], answer[at:]) for at in range(1, len(answer))]
    cuts.append(tuple(answer[at : at + 1] for at in range(len(answer))))

    async def script(peer: Peer) -> None:
        for pieces in cuts:
            await peer.request()
            await peer.send(*pieces)
        await peer.closed()

    async def main() -> None:
        async with serving(script) as (pool, server):
            for _ in cuts:
                response = await pool.post("/chat", b"{}", total=30)
                assert (response.status, response.body) == (200, b"ok")
            assert server.connections == 1

    asyncio.run(main())


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    assert post_once(closing(b"HTTP/1.1 200 OK\r\n\r\n", b"o", b"k")).body == b"ok"
    assert post_once(closing(b"HTTP/1.0 500 No\r\n\r\n")).status == 500


def test_header_fields_are_found_whatever_their_case() -> None:
    head = b"HTTP/1.1 429 Slow\r\nRETRY-After: 7 \r\nX-Odd: \xe9\r\nContent-Length: 0\r\n\r\n"
    response = post_once(answering(head))
    assert response.header("retry-after") == "7"
    assert response.headers == {"retry-after": "7", "x-odd": "�", "content-length": "0"}


def test_a_redirect_is_an_answer_like_any_other() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/steal\r\nContent-Length: 0\r\n\r\n"
    assert post_once(answering(moved)).status == 302


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "identity"])
def test_a_compressed_answer_is_read_though_nobody_asked_for_it(coding: str) -> None:
    body = b"ok" if coding == "identity" else gzip.compress(b"ok")
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n"
    pieces = (head.encode(), body[:1], body[1:])
    assert post_once(answering(*pieces)).body == b"ok"
    read: list[bytes] = []
    response = post_once(answering(*pieces), choose=lambda _: read.append)
    assert (b"".join(read), response.body) == (b"ok", b"")


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (b"Content-Encoding: br", "unknown content coding: b'br'"),
        (b"Content-Encoding: gzip", "not gzip"),
        (b"Transfer-Encoding: gzip, chunked", "unknown transfer coding"),
    ],
)
def test_an_answer_that_cannot_be_decoded_is_invalid(field: bytes, words: str) -> None:
    body = b"2\r\nok\r\n0\r\n\r\n" if b"chunked" in field else b"ok"
    length = b"" if b"chunked" in field else b"\r\nContent-Length: 2"
    with pytest.raises(InvalidResponse, match=words):
        post_once(answering(b"HTTP/1.1 200 OK\r\n" + field + length + b"\r\n\r\n" + body))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        WHOLE[:-1],
        WHOLE[:20],
        CHUNKED + b"2\r\nok\r\n",
        CHUNKED + b"2\r\nok\r\n0\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        CHUNKED + b"no number\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        b"HTTP/1.1 101 Switching\r\nUpgrade: h2\r\nConnection: Upgrade\r\n\r\n",
    ],
    ids=[
        "nothing", "cut-body", "cut-head", "cut-chunks", "cut-end", "only-1xx", "ssh", "tls",
        "bad-chunk", "two-lengths", "switch",
    ],
)  # fmt: skip
def test_what_is_no_whole_answer_is_a_lost_connection(answer: bytes) -> None:
    with pytest.raises(ConnectionLost, match=r"the server closed|not HTTP/1\.1"):
        post_once(closing(answer))


@pytest.mark.parametrize("at_once", [True, False])
def test_a_huge_head_is_refused(at_once: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + b"X-More: " + b"x" * 200_000
    with pytest.raises(InvalidResponse, match="head of the answer is larger"):
        post_once(closing(head + b"\r\n\r\n" if at_once else head))


@pytest.mark.parametrize("sent", [b"", WHOLE[:-1]])
def test_an_answer_that_takes_too_long_times_out(sent: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        await peer.closed()

    with pytest.raises(TimedOut, match=r"no whole answer within 0\.05 s"):
        post_once(script, total=0.05)
    with pytest.raises(TimedOut, match=r"fell silent for 0\.05 s"):
        post_once(script, stall=0.05)


def test_a_stream_that_goes_on_does_not_stall() -> None:
    pieces: list[bytes] = []
    later = 0.0

    async def script(peer: Peer) -> None:
        nonlocal later
        await peer.request()
        await peer.send(CHUNKED)
        for count in range(1, 6):
            later += 20
            await peer.send(b"2\r\nok\r\n")
            while len(pieces) < count:
                await asyncio.sleep(0)
        await peer.send(b"0\r\n\r\n")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        real = loop.time
        loop.time = lambda: real() + later  # type: ignore[method-assign]
        async with serving(script) as (pool, _):
            await pool.post("/", b"", total=200, stall=60, choose=lambda _: pieces.append)

    asyncio.run(main())
    assert pieces == [b"ok"] * 5


def test_the_head_decides_who_reads_the_body() -> None:
    heads: list[Response] = []

    def choose(head: Response) -> None:
        heads.append(head)

    answer = post_once(answering(WHOLE[:-2], b"o", b"k"), choose=choose)
    assert answer.body == b"ok"
    assert [head.status for head in heads] == [200]


def test_what_a_reader_raises_ends_the_request_and_the_connection() -> None:
    def refuse(piece: bytes) -> None:
        raise InvalidResponse("no")

    async def main() -> None:
        async with serving(answering(WHOLE)) as (pool, server):
            with pytest.raises(InvalidResponse, match="no"):
                await pool.post("/", b"", total=30, choose=lambda _: refuse)
            assert (await pool.post("/", b"", total=30)).body == b"ok"
            assert server.connections == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        (WHOLE, 1),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", 1),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 3),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 3),
        (WHOLE + WHOLE[:4], 3),
        (WHOLE + WHOLE, 3),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok" + WHOLE, 3),
    ],
    ids=["1.1", "1.0-keep", "close", "1.0", "more-begun", "one-too-many", "more-after-close"],
)
def test_a_connection_is_used_again_only_where_nothing_is_in_its_way(
    answer: bytes, connections: int
) -> None:
    async def main() -> None:
        async with serving(answering(answer)) as (pool, server):
            for _ in range(3):
                assert (await pool.post("/", b"", total=30)).body == b"ok"
            assert server.connections == connections

    asyncio.run(main())


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 408 Too late\r\n\r\n"])
def test_an_idle_connection_that_the_server_ends_is_replaced_in_silence(said: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(WHOLE)
        if peer.number == 1:
            await end.wait()
            await peer.send(said)
        else:
            await peer.closed()

    async def main() -> None:
        async with serving(script) as (pool, server):
            await pool.post("/", b"", total=30)
            (connection,) = pool._idle
            end.set()
            await connection.gone
            assert (await pool.post("/", b"", total=30)).body == b"ok"
            assert server.connections == 2

    end = asyncio.Event()
    asyncio.run(main())


def test_a_connection_that_was_idle_for_long_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http1, "IDLE_SECONDS", 0)

    async def main() -> None:
        async with serving(answering(WHOLE)) as (pool, server):
            await pool.post("/", b"", total=30)
            await pool.post("/", b"", total=30)
            assert server.connections == 2

    asyncio.run(main())


def test_a_server_that_closes_on_the_next_request_is_a_lost_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(WHOLE)
        await peer.request()

    async def main() -> None:
        async with serving(script) as (pool, _):
            await pool.post("/", b"", total=30)
            with pytest.raises(ConnectionLost, match="before its answer"):
                await pool.post("/", b"", total=30)
            assert (await pool.post("/", b"", total=30)).body == b"ok"

    asyncio.run(main())


def test_a_cancelled_request_does_not_poison_the_pool() -> None:
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 1:
            asked.set()
            await peer.closed()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
        else:
            await peer.send(WHOLE)
            await peer.closed()

    async def main() -> None:
        async with serving(script) as (pool, server):
            task = asyncio.create_task(pool.post("/", b"", total=30))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not pool._idle
            assert (await pool.post("/", b"", total=30)).body == b"ok"
            assert server.connections == 2

    asyncio.run(main())


def test_posts_that_are_cancelled_at_any_moment_leave_no_connection_behind() -> None:
    async def script(peer: Peer) -> None:
        await peer.closed()

    async def main() -> None:
        for turns in range(30):
            async with serving(script) as (pool, _):
                task = asyncio.create_task(pool.post("/", b"", total=30))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                async with asyncio.timeout(30):
                    await pool.close()

    asyncio.run(main())


def test_a_request_that_failed_is_in_memory_no_longer() -> None:
    body = b"x" * 1000

    async def script(peer: Peer) -> None:
        await peer.request()

    async def main() -> None:
        async with serving(script) as (pool, _):
            for _ in range(3):
                with contextlib.suppress(ConnectionLost):
                    await pool.post("/", body, total=30)

    before = sys.getrefcount(body)
    gc.disable()
    try:
        asyncio.run(main())
        assert sys.getrefcount(body) == before
    finally:
        gc.enable()


def test_an_early_answer_to_a_large_body_leaves_no_connection_half_used() -> None:
    refused = b"HTTP/1.1 413 Too large\r\nContent-Length: 0\r\n\r\n"
    end = asyncio.Event()

    async def script(peer: Peer) -> None:
        if peer.number == 1:  # without reading
            await peer.send(refused)
            await end.wait()
        else:
            await peer.request()
            await peer.send(WHOLE)

    async def main() -> None:
        async with serving(script) as (pool, _):
            assert (await pool.post("/", b"x" * 50_000_000, total=30)).status == 413
            assert not pool._idle
            assert (await pool.post("/", b"", total=30)).body == b"ok"
            end.set()

    asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE.replace(b"\r\n", b"\r\nConnection: close\r\n", 1),
        b"HTTP/1.1 503 Busy\r\n\r\nbusy",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\n",
    ],
    ids=["whole", "ends-at-close", "cut"],
)
def test_a_server_that_answers_before_it_is_asked_is_heard(answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(answer)

    async def main() -> None:
        async with serving(script) as (pool, server):
            for number in (1, 2):
                if b"Length: 9" in answer:
                    with pytest.raises(ConnectionLost, match="in the middle"):
                        await pool.post("/", b"{}", total=30)
                else:
                    assert (await pool.post("/", b"{}", total=30)).body in (b"ok", b"busy")
                assert server.connections == number

    asyncio.run(main())


def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    async def script(peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def main() -> None:
        async with serving(script) as (pool, server):
            for _ in range(3):
                bodies = [str(n).encode() for n in range(20)]
                answers = await asyncio.gather(*(pool.post("/", b, total=30) for b in bodies))
                assert [answer.body for answer in answers] == bodies
            assert server.connections == 20

    asyncio.run(main())


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback address")
def test_a_server_on_ipv6_is_reached() -> None:
    async def main() -> None:
        async with serving(answering(WHOLE), host="::1") as (pool, _):
            assert (await pool.post("/", b"", total=30)).body == b"ok"

    asyncio.run(main())


def _unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_is_not_there_is_named(scheme: str) -> None:
    port = _unused_port()

    async def main() -> None:
        pool = http1.Pool(f"{scheme}://127.0.0.1:{port}", {})
        with pytest.raises(ConnectionLost) as caught:
            await pool.post("/", b"", total=30)
        assert str(caught.value) == f"no connection to 127.0.0.1:{port}: Connection refused"
        assert caught.value.unsent
        await pool.close()

    asyncio.run(main())


def test_what_was_never_sent_is_never_paid() -> None:
    assert not _may_be_paid(ConnectionLost("no connection", unsent=True))
    assert not _may_be_paid(TimedOut("no connection", unsent=True))
    assert _may_be_paid(ConnectionLost("no answer"))


def test_a_name_without_an_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def main() -> None:
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        pool = http1.Pool("http://nowhere.invalid/v1", {})
        with pytest.raises(ConnectionLost, match=r"^no address of nowhere\.invalid:80: Name or"):
            await pool.post("/", b"", total=30)

    asyncio.run(main())


def test_a_connection_that_does_not_come_about_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    end = asyncio.Event()

    async def script(peer: Peer) -> None:
        await end.wait()  # says nothing, so that no TLS comes about

    async def main() -> None:
        async with serving(script) as (_, server):
            silent = http1.Pool(server.base_url.replace("http:", "https:"), {})
            with pytest.raises(TimedOut, match=r"no connection to 127.0.0.1:\d+ within 0.05 s"):
                await silent.post("/", b"", total=0.05)
            monkeypatch.setattr(http1, "CONNECT_TIMEOUT", 0.06)
            with pytest.raises(TimedOut, match=r"within 0.06 s"):
                await silent.post("/", b"", total=30)
            end.set()
            await silent.close()

    asyncio.run(main())


def _tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    return context


def test_tls_works_where_the_certificate_is_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    async def main() -> None:
        async with serving(answering(WHOLE), tls=_tls(authority, "127.0.0.1")) as (pool, server):
            for _ in range(3):
                assert (await pool.post("/", b"x" * 300_000, total=30)).body == b"ok"
            assert server.connections == 1

    asyncio.run(main())


def test_a_certificate_for_another_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    async def main() -> None:
        async with serving(answering(WHOLE), tls=_tls(authority, "other.example")) as (pool, _):
            with pytest.raises(ConnectionLost, match="IP address mismatch"):
                await pool.post("/", b"", total=30)

    asyncio.run(main())


def test_a_certificate_that_nobody_vouches_for_is_refused_in_words() -> None:
    async def main() -> None:
        async with serving(answering(WHOLE), tls=_tls(trustme.CA(), "127.0.0.1")) as (pool, _):
            with pytest.raises(ConnectionLost) as caught:
                await pool.post("/", b"", total=30)
            port = pool._port
            assert str(caught.value).startswith(
                f"127.0.0.1:{port} has no certificate that we can trust: "
            )

    asyncio.run(main())


def test_a_server_without_tls_is_refused_in_words() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad request\r\n\r\n")
        await peer.closed()

    async def main() -> None:
        async with serving(script) as (_, server):
            pool = http1.Pool(server.base_url.replace("http:", "https:"), {})
            with pytest.raises(ConnectionLost, match=r"no TLS connection to 127.0.0.1:\d+: "):
                await pool.post("/", b"", total=30)
            await pool.close()

    asyncio.run(main())


def test_closing_the_pool_ends_what_is_in_flight() -> None:
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.closed()

    async def main() -> None:
        async with serving(script) as (pool, _):
            task = asyncio.create_task(pool.post("/", b"", total=30))
            await asked.wait()
            await pool.close()
            with pytest.raises(ConnectionLost):
                await task

    asyncio.run(main())


def test_the_other_client_is_imported_for_proxies_only() -> None:
    code = "import sys, beam_batch.calling.transports.http; print('aiohttp' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
