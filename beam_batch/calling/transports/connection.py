"""One HTTP/1.1 connection: it takes a request when the answer to the one before is whole."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from typing import cast

from beam_batch.calling.transports.answers import AnswerParser, Chooser, Response
from beam_batch.errors import ConnectionLost, TimedOut

_PROBE_SECONDS = 60


class Connection(asyncio.Protocol):
    """Sends requests, one at a time; is in `opened` as long as it is open.

    Attributes:
        gone: is done when the connection is closed.
        reusable: whether it may take another request.
        used: loop time at which it was last of use.
    """

    def __init__(self, opened: set[Connection]) -> None:
        self._opened = opened
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self.reusable = False
        self.used = 0.0
        self._parser = AnswerParser()
        self._early = b""
        self._lost: Exception | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._timer: asyncio.Handle | None = None
        self._total = self._stall = self._deadline = self._quiet_until = self._due = math.inf

    def ask(
        self, request: bytes, *, started: float, total: float, stall: float, choose: Chooser | None
    ) -> asyncio.Future[Response]:
        """Send a request; the future has its answer.

        Args:
            started: loop time from which `total`, the seconds until the answer is whole, counts.
            stall: longest silence of the server, in seconds.
            choose: decides who reads the body.
        """
        self.reusable = False
        self._answer = self._loop.create_future()
        self._parser.expect(choose)
        self._total, self._stall = total, stall
        self._deadline = started + total
        self._quiet_until = self._loop.time() + stall
        self._set_timer()
        if not self.gone.done():
            self._transport.write(request)
        if self._early:
            early, self._early = self._early, b""
            self.data_received(early)
        if self.gone.done() and not self._answer.done():
            self._end(self._answer, self._lost)
        return self._answer

    def abort(self) -> None:
        """Close at once."""
        self.reusable = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a new connection into use."""
        self._transport = cast(asyncio.Transport, transport)  # or a loop's own, of no such type
        self._opened.add(self)
        self.reusable = True
        sock = transport.get_extra_info("socket")  # a router may forget a connection that is silent
        with contextlib.suppress(OSError):  # the server has closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        answer = self._answer
        if answer is None:  # the server speaks first, of an error most likely
            self._early += data
            return
        if answer.done():  # nobody asked
            self.abort()
            return
        self._quiet_until = self._loop.time() + self._stall
        try:
            self._parser.feed(data)
            if self._parser.whole:
                self._succeed(answer)
        except Exception as error:  # also a reader's: it belongs to whoever waits for the answer
            self._fail(error)

    def eof_received(self) -> None:
        """Note that the server closes; the transport closes as well."""
        self.reusable = False

    def connection_lost(self, error: Exception | None) -> None:
        """End what is in flight: a body without a length is whole now, all else is lost."""
        self.reusable = False
        self._lost = error
        if self._timer is not None:
            self._timer.cancel()
        answer = self._answer
        if answer is not None and not answer.done():
            self._end(answer, error)
        self._opened.discard(self)
        self.gone.set_result(None)

    def _end(self, answer: asyncio.Future[Response], error: Exception | None) -> None:
        try:
            if error is not None or not self._parser.ends_at_close():
                raise ConnectionLost(self._loss(error))
            self._succeed(answer)
        except Exception as problem:  # whatever it is, somebody waits
            answer.set_exception(problem.with_traceback(None))  # which would keep its bytes

    def _loss(self, error: Exception | None) -> str:
        when = "in the middle of" if self._parser.begun else "before"
        reason = f": {error}" if error is not None else ""
        return f"the server closed the connection {when} its answer{reason}"

    def _succeed(self, answer: asyncio.Future[Response]) -> None:
        answer.set_result(self._parser.response())
        self.used = self._loop.time()
        self.reusable = (
            self._parser.keep
            and not self._parser.begun
            and not self._transport.is_closing()
            and not self._transport.get_write_buffer_size()
        )

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.abort()

    def _set_timer(self) -> None:
        """See to it that silence is noticed; a timer that is early is set again when it fires."""
        due = min(self._deadline, self._quiet_until)
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._answer is None or self._answer.done():
            return
        now = self._loop.time()
        if now >= self._deadline:
            self._fail(TimedOut(f"no whole answer within {self._total:g} s"))
        elif now >= self._quiet_until:
            self._fail(TimedOut(f"the server fell silent for {self._stall:g} s"))
        else:
            self._set_timer()
