"""Measure engines: what a run costs at least, one and two workers, a million rows over time.

Run: python -m benchmarks.scale (or: make bench-scale); prints Markdown tables. Takes some 20
minutes and 2 GB of disk.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.run import make_rows, measure, server
from tests.engines import (
    PRISM,
    Start,
    Started,
    children,
    dask_workers,
    direct,
    prism_loopback,
    prism_pools,
    two_processes,
)

LATENCY_MS = 200
IN_FLIGHT = 32
"""Requests in flight of each worker, as a provider's limit for one of them would be."""
ROWS = 8_000
MILLION = 1_000_000
ROUNDS = 3
LOOKS = 5
"""Looks at a long run that are printed."""
WORKERS: dict[str, dict[int, Start]] = {
    "direct, processes": {1: direct, 2: two_processes},
    "prism, worker pools": {1: lambda folder: prism_pools(folder, 1), 2: prism_pools},
    "dask, workers": {1: lambda folder: dask_workers(folder, 1), 2: dask_workers},
}


def run(rows: str, folder: Path, engine: Started, *more: str, **env: str) -> float:
    """Run the command line to its end; return seconds."""
    output = folder / "out.jsonl"
    command = ("run", "-i", rows, "-o", str(output), "--overwrite", "--no-progress", *more)
    return measure("beam_batch", *command, *engine.arguments, **env).wall


def fixed_costs(folder: Path) -> list[str]:
    """Show what a run of one row takes, engines being up."""
    rows = make_rows(folder, 1)
    lines = ["| engine | seconds for one row |", "|---|---|"]
    starts: dict[str, Start] = {
        "direct": direct,
        "direct, two processes": two_processes,
        "prism, loopback": prism_loopback,
        "prism, two pools": prism_pools,
        "dask, two workers": dask_workers,
    }
    for name, start in starts.items():
        with start(_folder(folder, name)) as engine:
            seconds = statistics.median(
                run(rows, folder, engine, "-m", "echo", "-p", "{{review}}") for _ in range(ROUNDS)
            )
        lines.append(f"| {name} | {seconds:.1f} |")
    return lines


def scaling(folder: Path) -> list[str]:
    """Compare one worker with two, each with its own number of requests in flight."""
    rows, one = make_rows(folder, ROWS), make_rows(folder, 1)
    lines = [
        "| | rows/s, one | rows/s, two | times | the start taken off |",
        "|---|---|---|---|---|",
    ]
    with server(LATENCY_MS) as port:
        for name, starts in WORKERS.items():
            walls, bare = {}, {}
            for count, start in starts.items():
                options = (
                    "-m",
                    "generic.m",
                    "-p",
                    "{{review}}",
                    "--parallel",
                    str(IN_FLIGHT * count),
                )
                url = f"http://127.0.0.1:{port}/v1"
                with start(_folder(folder, f"{name}{count}")) as engine:
                    bare[count] = run(one, folder, engine, *options, GENERIC_BASE_URL=url)
                    walls[count] = run(rows, folder, engine, *options, GENERIC_BASE_URL=url)
            net = {count: walls[count] - bare[count] for count in walls}
            lines.append(
                f"| {name} | {ROWS / walls[1]:,.0f} | {ROWS / walls[2]:,.0f} "
                f"| {walls[1] / walls[2]:.2f} | {net[1] / net[2]:.2f} |"
            )
    return lines


class Look(NamedTuple):
    """One look at a run: seconds since its start, MB, part files and bytes."""

    seconds: float
    driver: float
    workers: float
    program: float
    files: int
    size: float


def million(folder: Path, start: Start, name: str) -> list[str]:
    """Show memory and the work directory of a long run over time."""
    rows, output = make_rows(folder, MILLION), folder / "out.jsonl"
    lines = [
        f"{name}:",
        "",
        "| s | driver MB | workers MB | engine MB | files | work directory MB |",
        "|---|---|---|---|---|---|",
    ]
    with start(_folder(folder, name)) as engine:
        command = [sys.executable, "-m", "beam_batch", "run", "-i", rows, "-o", str(output)]
        options = ["--overwrite", "--no-progress", "-m", "echo", "-p", "{{review}}"]
        looks: list[Look] = []
        started = time.monotonic()
        process = subprocess.Popen(
            [*command, *options, *engine.arguments], stdout=subprocess.DEVNULL
        )
        watcher = threading.Thread(
            target=_watch, args=(process, output, engine.workers or (lambda _: []), started, looks)
        )
        watcher.start()
        if process.wait():
            raise SystemExit(f"{name} failed")
        seconds = time.monotonic() - started
        watcher.join()
    for look in looks[:: max(1, len(looks) // LOOKS)]:
        lines.append(
            f"| {look.seconds:.0f} | {look.driver:.0f} | {look.workers:.0f} | {look.program:.0f} "
            f"| {look.files:,} | {look.size:,.0f} |"
        )
    with output.open("rb") as file:
        written = sum(1 for _ in file)
    pairs = zip(looks[1:], looks, strict=False)
    grown = max(look.seconds for look, before in pairs if look.size > before.size)
    said = f"{written:,} envelopes in {seconds:.0f} s: {MILLION / seconds:,.0f} rows/s"
    return [*lines, "", f"{said}. The commit took the last {seconds - grown:.0f} s of it."]


def _watch(
    process: subprocess.Popen[bytes],
    output: Path,
    workers: Callable[[int], list[int]],
    started: float,
    looks: list[Look],
) -> None:
    work = output.with_name(f".{output.name}.batch")
    while process.poll() is None:
        sizes = [path.stat().st_size for path in work.glob("parts/*") if path.exists()]
        looks.append(
            Look(
                time.monotonic() - started,
                _memory([process.pid]),
                _memory(workers(process.pid)),
                _memory(_below(process.pid)),
                len(sizes),
                sum(sizes) / 1e6,
            )
        )
        time.sleep(2)


def _below(pid: int) -> list[int]:
    found = children(pid)
    return found + [below for child in found for below in _below(child)]


def _memory(pids: list[int]) -> float:
    """Return the resident memory of processes in MB."""
    total = 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        total += int(status.partition("VmRSS:")[2].split()[0]) if "VmRSS:" in status else 0
    return total / 1024


def _folder(folder: Path, name: str) -> Path:
    made = folder / "".join(letter for letter in name if letter.isalnum())
    made.mkdir(exist_ok=True)
    return made


def main() -> None:
    """Print all tables."""
    if not PRISM:
        raise SystemExit("BEAM_BATCH_PRISM names no Prism binary; use `make bench-scale`.")
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}.\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("## What a run costs at least\n", *fixed_costs(folder), sep="\n", flush=True)
        print(f"\n## Workers ({LATENCY_MS} ms)\n", *scaling(folder), sep="\n", flush=True)
        print("\n## A million rows (echo provider)\n", flush=True)
        for title, start in (
            ("prism, two pools", prism_pools),
            ("dask, two workers", dask_workers),
        ):
            print(*million(folder, start, title), "", sep="\n", flush=True)


if __name__ == "__main__":
    main()
