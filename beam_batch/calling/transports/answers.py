"""Reading answers in HTTP/1.1 from one connection, as their bytes arrive (RFC 9112)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from beam_batch.errors import ConnectionLost, InvalidResponse

LARGEST_HEAD = 1 << 16
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class Response(NamedTuple):
    """An answer, or its head while its body is still on its way.

    Attributes:
        fields: header fields; names in lower case, of a name that is repeated the last value.
        body: b"" where a reader took it piece by piece.
    """

    status: int
    fields: dict[bytes, bytes]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Return a header field; the name in lower case."""
        value = self.fields.get(name.encode())
        return None if value is None else value.decode("utf-8", "replace").strip()

    @property
    def headers(self) -> dict[str, str]:
        """All header fields as text."""
        names = (name.decode("latin-1") for name in self.fields)
        return {name: self.header(name) or "" for name in names}


Reader = Callable[[bytes], object]
"""Takes one piece of a body. What it raises ends the request."""
Chooser = Callable[[Response], Reader | None]
"""Looks at an answer's head and returns who reads its body, or None to have it collected."""


class AnswerParser:
    """Parses one answer after another.

    Attributes:
        begun: whether bytes of an answer have come: of one that is not whole, or of one too many.
        whole: whether the answer is complete.
        keep: whether the server keeps the connection for another request.
    """

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(  # what some servers still send
            lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self.expect(None)

    def expect(self, choose: Chooser | None) -> None:
        """Make ready for the next answer."""
        self._choose = choose
        self._status = self._head_size = 0
        self._fields: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []
        self._reader: Reader | None = None
        self._decoder: zlib._Decompress | None = None
        self.begun = self.whole = self.keep = False

    def feed(self, data: bytes) -> None:
        """Parse what has come, and give it to the reader.

        Raises:
            ConnectionLost: it is not HTTP.
            InvalidResponse: it is more than we take, or encoded in a way we did not ask for.
        """
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.keep = False
            if not self.whole:
                raise ConnectionLost(f"the answer is not HTTP/1.1: {error}") from None
        if not self._status:
            self._head_size += len(data)
        if self._head_size > LARGEST_HEAD:
            raise InvalidResponse(f"the head of the answer is larger than {LARGEST_HEAD} bytes")
        if self._choose is not None and self._status:
            self._reader = self._choose(Response(self._status, self._fields))
            self._choose = None
        if self._reader is not None and self._pieces:
            pieces, self._pieces = self._pieces, []
            for piece in pieces:
                self._reader(self._decoded(piece))

    def ends_at_close(self) -> bool:
        """Whether the body is whole when the connection is closed, for it has no length."""
        has_length = b"content-length" in self._fields or b"transfer-encoding" in self._fields
        return bool(self._status) and not has_length

    def response(self) -> Response:
        """Return the answer.

        Raises:
            InvalidResponse: it is encoded in a way that we did not ask for.
        """
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return Response(self._status, self._fields, self._decoded(body) if body else body)

    def _decoded(self, data: bytes) -> bytes:
        """Undo a content coding, although we ask for none."""
        coding = self._fields.get(b"content-encoding")
        transfer = self._fields.get(b"transfer-encoding")
        if transfer is not None and transfer.strip().lower() != b"chunked":
            raise InvalidResponse(f"the answer comes in an unknown transfer coding: {transfer!r}")
        if coding is None or (coding := coding.strip().lower()) in (b"", b"identity"):
            return data
        if coding not in (b"gzip", b"x-gzip", b"deflate"):
            raise InvalidResponse(f"the answer comes in an unknown content coding: {coding!r}")
        self._decoder = self._decoder or zlib.decompressobj(_GZIP_OR_ZLIB)
        try:
            return self._decoder.decompress(data)
        except zlib.error as error:
            raise InvalidResponse(f"the body is not {coding.decode()}: {error}") from None

    # What the parser calls. Once an answer is whole, only that another has begun is of interest.

    def on_message_begin(self) -> None:
        """Take note of the first byte."""
        self.begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field."""
        if not self.whole:
            self._head_size += len(name) + len(value)
            self._fields[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Keep the status; the body follows."""
        if not self.whole:
            self._status = self._parser.get_status_code()

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body."""
        if not self.whole:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """Note that the answer is whole, unless it only announces one (1xx)."""
        if self.whole:
            return
        if 100 <= self._status < 200:
            self.expect(self._choose)
            return
        self.whole, self.begun = True, False
        self.keep = self._parser.should_keep_alive()
