"""From named files to counted rows: make each readable, count it, and digest what was read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from beam_batch.inputs import sql
from beam_batch.inputs.digest import content_digest
from beam_batch.inputs.formats import FORMATS
from beam_batch.inputs.resolve import Origin
from beam_batch.inputs.selection import rows_needed
from beam_batch.inputs.spool import copy_plain, needs_copy
from beam_batch.options import SourceSpec
from beam_batch.records import Source, Split


class Read(NamedTuple):
    """What was read of an origin: the digest of its first `stop` bytes, or of all."""

    origin: Origin
    digest: str
    stop: int | None


class Scanned(NamedTuple):
    """What scanning found.

    Attributes:
        sources: what is read, file by file.
        reads: what was read of each origin.
        chunks: splits of all rows, before any is chosen.
        rows: how many were counted; `whole` says whether those are all.
    """

    sources: list[Source]
    reads: list[Read]
    chunks: list[Split]
    rows: int
    whole: bool


def scan_origins(
    origins: list[Origin], spec: SourceSpec, folder: Path, rows_a_split: int
) -> Scanned:
    """Scan files until the selection is decided.

    Raises:
        OptionsError: one cannot be read.
    """
    return _Files(spec, folder).scan(origins, rows_a_split)


class _Files:
    """Makes origins readable, counts their rows and digests what was read."""

    def __init__(self, source: SourceSpec, folder: Path) -> None:
        self._spec = source
        self._folder = folder

    def scan(self, origins: list[Origin], rows_a_split: int) -> Scanned:
        """Scan files until the selection is decided."""
        needed = rows_needed(self._spec)
        if self._spec.sql is not None or self._spec.where is not None:
            return self._scan_query(origins, rows_a_split)
        found = Scanned([], [], [], 0, True)
        for origin in origins:
            left = None if needed is None else needed - found.rows
            if left is not None and left <= 0:
                found.reads.append(Read(origin, "", 0))
                found = found._replace(whole=False)
                continue
            found = self._scan_one(origin, found, rows_a_split, left)
        return found

    def _scan_one(
        self, origin: Origin, found: Scanned, rows_a_split: int, left: int | None
    ) -> Scanned:
        source, whole = self._source(origin, len(found.sources), left)
        rows, stop = 0, 0
        with ThreadPoolExecutor(1) as pool:  # hashing leaves the interpreter to the scan
            digest = None if left is not None else pool.submit(content_digest, source)
            for chunk in FORMATS[source.format].scan(source, rows_a_split):
                if left is not None and rows >= left:
                    whole = False
                    break
                first = found.rows + rows + 1
                found.chunks.append(
                    Split(source, chunk.start, chunk.stop, first, chunk.rows, chunk.rows)
                )
                rows, stop = rows + chunk.rows, chunk.stop
            known = digest.result() if digest is not None else content_digest(source, stop)
        found.sources.append(source)
        found.reads.append(Read(origin, known, None if digest is not None else stop))
        return found._replace(rows=found.rows + rows, whole=found.whole and whole)

    def _scan_query(self, origins: list[Origin], rows_a_split: int) -> Scanned:
        sources = [self._source(origin, n, None)[0] for n, origin in enumerate(origins)]
        target = self._folder / "query.parquet"
        query, flag = self._spec.sql, "--sql"
        if query is None:
            query, flag = sql.where_query(str(self._spec.where)), "--where"
        sql.run_query(query, flag, sources, target)
        reads = [
            Read(origin, content_digest(source), None)
            for origin, source in zip(origins, sources, strict=True)
        ]
        result = Origin(str(target), str(target), "parquet", "", "")
        scanned = self._scan_one(result, Scanned([], [], [], 0, True), rows_a_split, None)
        return scanned._replace(reads=reads)

    def _source(self, origin: Origin, number: int, rows: int | None) -> tuple[Source, bool]:
        """Return what is read for an origin, and whether that is all of it."""
        spec = self._spec
        if needs_copy(origin, spec.encoding):
            folder = self._folder / "copies"
            copy = copy_plain(origin, folder, number, encoding=spec.encoding, rows=rows)
            return _as_source(origin.uri, copy.path, copy.format, "", spec), copy.whole
        return _as_source(origin.uri, origin.path, origin.format, origin.stamp, spec), True


def _as_source(uri: str, path: str, kind: str, stamp: str, spec: SourceSpec) -> Source:
    delimiter = spec.csv_delimiter or ("\t" if kind == "tsv" else ",")
    return Source(uri, path, kind, stamp, delimiter, spec.csv_quote)
