"""Measure pacing at a rate limit, the transports beside each other, and what each option costs.

Run: python -m benchmarks.limits [pacing] [transports] [overhead] [called] (or: make bench-limits);
prints Markdown tables. All of them take some 15 minutes.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import urllib.request
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.run import PARALLEL, ROUNDS, beam_batch, make_rows, measure, rows_failed, server

RATE = 50.0
"""Requests a second that the limited server accepts, after one second's worth at once."""
LATENCY_MS = 100
AUTO_ROWS, FIXED_ROWS = 3_000, 900
FIXED = (2, 4, 5, 6, 8, 16, 64)
AUTO_FROM, FIXED_FROM = 15.0, 8.0
"""Seconds after a run's first request from which on its rate counts: by then whoever sends faster
than is allowed has used up the burst.
"""
REACHED, SPAN = 0.95, 5.0
"""The share of the allowed rate that is to be reached, in a window of so many seconds."""
TOLERATED = 0.02
"""The share of 429s up to which a fixed number counts as one that a provider bears with."""
TRANSPORTS = ("http", "sse", "websocket")
TRANSPORT_ROWS = 5_000
OVERHEAD_ROWS = 20_000
CALL_MS = 50
FRESH = "a fresh folder"
"""Stands for one in a command's options."""


class Pace(NamedTuple):
    """What the server saw of one run.

    Attributes:
        rate: accepted requests a second, from some second on.
        refused: share of the requests that were refused, over the whole run.
        failed: rows without an answer.
        reached: seconds until `REACHED` of the allowed rate, or None.
    """

    rate: float
    refused: float
    failed: int
    reached: float | None


def judge(journal: list[tuple[float, bool]], since: float, failed: int) -> Pace:
    """Work out a run's pace from the server's journal.

    The last twentieth of what was accepted does not count for the rate, so that a few last rows
    which wait for another try count for nobody.
    """
    first = journal[0][0]
    accepted = [at - first for at, taken in journal if taken]
    counted = accepted[: int(len(accepted) * 0.95)]
    before = bisect_right(counted, since)
    rate = (len(counted) - before) / (counted[-1] - since) if before < len(counted) else 0.0
    refused = 1 - len(accepted) / len(journal)
    return Pace(rate, refused, failed, reached(accepted[int(RATE) :]))


def reached(accepted: list[float]) -> float | None:
    """Return when a window first held enough, the burst left out; None where none did."""
    for number, at in enumerate(accepted):
        if number + 1 - bisect_right(accepted, at - SPAN) >= REACHED * RATE * SPAN:
            return at
    return None


def pacing_table(folder: Path) -> list[str]:
    """Compare `--parallel auto`, fixed numbers and the SDK on one server with a rate limit."""
    long, short = make_rows(folder, AUTO_ROWS), make_rows(folder, FIXED_ROWS)
    output = str(folder / "out.jsonl")
    lines = [
        f"| | accepted/s | of {RATE:.0f}/s | 429s | rows failed | s to {REACHED:.0%} |",
        "|---|---|---|---|---|---|",
    ]
    fixed: dict[int, Pace] = {}

    def take(name: str, port: int, since: float, run: Callable[[], object]) -> Pace:
        run()
        pace = judge(read_journal(port), since, rows_failed(output))
        after = "never" if pace.reached is None else f"{pace.reached:.1f}"
        lines.append(
            f"| {name} | {pace.rate:.1f} | {pace.rate / RATE:.1%} | {pace.refused:.1%} "
            f"| {pace.failed} | {after} |"
        )
        return pace

    def ours(name: str, port: int, rows: str, parallel: str) -> Pace:
        def run() -> object:
            return beam_batch(rows, output, "generic.benchmark", port, "--parallel", parallel)

        return take(name, port, AUTO_FROM if rows == long else FIXED_FROM, run)

    limit = ("--rate", str(RATE))
    with server(LATENCY_MS, *limit) as port:
        ours(f"`--parallel auto`, {AUTO_ROWS:,} rows", port, long, "auto")
        for number in FIXED:
            fixed[number] = ours(f"`--parallel {number}`", port, short, str(number))
        peer = (f"http://127.0.0.1:{port}/v1", short, output, str(PARALLEL))
        name = f"SDK + gather, {PARALLEL} at once"
        take(name, port, FIXED_FROM, lambda: measure("benchmarks.peer_sdk", *peer))
    with server(LATENCY_MS, *limit, "--late-refusals") as port:
        ours(f"`--parallel auto`, refused after {LATENCY_MS} ms", port, long, "auto")
    return [*lines, "", best_line(fixed)]


def best_line(fixed: dict[int, Pace]) -> str:
    """Name the best fixed number, and the best of those that are seldom refused."""
    best = max(fixed, key=lambda number: fixed[number].rate)
    polite = {number for number in fixed if fixed[number].refused < TOLERATED}
    said = f"Best fixed number: {best} with {fixed[best].rate / RATE:.1%} of the allowed rate"
    if polite and best not in polite:
        best = max(polite, key=lambda number: fixed[number].rate)
        said += f"; with less than {TOLERATED:.0%} of 429s: {best}, {fixed[best].rate / RATE:.1%}"
    return said + "."


def read_journal(port: int) -> list[tuple[float, bool]]:
    """Take over what the server has written down since the last time."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/journal") as answer:
        entries: list[tuple[float, bool]] = json.load(answer)
    return entries


class Variant(NamedTuple):
    """A command to measure: its name, its model, and its options."""

    name: str
    model: str
    options: tuple[str, ...] = ()


class Speed(NamedTuple):
    """Of a row, without the start of the run: rows a second, and milliseconds of processor."""

    rows: float
    cpu: float


def speeds(folder: Path, variants: list[Variant], count: int, port: int) -> list[Speed]:
    """Measure variants in turn, each with one row as well, which is taken off."""
    output, many, one = str(folder / "out.jsonl"), make_rows(folder, count), make_rows(folder, 1)
    walls: list[list[float]] = [[] for _ in variants]
    cpus: list[list[float]] = [[] for _ in variants]
    starts: list[list[float]] = [[] for _ in variants]
    start_cpus: list[list[float]] = [[] for _ in variants]
    for _ in range(ROUNDS):
        for number, variant in enumerate(variants):
            for rows, wall, cpu in ((one, starts, start_cpus), (many, walls, cpus)):
                with tempfile.TemporaryDirectory(dir=folder) as fresh:
                    options = [fresh if o == FRESH else o for o in variant.options]
                    cost = beam_batch(
                        rows, output, variant.model, port, "--fail-on-error", *options
                    )
                wall[number].append(cost.wall)
                cpu[number].append(cost.cpu)
    found = []
    for number in range(len(variants)):
        wall_seconds = statistics.median(walls[number]) - statistics.median(starts[number])
        cpu_seconds = statistics.median(cpus[number]) - statistics.median(start_cpus[number])
        found.append(Speed((count - 1) / wall_seconds, cpu_seconds / (count - 1) * 1000))
    return found


def transports_table(folder: Path) -> list[str]:
    """Compare the transports of the Responses API."""
    variants = [Variant(t, f"responses.benchmark?transport={t}") for t in TRANSPORTS]
    with server(0) as port:
        found = speeds(folder, variants, TRANSPORT_ROWS, port)
    lines = ["| transport | rows/s | CPU ms/row |", "|---|---|---|"]
    for variant, speed in zip(variants, found, strict=True):
        lines.append(f"| `{variant.name}` | {speed.rows:,.0f} | {speed.cpu:.3f} |")
    return lines


def overhead_table(folder: Path, latency_ms: int = 0) -> list[str]:
    """Show what each option adds to a row, switched on one after the other."""
    model = "generic.benchmark?max_tokens=400"
    options: tuple[str, ...] = ()
    variants = []
    for name, more in (
        ("all off", ("--no-dedupe",)),
        ("+ `--telemetry-output`", ("--telemetry-output", str(folder / "telemetry.jsonl"))),
        ("+ `--price`", ("--price", "input=1,output=1")),
        ("+ dedupe", ("--dedupe",)),
        ("+ `--cache`, empty", ("--cache", FRESH)),
        ("+ `--max-cost`", ("--max-cost", "1000")),
    ):
        options += more
        variants.append(Variant(name, model, options))
    with server(latency_ms) as port:
        found = speeds(folder, variants, OVERHEAD_ROWS, port)
    lines = [
        "| | rows/s | slower than all off | CPU ms/row | CPU added by this step |",
        "|---|---|---|---|---|",
    ]
    base = before = found[0]
    for variant, speed in zip(variants, found, strict=True):
        slower, added = 1 - speed.rows / base.rows, speed.cpu / before.cpu - 1
        step = "" if variant is variants[0] else f"{added:+.1%}"
        share = "" if variant is variants[0] else f"{slower:.1%}"
        lines.append(f"| {variant.name} | {speed.rows:,.0f} | {share} | {speed.cpu:.3f} | {step} |")
        before = speed
    return lines


def called_overhead_table(folder: Path) -> list[str]:
    """Show the same where answers take their time."""
    return overhead_table(folder, CALL_MS)


TABLES: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "pacing": (f"Pacing: {RATE:.0f} requests/s allowed, {LATENCY_MS} ms", pacing_table),
    "transports": (f"Transports: {TRANSPORT_ROWS:,} rows, no latency", transports_table),
    "overhead": (f"Overhead: {OVERHEAD_ROWS:,} rows, no latency", overhead_table),
    "called": (f"Overhead: {OVERHEAD_ROWS:,} rows, {CALL_MS} ms", called_overhead_table),
}


def main(names: list[str]) -> None:
    """Print the tables named, or all."""
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {PARALLEL} in flight.")
    for name in names or TABLES:
        title, table = TABLES[name]
        with tempfile.TemporaryDirectory() as folder:
            print(f"\n## {title}\n", *table(Path(folder)), sep="\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
