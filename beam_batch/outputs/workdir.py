"""The work directory: where everything of one run is, and what is ours to remove."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beam_batch import jsonio
from beam_batch.errors import InvalidJSON, OptionsError
from beam_batch.places import Folder, Place, place_of, scheme_of

MANIFEST, COMMIT, FINISHED = "manifest.json", "commit.json", "finished"
STORE_INTERVAL = 2.0
"""Seconds between two looks or notes of one worker in an object store."""


def default_work_dir(output: str) -> str:
    """Name the work directory of an output: ``.<name>.batch`` beside it."""
    if "://" in output:
        mark = hashlib.blake2b(output.encode(), digest_size=4).hexdigest()
        return f".{output.rstrip('/').rpartition('/')[2]}-{mark}.batch"
    path = Path(os.path.abspath(output))
    return str(path.parent / f".{path.name}.batch")


def work_of(named: str | None, output: str) -> WorkDir:
    """Return the work directory of a run, by its flag or by its output.

    Where it is an object store, the driver's own folder is beside the output.
    """
    path = named or default_work_dir(output)
    if not scheme_of(path):
        return WorkDir(os.path.abspath(path))
    path = path.rstrip("/")
    mark = hashlib.blake2b(path.encode(), digest_size=4).hexdigest()
    beside = default_work_dir(output).removesuffix(".batch")
    return WorkDir(path, os.path.abspath(f"{beside}-{mark}.batch"))


def settings_file(output: str) -> Path:
    """Name the small file beside an output that says which settings its answers were made with."""
    path = Path(os.path.abspath(output))
    return path.parent / f".{path.name}.settings.json"


OWNED = (
    "lock", "manifest.json", "commit.json", "finished", "run.log", "prior.sqlite*", "parts",
    "gauges", "ledger", "stop-*", "failures-*", "plan-*", "seats", "ledger-*",
    "workers", "share-*",  # of earlier versions
    "replies.sqlite*", "claims", "uploads", "batches", "spent", "probe-*", ".*.tmp",
)  # fmt: skip
"""Names in a work directory that are ours to remove."""


_STAY = ("lock", "uploads")
"""Those of them that belong to whoever holds the directory, not to one plan."""


def _is_owned(path: Path) -> bool:
    return any(path.match(pattern) for pattern in OWNED)


@dataclass(frozen=True)
class WorkDir:
    """Names what is in a work directory; picklable, opens nothing by itself.

    Attributes:
        path: a folder, or a URI of an object store.
        here: where the path is a URI, the driver's own folder, for what only the driver needs.
    """

    path: str
    here: str = ""

    @property
    def place(self) -> Place:
        """Where all workers and the driver meet."""
        return _place(self.path)

    @property
    def root(self) -> Path:
        """The folder; where the work directory is an object store, the driver's own one."""
        return Path(self.here or self.path)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, and no object store."""
        return not self.here

    @property
    def uploads(self) -> Path:
        """Outputs that are sent to the Hub at the end."""
        return self.root / "uploads"

    @property
    def batches(self) -> Path:
        """Request files, journal and settings of a run through a provider's Batch API."""
        return self.root / "batches"

    @property
    def log(self) -> Path:
        """Where the local model server, MCP servers and a failed pipeline write."""
        return self.root / "run.log"

    def create(self) -> None:
        """Make the folders."""
        if self.is_folder:
            for name in ("parts", "gauges"):
                (self.root / name).mkdir(parents=True, exist_ok=True)

    def read_manifest(self) -> dict[str, Any] | None:
        """Return the manifest, or None where there is none.

        Raises:
            OptionsError: it is damaged.
        """
        try:
            data = self.place.get(MANIFEST)
            manifest = jsonio.loads(data) if data is not None else None
        except InvalidJSON as error:
            raise OptionsError(
                f"--work-dir {self.path}: damaged manifest.json ({error}). Add --overwrite to "
                "start again, or choose another --work-dir."
            ) from None
        if data is None:
            return None
        if not isinstance(manifest, dict) or not isinstance(manifest.get("session"), int):
            raise OptionsError(
                f"--work-dir {self.path}: manifest.json is none of ours. Add --overwrite to start "
                "again, or choose another --work-dir."
            )
        return manifest

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Put the manifest in place."""
        self.place.put(MANIFEST, jsonio.dumps(manifest))

    def read_commit(self) -> dict[str, Any] | None:
        """Return what the commit of this session counted, or None where there was none."""
        data = self.place.get(COMMIT)
        return jsonio.loads(data) if data is not None else None

    def claim(self) -> bool:
        """Make the directory and return whether it is new.

        Raises:
            OptionsError: it cannot be made, or holds something that no run of ours put there.
        """
        try:
            there, here = self.place.names(), Folder(str(self.root)).names()
            fresh = not there and not (self.is_folder and self.root.exists())
            foreign = sorted(name for name in there | here if not _is_owned(Path(name)))
            if self.is_folder and not foreign:
                self.root.mkdir(parents=True, exist_ok=True)
        except OptionsError as error:
            raise OptionsError(f"--work-dir {error}") from None
        except OSError as error:
            raise self.refused(error) from None
        if foreign:
            raise OptionsError(
                f"--work-dir {self.path} is not a work directory: it holds {foreign[0]!r}. Name a "
                "new or an empty one; its content is removed when a run is finished."
            )
        return fresh

    def is_at_fault(self, error: BaseException) -> bool:
        """Whether an error is that of the object store."""
        is_its = isinstance(error, OSError) and error.filename == self.path
        return is_its and not self.is_folder

    def refused(self, error: OSError) -> OptionsError:
        """Say why the directory cannot be used, and what can be done."""
        remedy = " Look at the address, the credentials and the network."
        if isinstance(error, PermissionError):
            remedy = " The credentials must be allowed to list, read, write and delete there."
        elif isinstance(error, FileNotFoundError):
            remedy = " Make the bucket first, or name another."
        remedy = remedy if self.is_at_fault(error) else ""
        return OptionsError(f"--work-dir {self.path}: cannot be used ({error.strerror}).{remedy}")

    def new_plan(self) -> Path:
        """Make a folder of this machine for a plan and what it keeps."""
        folder = self.root / f"plan-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        return folder

    def publish(self, folder: Path) -> str:
        """Put a plan's folder into the object store; return where it is for workers."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.place.put_file(f"{folder.name}/{path.relative_to(folder)}", path)
        shutil.rmtree(folder)
        return f"{self.place.uri}/{folder.name}"

    def clear(self, keep: Path | None = None) -> None:
        """Remove what an earlier run left, but not the lock and nothing that is not ours.

        A folder's is removed with the folders that it is in. Objects are in none, and all that are
        below the place are listed, to leave those alone that others keep there.
        """
        self.place.remove([MANIFEST])  # first: what is left without it means nothing
        for child in list(self.root.iterdir()) if self.root.exists() else []:
            if child.name in _STAY or child == keep or not _is_owned(child):
                continue
            if child.is_dir():
                shutil.rmtree(child)
            else:
                child.unlink()
        if not self.is_folder:
            stay = (*_STAY, keep.name if keep is not None else "")
            names = (item.name for item in self.place.list(""))
            self.place.remove(
                name
                for name in names
                if _is_owned(Path(name.partition("/")[0])) and name.partition("/")[0] not in stay
            )

    def remove(self) -> None:
        """Remove the directory, unless something that is not ours was put there."""
        with contextlib.suppress(OSError):
            self.clear()
            shutil.rmtree(self.uploads, ignore_errors=True)
            (self.root / "lock").unlink(missing_ok=True)
            self.root.rmdir()


@functools.cache
def _place(path: str) -> Place:
    return place_of(path)
