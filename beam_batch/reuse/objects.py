"""Replies in an object store, one small object each: s3://, gs://, az:// and others of fsspec."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from beam_batch import jsonio
from beam_batch.errors import OptionsError, first_line
from beam_batch.places.remote import filesystem_of, retried, scheme_of
from beam_batch.reuse.kept import Entry, KeptReply, say

MARK = "beam-batch-cache.json"
"""Object that says that a place is a cache of ours."""
ATTEMPTS = 2
"""Times that a request of ours is made; the clients of the stores try again by themselves."""
AT_ONCE = 256
_NO_STORES = ("hf", "http", "https")
_OBJECT = re.compile(r"/([0-9a-f]{2})/(\1[0-9a-f]{30})\.json$")


class ObjectStore:
    """Keeps each reply as ``URI/<2 hex digits>/<key>.json``; processes of any machine share it."""

    remote = True

    def __init__(self, uri: str, name: str, *, make: bool = True) -> None:
        """Reach the store, and mark it as ours where it is new.

        Raises:
            OptionsError: it cannot be reached, or is none of ours and `make` is False.
        """
        self._name = name
        self._on = True
        if scheme_of(uri) in _NO_STORES:
            raise OptionsError(f"{name}: name a folder, or s3://, gs:// or az://.")
        try:
            self._files = filesystem_of(uri)
            self._root = str(self._files._strip_protocol(uri)).rstrip("/")
            is_ours = _retried(lambda: self._files.exists(f"{self._root}/{MARK}"))
            if not is_ours and make:
                mark = jsonio.dumps({"format": 1})
                _retried(lambda: self._pipe(f"{self._root}/{MARK}", mark))
        except OptionsError as error:
            raise OptionsError(f"{name}: {error}") from None
        except Exception as error:  # clients of object stores raise what they like
            raise OptionsError(f"{name}: {first_line(error)}") from None
        if not is_ours and not make:
            raise OptionsError(f"{name} is no cache of beam-batch: it has no {MARK}.")

    def get(self, key: bytes) -> KeptReply | None:
        """Return the reply kept under a key."""
        data = self._tried(lambda: self._files.cat_file(self._place(key)))
        return KeptReply.decode(data) if data is not None else None

    def put(self, key: bytes, kept: KeptReply) -> None:
        """Keep a reply, in place of an older one."""
        self._tried(lambda: self._pipe(self._place(key), kept.encode()))

    def flush(self) -> bool:
        """Do nothing: what was put is there."""
        return True

    def forget(self, key: bytes) -> None:
        """Keep the reply of a key no longer."""
        self._tried(lambda: self._files.rm_file(self._place(key)))

    def entries(self) -> Iterator[Entry]:
        """List what is kept, newest first; this reads every object, and sorts in memory."""
        self._files.invalidate_cache()
        ours = (path for path in self._files.find(self._root) if _OBJECT.search(path))
        found: list[Entry] = []
        while chunk := list(islice(ours, AT_ONCE)):
            found += _read(self._files.cat(chunk, on_error="omit"))
        yield from sorted(found, key=lambda entry: -entry.made)

    def remove(self, keys: Iterable[bytes]) -> None:
        """Keep the replies of some keys no longer."""
        keys = iter(keys)
        while chunk := [self._place(key) for key in islice(keys, AT_ONCE)]:
            self._files.rm(chunk)

    def close(self) -> None:
        """Do nothing: the client is shared."""

    def _place(self, key: bytes) -> str:
        name = key.hex()
        return f"{self._root}/{name[:2]}/{name}.json"

    def _pipe(self, path: str, data: bytes) -> None:
        self._files.pipe_file(path, data)

    def _tried(self, call: Callable[[], Any]) -> Any:
        if not self._on:
            return None
        try:
            return _retried(call)
        except FileNotFoundError:
            return None
        except Exception as error:  # clients of object stores raise what they like
            if self._on:
                say(f"{self._name}: not used from here on ({first_line(error)})")
            self._on = False
            return None


def _retried(call: Callable[[], Any]) -> Any:
    return retried(call, "the store", ATTEMPTS)


def _read(objects: dict[str, bytes]) -> Iterator[Entry]:
    for path, data in objects.items():
        kept = KeptReply.decode(data)
        match = _OBJECT.search(path)
        if kept is None or match is None:
            continue
        usage = kept.reply.usage
        tokens = (usage.input_tokens or 0, usage.output_tokens or 0)
        yield Entry(bytes.fromhex(match[2]), kept.asked, kept.made, len(data), *tokens)
