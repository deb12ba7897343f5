"""Replies in one SQLite file of a folder, for all processes of a machine."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from beam_batch.errors import OptionsError
from beam_batch.reuse import database
from beam_batch.reuse.kept import Entry, KeptReply, say
from beam_batch.reuse.seen import Seen

MOST_UNWRITTEN = 4096
"""Replies that wait for a file that others keep busy, before it is given up."""
HURRY_MS = 20
MOST_DAMAGED = 3
"""Files that one process may find damaged before it gives up."""
REMOVED_AT_ONCE = 1000
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
TOGETHER = 64
"""Rows of one statement: each gives the interpreter's lock away once, which others may be after."""
_VALUES = "(?, ?, ?, ?, ?, ?)"
_PUT = f"INSERT OR REPLACE INTO replies VALUES {_VALUES}"
_PUT_TOGETHER = _PUT + f", {_VALUES}" * (TOGETHER - 1)
_GET = "SELECT reply FROM replies WHERE key = ?"
_DELETE = "DELETE FROM replies WHERE key = ?"


class LocalStore:
    """Keeps replies in a folder; several processes may use it at once.

    What is put is written by `flush`: one transaction for many replies halves what each costs.
    """

    remote = False

    def __init__(self, folder: Path, name: str, *, durable: bool, alone: bool = False) -> None:
        """Open or make the file.

        Args:
            name: what messages call the store.
            durable: whether what was flushed survives the death of the machine, and not only
                that of the process (SQLite's synchronous=NORMAL, and OFF).
            alone: whether no other process puts anything into it.

        Raises:
            OptionsError: the folder cannot be used, or holds a file of another program.
        """
        self._folder = folder
        self._name = name
        self._durable = durable
        self._unwritten: dict[bytes, KeptReply] = {}
        self._writable = True
        self._damaged = 0
        self._db: sqlite3.Connection | None = None
        self._open()
        self._seen = Seen(self._keys()) if alone else None

    def get(self, key: bytes) -> KeptReply | None:
        """Return the reply kept under a key."""
        if self._seen is not None and not self._seen.may_have(key):
            return None
        waiting = self._unwritten.get(key)
        if waiting is not None or self._db is None:
            return waiting
        try:
            found = self._db.execute(_GET, (key,)).fetchone()
        except sqlite3.Error as error:
            self._failed(error, writing=False)
            return None
        return KeptReply.decode(found[0]) if found is not None else None

    def put(self, key: bytes, kept: KeptReply) -> None:
        """Keep a reply, in place of an older one; written by `flush`."""
        if self._writable:
            self._unwritten[key] = kept
            if self._seen is not None:
                self._seen.add(key)

    def hurry(self) -> None:
        """Wait for other processes no longer than an event loop can be held up."""
        if self._db is not None:
            self._db.execute(f"PRAGMA busy_timeout = {HURRY_MS}")

    def flush(self) -> bool:
        """Write what was put; False where others keep the file busy, so that it waits."""
        rows = [_row(key, kept) for key, kept in self._unwritten.items()]
        if not rows or self._write(_PUT, rows):
            self._unwritten.clear()
        elif len(rows) > MOST_UNWRITTEN:
            self._stop_writing("other processes keep it busy")
        return not self._unwritten

    def forget(self, key: bytes) -> None:
        """Keep the reply of a key no longer."""
        self._unwritten.pop(key, None)
        self._write(_DELETE, [(key,)])

    def entries(self) -> Iterator[Entry]:
        """List what is kept, newest first; SQLite sorts on disk."""
        path = database.newest(self._folder)
        with contextlib.closing(sqlite3.connect(path)) as db:
            yield from map(Entry._make, db.execute(database.LIST))

    def remove(self, keys: Iterable[bytes]) -> None:
        """Keep the replies of some keys no longer, and give their space back.

        Damaged files that were set aside go as well.
        """
        keys = iter(keys)
        while chunk := [(key,) for key in islice(keys, REMOVED_AT_ONCE)]:
            self._write(_DELETE, chunk)
        if self._db is not None:
            database.shrink(self._db)
        database.remove_older(self._folder)

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._close_file()

    def _keys(self) -> Iterator[bytes]:
        if self._db is not None:
            yield from (key for (key,) in self._db.execute("SELECT key FROM replies"))

    def _open(self) -> None:
        try:
            self._db = database.open_newest(self._folder, self._durable)
            self._path = database.path_of(self._db)
        except sqlite3.Error as error:
            if not self._is_damage(error):
                raise OptionsError(f"{self._name}: cannot be used ({error}).") from None
            self._set_aside(database.newest(self._folder))
        except OSError as error:
            raise OptionsError(f"{self._name}: cannot be used ({error.strerror}).") from None
        except database.Foreign as error:
            raise OptionsError(f"{self._name}: {error}") from None

    def _is_damage(self, error: sqlite3.Error) -> bool:
        return _code(error) in _DAMAGED and self._damaged < MOST_DAMAGED

    def _set_aside(self, damaged: Path) -> None:
        """Begin a new file, or take the one that another process has begun already."""
        self._damaged += 1
        self._close_file()
        if damaged == database.newest(self._folder):
            say(f"{damaged} is damaged: it is set aside, and a new one is begun")
            database.begin_after(damaged)
        self._open()

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> bool:
        """Execute a statement for some rows in one transaction; False where it is to wait."""
        db = self._db
        if db is None or not self._writable:
            return True
        try:
            db.execute("BEGIN IMMEDIATE")
            left = _put_together(db, rows) if statement is _PUT else rows
            db.executemany(statement, left)
            db.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            if _code(error) in _BUSY:
                return False
            self._failed(error, writing=True)
            return self._write(statement, rows)  # to the file that took its place, or to none
        return True

    def _failed(self, error: sqlite3.Error, writing: bool) -> None:
        if _code(error) in _BUSY:
            return
        reason: Exception = error
        if self._db is not None and self._is_damage(error):
            try:
                return self._set_aside(self._path)
            except (OptionsError, OSError) as failure:
                reason = failure
        if not writing:
            self._close_file()
        self._stop_writing(str(reason))

    def _stop_writing(self, reason: str) -> None:
        if self._writable:
            say(f"{self._name}: nothing more is kept from here on ({reason})")
        self._writable = False
        self._unwritten.clear()

    def _close_file(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):  # what was flushed is there
                self._db.close()
            self._db = None


def _put_together(db: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Put as many rows as make whole statements; return the others."""
    whole = len(rows) - len(rows) % TOGETHER
    for start in range(0, whole, TOGETHER):
        values = chain.from_iterable(rows[start : start + TOGETHER])
        db.execute(_PUT_TOGETHER, tuple(values))
    return rows[whole:]


def _row(key: bytes, kept: KeptReply) -> tuple[Any, ...]:
    usage = kept.reply.usage
    tokens = (usage.input_tokens or 0, usage.output_tokens or 0)
    return key, kept.made, kept.asked, *tokens, kept.encode()


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code of an error."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
