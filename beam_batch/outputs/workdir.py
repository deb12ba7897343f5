"""The work directory: lock, manifest, stop flag, gauges and part files of one run."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beam_batch import jsonio
from beam_batch.errors import InvalidJSON, OptionsError

GAUGE_INTERVAL = 0.25

_STOPPED_HERE: dict[str, tuple[str, int]] = {}
"""Stop flags that this process has seen, with reason and exit code."""


def default_work_dir(output: str) -> str:
    """Name the work directory of an output: ``.<name>.batch`` beside it."""
    if "://" in output:
        mark = hashlib.blake2b(output.encode(), digest_size=4).hexdigest()
        return f".{output.rstrip('/').rpartition('/')[2]}-{mark}.batch"
    path = Path(os.path.abspath(output))
    return str(path.parent / f".{path.name}.batch")


def settings_file(output: str) -> Path:
    """Name the small file beside an output that says which settings its answers were made with."""
    path = Path(os.path.abspath(output))
    return path.parent / f".{path.name}.settings.json"


def write_atomically(path: Path, data: bytes) -> None:
    """Put a file in place whole: written beside, synced, renamed."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive the death of the machine."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


OWNED = (
    "lock", "manifest.json", "commit.json", "finished", "run.log", "prior.sqlite*", "parts",
    "gauges", "ledger", "stop-*", "failures-*", "plan-*", "seats", "ledger-*", "lock-*",
    "workers", "share-*",  # of earlier versions
    "replies.sqlite*", "claims", "uploads", "batches", "spent", ".*.tmp",
)  # fmt: skip
"""Names in a work directory that are ours to remove."""


_STAY = ("lock", "uploads")
"""Those of them that belong to whoever holds the directory, not to one plan."""


def _is_owned(path: Path) -> bool:
    return any(path.match(pattern) for pattern in OWNED)


@dataclass(frozen=True)
class WorkDir:
    """Names the files of a work directory; picklable, opens nothing by itself."""

    path: str

    @property
    def root(self) -> Path:
        """The directory."""
        return Path(self.path)

    @property
    def parts(self) -> Path:
        """Folder of the part files."""
        return self.root / "parts"

    @property
    def prior(self) -> Path:
        """Index of a finished output's answers."""
        return self.root / "prior.sqlite"

    @property
    def manifest(self) -> Path:
        """The plan and the fingerprint."""
        return self.root / "manifest.json"

    @property
    def commit(self) -> Path:
        """What the last commit counted."""
        return self.root / "commit.json"

    @property
    def finished(self) -> Path:
        """Present once all files are where they belong, remote ones included."""
        return self.root / "finished"

    @property
    def uploads(self) -> Path:
        """Outputs that are sent to the Hub at the end."""
        return self.root / "uploads"

    @property
    def batches(self) -> Path:
        """Request files, journal and settings of a run through a provider's Batch API."""
        return self.root / "batches"

    @property
    def spent(self) -> Path:
        """Folder of the model calls that rows with several of them have made."""
        return self.root / "spent"

    @property
    def log(self) -> Path:
        """Where the local model server, MCP servers and a failed pipeline write."""
        return self.root / "run.log"

    def create(self) -> None:
        """Make the folders."""
        self.parts.mkdir(parents=True, exist_ok=True)
        (self.root / "gauges").mkdir(exist_ok=True)

    def read_manifest(self) -> dict[str, Any] | None:
        """Return the manifest, or None where there is none.

        Raises:
            OptionsError: it is damaged.
        """
        try:
            manifest = jsonio.loads(self.manifest.read_bytes())
        except FileNotFoundError:
            return None
        except InvalidJSON as error:
            raise OptionsError(
                f"--work-dir {self.path}: damaged manifest.json ({error}). Add --overwrite to "
                "start again, or choose another --work-dir."
            ) from None
        if not isinstance(manifest, dict) or not isinstance(manifest.get("session"), int):
            raise OptionsError(
                f"--work-dir {self.path}: manifest.json is none of ours. Add --overwrite to start "
                "again, or choose another --work-dir."
            )
        return manifest

    def claim(self) -> bool:
        """Make the directory and return whether it is new.

        Raises:
            OptionsError: it cannot be made, or holds something that no run of ours put there.
        """
        fresh = not self.root.exists()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            foreign = sorted(child.name for child in self.root.iterdir() if not _is_owned(child))
        except OSError as error:
            raise OptionsError(
                f"--work-dir {self.path}: cannot be used ({error.strerror})."
            ) from None
        if foreign:
            raise OptionsError(
                f"--work-dir {self.path} is not a work directory: it holds {foreign[0]!r}. Name a "
                "new or an empty one; its content is removed when a run is finished."
            )
        return fresh

    def new_plan(self) -> Path:
        """Make a folder for a plan and what it keeps."""
        folder = self.root / f"plan-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        return folder

    def clear(self, keep: Path | None = None) -> None:
        """Remove what an earlier run left, but not the lock and nothing that is not ours."""
        self.manifest.unlink(missing_ok=True)  # first: what is left without it means nothing
        for child in list(self.root.iterdir()) if self.root.exists() else []:
            if child.name in _STAY or child == keep or not _is_owned(child):
                continue
            if child.is_dir():
                shutil.rmtree(child)
            else:
                child.unlink()

    def remove(self) -> None:
        """Remove the directory, unless something that is not ours was put there."""
        with contextlib.suppress(OSError):
            self.clear()
            shutil.rmtree(self.uploads, ignore_errors=True)
            (self.root / "lock").unlink(missing_ok=True)
            self.root.rmdir()


class Lock:
    """Holds a work directory for one run; the kernel frees it when the process dies."""

    def __init__(self, work: WorkDir) -> None:
        self._file = (work.root / "lock").open("a")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise OptionsError(
                f"--work-dir {work.path}: another run is using it. Wait for it, or choose another "
                "--work-dir."
            ) from None

    def release(self) -> None:
        """Free the directory."""
        self._file.close()


@dataclass(frozen=True)
class StopFlag:
    """Says to every worker of a session that no further row is to be sent."""

    path: str

    def set(self, reason: str, exit_code: int) -> None:
        """Raise the flag; the first reason stays."""
        _STOPPED_HERE.setdefault(self.path, (reason, exit_code))
        with contextlib.suppress(OSError):  # set already, or the disk is full: stopped all the same
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            with os.fdopen(fd, "wb") as file:
                file.write(jsonio.dumps({"reason": reason, "exit_code": exit_code}))

    def is_set(self) -> bool:
        """Whether the run is to stop."""
        if self.path in _STOPPED_HERE:
            return True
        if os.path.exists(self.path):
            _STOPPED_HERE.setdefault(self.path, ("stopped", 1))
            return True
        return False

    def is_set_here(self) -> bool:
        """Whether this process has seen the flag; costs nothing."""
        return self.path in _STOPPED_HERE

    def read(self) -> tuple[str, int] | None:
        """Return the reason and the exit code, or None."""
        try:
            data = jsonio.loads(Path(self.path).read_bytes())
        except (OSError, InvalidJSON):
            return _STOPPED_HERE.get(self.path)
        return data["reason"], data["exit_code"]


@dataclass(frozen=True)
class GaugeSpec:
    """Where the workers of a session show their numbers; picklable."""

    work: WorkDir
    session: int

    def open(self) -> Gauge:
        """Return a gauge of one's own."""
        name = f"{self.session:04d}-{uuid.uuid4().hex[:8]}.json"
        return Gauge(self.work.root / "gauges" / name)


class Gauge:
    """A small file of numbers that the driver shows; rewritten four times a second at most."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._due = 0.0

    def show(self, values: Mapping[str, float], force: bool = False) -> None:
        """Publish numbers, unless some were published a moment ago."""
        now = time.monotonic()
        if now < self._due and not force:
            return
        self._due = now + GAUGE_INTERVAL
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_bytes(jsonio.dumps(values))
            os.replace(temporary, self._path)
        except OSError:  # a gauge that cannot be written is not worth a run
            return


def read_gauges(work: WorkDir, session: int) -> dict[str, Any]:
    """Sum what all workers of a session show."""
    total: dict[str, Any] = {}
    for path in (work.root / "gauges").glob(f"{session:04d}-*.json"):
        try:
            values = jsonio.loads(path.read_bytes())
        except (OSError, InvalidJSON):
            continue
        for name, value in values.items():
            total[name] = total.get(name, 0) + value
    return total
