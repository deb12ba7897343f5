"""The SQLite file of a store of replies: its name, its table, its making and its shrinking."""

from __future__ import annotations

import contextlib
import fcntl
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

FILE = "replies.sqlite"
"""The file. A damaged one stays, and ``replies.sqlite.2`` and so on take its place: other processes
may have it open still, and SQLite forbids to rename a file that is in use.
"""
MARK = 0x62626361
"""SQLite's application_id of our files, the letters bbca."""
FORMAT = 1
"""SQLite's user_version of our files."""
BUSY_SECONDS = 2.0
CACHE_KIB = 8192
"""Memory for pages of the file, in each process."""
ROW_BYTES = 88
"""Bytes that a row takes beside its reply (key, index, columns); measured on 200,000 rows."""
LIST = (
    f"SELECT key, asked, made, length(reply) + {ROW_BYTES}, input, output FROM replies "
    "ORDER BY made DESC"
)
_CREATE = (
    "CREATE TABLE replies (key BLOB PRIMARY KEY, made REAL NOT NULL, asked TEXT NOT NULL, "
    "input INTEGER NOT NULL, output INTEGER NOT NULL, reply BLOB NOT NULL)"
)
_NAME = re.compile(rf"{re.escape(FILE)}(?:\.(\d+))?")


class Foreign(Exception):
    """The file is a database of another program, or of another version of ours."""


def newest(folder: Path) -> Path:
    """Return the file in use, or the one to make."""
    numbers = [_number(path) for path in folder.glob(f"{FILE}*")]
    return _path(folder, max(numbers, default=1) or 1)


def open_newest(folder: Path, durable: bool) -> sqlite3.Connection:
    """Open the file in use, or make it; for several processes at once.

    Raises:
        OSError: the folder cannot be made or used.
        sqlite3.Error: the file cannot be used, or is damaged.
        Foreign: it is none of ours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        path = newest(folder)
        db = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            _set_up(db, path, durable)
        except BaseException:
            db.close()
            raise
    return db


def begin_after(damaged: Path) -> None:
    """Begin the file that takes the place of a damaged one, unless another process has."""
    _path(damaged.parent, _number(damaged) + 1).touch()


def path_of(db: sqlite3.Connection) -> Path:
    """Return the file of a connection."""
    return Path(db.execute("PRAGMA database_list").fetchone()[2])


def is_ours(path: Path) -> bool:
    """Whether a file is there, can be read, and was made by us."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        ) as db:
            return _marks(db) == (MARK, FORMAT)
    except sqlite3.Error:
        return False


def shrink(db: sqlite3.Connection) -> None:
    """Give free pages back to the disk, as far as other processes allow it."""
    with contextlib.suppress(sqlite3.OperationalError):
        db.executescript("PRAGMA incremental_vacuum")  # `execute` would free a single page
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def remove_older(folder: Path) -> None:
    """Remove the files that were set aside."""
    last = _number(newest(folder))
    for path in list(folder.glob(f"{FILE}*")):
        name = path.name.removesuffix("-wal").removesuffix("-shm")
        if 0 < _number(path.with_name(name)) < last:
            path.unlink(missing_ok=True)


def _set_up(db: sqlite3.Connection, path: Path, durable: bool) -> None:
    is_new = not path.stat().st_size or _is_empty(db)  # also where a kill came in between
    if is_new:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    elif _marks(db) != (MARK, FORMAT):
        raise Foreign(f"{path} is of another program, or of another version of this one.")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {'NORMAL' if durable else 'OFF'}")
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    if is_new:
        db.execute("BEGIN IMMEDIATE")
        db.execute(_CREATE)
        db.execute(f"PRAGMA application_id = {MARK}")
        db.execute(f"PRAGMA user_version = {FORMAT}")
        db.execute("COMMIT")


def _is_empty(db: sqlite3.Connection) -> bool:
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return tables == 0 and _marks(db) == (0, 0)


def _marks(db: sqlite3.Connection) -> tuple[int, int]:
    mark = db.execute("PRAGMA application_id").fetchone()[0]
    return mark, db.execute("PRAGMA user_version").fetchone()[0]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from making the file at the same time."""
    with (folder / f"{FILE}.lock").open("a") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _number(path: Path) -> int:
    """Return a file's place in the line of files, 0 where it is none of them."""
    match = _NAME.fullmatch(path.name)
    return int(match[1] or 1) if match else 0


def _path(folder: Path, number: int) -> Path:
    return folder / (FILE if number == 1 else f"{FILE}.{number}")
