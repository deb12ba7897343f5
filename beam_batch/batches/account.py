"""Plain HTTP with an account's key: JSON, uploads and downloads. No hot path, so no pool."""

from __future__ import annotations

import http.client
import itertools
import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from beam_batch import jsonio
from beam_batch.batches.files import sync_and_close
from beam_batch.errors import ConnectionLost, InvalidJSON, InvalidResponse, TimedOut, first_line
from beam_batch.providers.failing import to_error
from beam_batch.redaction import redact, secret_of

BLOCK = 1 << 20
JSON_TIMEOUT = 60.0
"""Seconds without an answer after which a question is given up; it holds up a Ctrl-C meanwhile."""


class Stopped(Exception):
    """The run stopped in the middle of a transfer or a wait; nothing is lost by it."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: the key goes to nobody else."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Account:
    """Sends requests to one base URL; `timeout` is in seconds without a byte."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        key: str | None,
        timeout: float,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._base_url = base_url
        self._headers = dict(headers)
        self._key = secret_of(key)
        self._timeout = timeout
        self._stopped = stopped
        self._opener = urllib.request.build_opener(_NoRedirect)

    def json(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Send a request, once, and return the object that it is answered with."""
        data = None if body is None else jsonio.dumps(body)
        return self._object(self._open(method, path, data, {}, min(self._timeout, JSON_TIMEOUT)))

    def post_lines(self, path: str, file: Path, name: str) -> dict[str, Any]:
        """Send the lines of a file, each JSON, as an array: ``{"name": [line, line]}``."""
        size = file.stat().st_size
        before, after = f'{{"{name}":['.encode(), b"]}"
        blocks = (block.replace(b"\n", b",") for block in self._blocks(file, size - 1))
        return self._post(path, "application/json", before, blocks, size - 1, after)

    def post_form(self, path: str, file: Path, fields: Mapping[str, str]) -> dict[str, Any]:
        """Send a file as multipart/form-data (RFC 7578)."""
        boundary = uuid.uuid4().hex
        lines = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        ]
        lines.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
            f'filename="{file.name}"\r\nContent-Type: application/jsonl\r\n\r\n'
        )
        size, before = file.stat().st_size, "".join(lines).encode()
        kind, after = f"multipart/form-data; boundary={boundary}", f"\r\n--{boundary}--\r\n"
        return self._post(path, kind, before, self._blocks(file, size), size, after.encode())

    def download(self, path: str, target: Path) -> None:
        """Fetch a body into a file, which appears once it is whole."""
        temporary = target.with_name(target.name + ".part")
        response = self._open("GET", path, None, {})
        with response, temporary.open("wb") as file:
            for block in self._without_key(response):
                self._refuse_when_stopped()
                file.write(block)
            if response.length:
                raise ConnectionLost(f"the download was cut; {response.length} bytes are missing")
            sync_and_close(file)
        os.replace(temporary, target)

    def _without_key(self, response: Any) -> Iterator[bytes]:
        """Yield a body in blocks; a key that a server sends back gets no further than here."""
        key = (self._key or "").encode()
        rest = b""
        while block := self._guarded(lambda: response.read(BLOCK)):
            data = rest + block
            data = data.replace(key, b"***") if key else data
            whole = max(0, len(data) - max(0, len(key) - 1))  # what follows may begin with a key
            rest = data[whole:]
            yield data[:whole]
        yield rest

    def _post(
        self,
        path: str,
        kind: str,
        before: bytes,
        blocks: Iterable[bytes],
        size: int,
        after: bytes,
    ) -> dict[str, Any]:
        """Send blocks of `size` bytes in all, from disk, between two pieces of a body."""
        length = len(before) + size + len(after)
        headers = {"Content-Type": kind, "Content-Length": str(length)}
        body = itertools.chain([before], blocks, [after])
        return self._object(self._open("POST", path, body, headers))

    def _blocks(self, file: Path, size: int) -> Iterator[bytes]:
        """Yield the first bytes of a file."""
        with file.open("rb") as content:
            while size > 0 and (block := content.read(min(BLOCK, size))):
                self._refuse_when_stopped()
                size -= len(block)
                yield block

    def _refuse_when_stopped(self) -> None:
        if self._stopped():
            raise Stopped

    def _open(
        self,
        method: str,
        path: str,
        data: Any,
        headers: Mapping[str, str],
        timeout: float | None = None,
    ) -> Any:
        request = urllib.request.Request(
            self._base_url + path,
            data=data,
            headers={**self._headers, **headers},
            method=method,
        )
        return self._guarded(lambda: self._opener.open(request, timeout=timeout or self._timeout))

    def _guarded(self, call: Callable[[], Any]) -> Any:
        """Call into the network, and name what goes wrong."""
        try:
            return call()
        except urllib.error.HTTPError as error:
            with error:
                body = self._guarded(error.read)
            raise to_error(error.code, dict(error.headers.items()), body, self._key) from None
        except TimeoutError:
            raise TimedOut("nothing came within the time allowed") from None
        except (OSError, http.client.HTTPException) as error:
            if isinstance(getattr(error, "reason", None), TimeoutError):
                raise TimedOut("nothing came within the time allowed") from None
            raise ConnectionLost(redact(first_line(error), self._key)) from None

    def _object(self, response: Any) -> dict[str, Any]:
        with response:
            data = self._guarded(response.read)
        if self._key:
            data = data.replace(self._key.encode(), b"***")
        try:
            found = jsonio.loads(data)
        except InvalidJSON as error:
            raise InvalidResponse(f"the answer is not usable JSON: {error}") from None
        if not isinstance(found, dict):
            raise InvalidResponse(f"the answer is no object: {found!s:.120}")
        return found
