"""Server-sent events, put together from pieces (https://html.spec.whatwg.org, section 9.2)."""

from __future__ import annotations


class EventParser:
    """Finds the data of events; ``[DONE]`` is none."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """Take a piece of the stream and return the events that end in it."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [event for line in lines if (event := self._line(line.rstrip(b"\r"))) is not None]

    def end(self) -> list[bytes]:
        """Return the last event where it lacks its blank line."""
        return self.feed(b"\n\n")

    def _line(self, line: bytes) -> bytes | None:
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        elif not line and self._data:
            event = b"\n".join(self._data)
            self._data = []
            if event.strip() != b"[DONE]":
                return event
        return None
