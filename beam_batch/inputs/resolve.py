"""From what a user names (files, folders, globs, URLs, -) to the files that are read, in order."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from beam_batch.errors import OptionsError, first_line
from beam_batch.inputs import hub
from beam_batch.options import SourceSpec
from beam_batch.places.remote import filesystem_of, retried, scheme_of

FORMATS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow",
}  # fmt: skip
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
STDIN = "-"


class Origin(NamedTuple):
    """One file as the user named it.

    Attributes:
        uri: path or URL as given; a Hub file with its commit.
        path: what is opened: the same, a local path made absolute.
        format: a key of `formats.FORMATS`, or json.
        compression: gzip, bz2, zstd or ''.
        stamp: size with modification time or entity tag; changes when the file does. '' where a
            name stands for one content only (a commit) or for none (standard input).
    """

    uri: str
    path: str
    format: str
    compression: str
    stamp: str

    @property
    def is_local(self) -> bool:
        """Whether it is a file of this machine."""
        return self.path != STDIN and not scheme_of(self.path)


def resolve(source: SourceSpec) -> list[Origin]:
    """List the files of all ``--input`` values: in the order given, each value's files sorted.

    Raises:
        OptionsError: nothing is there, it cannot be read, or its format is unknown.
    """
    found: list[Origin] = []
    for value in source.inputs:
        found.extend(_origins(value, source.input_format))
    seen: set[str] = set()
    for origin in found:
        if origin.path in seen:
            raise OptionsError(f"--input names {origin.uri} twice; name it once.")
        seen.add(origin.path)
    return found


def stamp_of(uri: str) -> str:
    """Return what changes when a file does.

    Raises:
        FileNotFoundError: it is gone.
        InputLost: a remote one cannot be asked for.
    """
    if hub.is_pinned(uri):
        return ""
    if not scheme_of(uri):
        found = os.stat(uri)
        return f"{found.st_size}-{found.st_mtime_ns}"
    filesystem = filesystem_of(uri)
    info = retried(lambda: filesystem.info(filesystem._strip_protocol(uri)), uri)
    marks = ("ETag", "etag", "LastModified", "last_modified", "mtime", "generation", "md5")
    mark = next((info[name] for name in marks if info.get(name)), "")
    return f"{info.get('size')}-{mark}"


def format_of(uri: str, given: str | None) -> tuple[str, str]:
    """Return the format and the compression of a file, by its suffixes.

    Raises:
        OptionsError: they say nothing, and ``--input-format`` does neither.
    """
    name = uri.split("?")[0].lower() if scheme_of(uri) else uri.lower()
    compression = next((COMPRESSIONS[s] for s in COMPRESSIONS if name.endswith(s)), "")
    if compression:
        name = name.rsplit(".", 1)[0]
    found = given or FORMATS.get(os.path.splitext(name)[1])
    if found is None:
        known = ", ".join(FORMATS)
        raise OptionsError(
            f"--input {uri}: unknown suffix; use one of {known} (text also with "
            f"{', '.join(COMPRESSIONS)}), or say what it is with --input-format."
        )
    if compression and found in ("parquet", "arrow"):
        raise OptionsError(f"--input {uri}: a compressed {found} file; decompress it first.")
    return found, compression


def _origins(value: str, given: str | None) -> Iterator[Origin]:
    if value == STDIN:
        if given not in ("jsonl", "json", "csv", "tsv"):
            raise OptionsError("--input - needs --input-format: jsonl, json, csv or tsv.")
        yield Origin(STDIN, STDIN, given, "", "")
        return
    if value.startswith("hf://"):
        uris = hub.files(value, tuple(FORMATS), tuple(COMPRESSIONS), given is not None)
    elif scheme_of(value) and scheme_of(value) != "file":
        uris = _remote_files(value)
    else:
        uris = _local_files(value.removeprefix("file://"), given)
    for uri in uris:
        found, compression = format_of(uri, given)
        path = uri if scheme_of(uri) else os.path.abspath(uri)
        yield Origin(uri, path, found, compression, _stamp(path))


def _stamp(uri: str) -> str:
    try:
        return stamp_of(uri)
    except FileNotFoundError:
        raise OptionsError(f"--input {uri}: no such file.") from None
    except PermissionError as error:
        raise OptionsError(f"--input {uri}: no permission ({first_line(error)}).") from None


def _local_files(value: str, given: str | None) -> list[str]:
    path = Path(value)
    if path.is_dir():
        return _folder_files(path, given)
    if not path.exists() and glob.has_magic(value):
        files = sorted(name for name in glob.glob(value, recursive=True) if os.path.isfile(name))
        if not files:
            raise OptionsError(f"--input {value}: no file matches.")
        return files
    if not path.exists():
        raise OptionsError(f"--input {value}: no such file.")
    if not path.is_file():
        raise OptionsError(f"--input {value} is a device or a pipe; name a file, or - for stdin.")
    if not os.access(path, os.R_OK):
        raise OptionsError(f"--input {value}: no permission to read it.")
    return [value]


def _folder_files(folder: Path, given: str | None) -> list[str]:
    """List the data files below a folder; names that begin with . or _ are not data."""
    files = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        for name in names:
            if not name.startswith((".", "_")) and (given or _is_data(name)):
                files.append(os.path.join(root, name))
    if not files:
        raise OptionsError(f"--input {folder}: the folder holds no file of a known format.")
    return sorted(files)


def _is_data(name: str) -> bool:
    try:
        format_of(name, None)
    except OptionsError:
        return False
    return True


def _remote_files(value: str) -> list[str]:
    if not glob.has_magic(value) or scheme_of(value) in ("http", "https"):
        return [value]
    filesystem = filesystem_of(value)
    prefix = f"{scheme_of(value)}://"
    files = sorted(retried(lambda: filesystem.glob(filesystem._strip_protocol(value)), value))
    if not files:
        raise OptionsError(f"--input {value}: no file matches.")
    return [name if name.startswith(prefix) else prefix + name for name in files]
