"""Files that a model may read: below folders that a card names, after links are followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

MOST_BYTES = 2**20
"""Bytes of a file that are read; the loop shows a model less."""
MOST_ENTRIES = 1000


class NotAllowed(Exception):
    """A model asked for what it may not have, or what is not there; the text is for the model."""


class Listing(NamedTuple):
    """Names in a folder, folders with a slash; `more` where there are more."""

    names: list[str]
    more: bool


def confined(path: str, roots: Sequence[Path]) -> Path:
    """Return what a path means: absolute, or relative to the first root.

    The roots must be resolved.

    Raises:
        NotAllowed: it is outside of all roots, or does not exist.
    """
    if not roots or "\0" in path or not _is_encodable(path):
        raise NotAllowed(f"There is no {path!r}.")
    try:
        found = Path(os.path.realpath(roots[0] / path, strict=True))
    except OSError:
        found = Path(os.path.realpath(roots[0] / path))
        if _is_below(found, roots):
            raise NotAllowed(f"There is no {path!r}.") from None
    if not _is_below(found, roots):
        raise NotAllowed(f"{path!r} is outside of the folders that may be read.")
    return found


def read_text(path: str, roots: Sequence[Path], offset: int = 0) -> str:
    """Read text from a byte on, at most MOST_BYTES of it.

    Raises:
        NotAllowed: it may not be read, or is no text.
    """
    found = confined(path, roots)
    try:  # what it has become meanwhile is no link, and no pipe that waits for a writer
        file = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise NotAllowed(f"{path!r} cannot be read: {error.strerror}.") from None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise NotAllowed(f"{path!r} is no file.")
        size, start = status.st_size, max(0, offset)
        if start > size:
            raise NotAllowed(f"{path!r} has {size} bytes; offset {offset} is behind its end.")
        data = os.pread(file, MOST_BYTES, start)
    except OSError as error:
        raise NotAllowed(f"{path!r} cannot be read: {error.strerror}.") from None
    finally:
        os.close(file)
    end = start + len(data)
    try:
        text = _whole_characters(data, cut=end < size)
    except UnicodeDecodeError:
        raise NotAllowed(f"{path!r} is no text.") from None
    if end < size:
        text += f"\n[{size} bytes; go on with offset {end}]"
    return text


def list_folder(path: str, roots: Sequence[Path], pattern: str) -> Listing:
    """List what is in a folder, or with ``**`` in the pattern also below it; sorted.

    Raises:
        NotAllowed: it may not be read, or the pattern leads out of it.
    """
    folder = confined(path, roots)
    if ".." in Path(pattern).parts or Path(pattern).is_absolute():
        raise NotAllowed("The pattern must stay in the folder.")
    names = []
    try:
        if not folder.is_dir():
            raise NotAllowed(f"{path!r} is no folder.")
        for entry in folder.glob(pattern):
            if not _is_below(os.path.realpath(entry), roots):
                continue  # a link that leads out
            names.append(str(entry.relative_to(folder)) + "/" * entry.is_dir())
            if len(names) > MOST_ENTRIES:
                break
    except (OSError, ValueError, NotImplementedError, RecursionError) as error:
        raise NotAllowed(f"{pattern!r} cannot be looked for: {error}") from None
    return Listing(sorted(names)[:MOST_ENTRIES], len(names) > MOST_ENTRIES)


def _is_below(path: str | Path, roots: Sequence[Path]) -> bool:
    return any(Path(path).is_relative_to(root) for root in roots)


def _is_encodable(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _whole_characters(data: bytes, cut: bool) -> str:
    """Decode; a character that the end of a cut piece has split is left out."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if cut and len(data) - error.start < 4:
            return data[: error.start].decode()
        raise
