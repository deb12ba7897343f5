"""Measure what reading costs: planning, memory over rows, processes, and a small front of a file.

Run: python -m benchmarks.inputs (or: make bench-inputs); prints Markdown tables. Takes some 10
minutes and 6 GB of disk.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.run import measure

ROWS = (100_000, 1_000_000, 10_000_000)
FRONT_MB = 105
SPIN_ROWS = 4_000
ROUNDS = 3
CODE_PLAN = (
    "import sys, tempfile; from pathlib import Path; from beam_batch.inputs.plan import plan_rows; "
    "from beam_batch.options import SourceSpec; "
    "p = plan_rows(SourceSpec(input=sys.argv[1], id_field=sys.argv[2] or None), "
    "Path(tempfile.mkdtemp())); print(p.plan_ms, p.ids_ms)"
)


def make_rows(folder: Path, count: int) -> str:
    """Write an input of so many rows of some 200 bytes."""
    path = folder / f"rows-{count}.jsonl"
    text = "The battery lasts all day. " * 6
    with path.open("w") as file:
        for start in range(0, count, 10_000):
            rows = range(start, min(count, start + 10_000))
            file.write("".join(json.dumps({"id": f"r{n}", "review": text}) + "\n" for n in rows))
    return str(path)


def median_seconds(call: Callable[[], object]) -> float:
    """Time a call a few times."""
    times = []
    for _ in range(ROUNDS):
        started = time.monotonic()
        call()
        times.append(time.monotonic() - started)
    return statistics.median(times)


def planned(path: str, id_field: str) -> tuple[float, float]:
    """Return the seconds that a plan says it took, and its check of ids."""
    done = subprocess.run(
        [sys.executable, "-c", CODE_PLAN, path, id_field],
        capture_output=True,
        text=True,
        check=True,
    )
    plan_ms, ids_ms = map(float, done.stdout.split())
    return plan_ms / 1000, ids_ms / 1000


def planning_table(path: str) -> list[str]:
    """Compare planning with counting lines and with DuckDB's count, on a file in the page cache."""
    import duckdb

    megabytes = os.path.getsize(path) / 1e6
    query = f"SELECT count(*) FROM read_json('{path}', format = 'newline_delimited')"
    own = statistics.median(planned(path, "")[0] for _ in range(ROUNDS))
    ids = planned(path, "id")[1]
    lines = ["| | seconds | MB/s |", "|---|---|---|"]
    for name, seconds in (
        ("plan: count, cut, digest", own),
        ("the check of ids, beside it", ids),
        ("wc -l", median_seconds(lambda: subprocess.run(["wc", "-l", path], capture_output=True))),
        ("DuckDB count(*)", median_seconds(lambda: duckdb.sql(query).fetchall())),
    ):
        lines.append(f"| {name} | {seconds:.2f} | {megabytes / seconds:,.0f} |")
    return lines


def run(path: str, output: str, model: str, *more: str) -> tuple[float, float]:
    """Run the command line; return seconds and peak memory in MB of the driver."""
    options = ("--overwrite", "--no-progress", "-p", "{{review}}", *more)
    cost = measure("beam_batch", "run", "-i", path, "-o", output, "-m", model, *options)
    return cost.wall, cost.peak


def memory_table(folder: Path) -> list[str]:
    """Show rows/s, peak memory, and the work directory at its end, over inputs of any length."""
    lines = [
        "| rows | rows/s | peak MB | part files | work directory MB |",
        "|---|---|---|---|---|",
    ]
    for count in ROWS:
        path, output = make_rows(folder, count), folder / "out.jsonl"
        wall, peak = run(path, str(output), "echo", "--keep-temp")
        work = folder / ".out.jsonl.batch"
        files = [file for file in work.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files) / 1e6
        parts = sum(file.parent.name == "parts" for file in files)
        lines.append(f"| {count:,} | {count / wall:,.0f} | {peak:.0f} | {parts:,} | {size:,.0f} |")
        subprocess.run(["rm", "-rf", work, output], check=True)
    return lines


def processes_table(folder: Path) -> list[str]:
    """Compare one and two worker processes on a provider that only burns the processor."""
    path, output = make_rows(folder, SPIN_ROWS * 5), str(folder / "spin.jsonl")
    lines = ["| worker processes | rows/s |", "|---|---|"]
    for workers in (1, 2):
        wall, _ = run(path, output, "echo?spin_ms=2", "--", f"--direct_num_workers={workers}")
        lines.append(f"| {workers} | {SPIN_ROWS * 5 / wall:,.0f} |")
    return lines


def front_table(folder: Path) -> list[str]:
    """Show what --limit 40 costs on a file of 105 MB."""
    path, output = make_rows(folder, FRONT_MB * 1_000_000 // 196), str(folder / "front.jsonl")
    size = os.path.getsize(path) / 1e6
    lines = [f"{size:.0f} MB of JSONL, `--limit 40`:", "", "| --parallel | seconds |", "|---|---|"]
    for parallel in (1, 4, 16):
        wall = statistics.median(
            run(path, output, "echo", "--limit", "40", "--parallel", str(parallel))[0]
            for _ in range(ROUNDS)
        )
        lines.append(f"| {parallel} | {wall:.1f} |")
    return lines


def main() -> None:
    """Print all tables."""
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}.\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("## A small front of a file\n", *front_table(folder), sep="\n", flush=True)
        print("\n## Processes\n", *processes_table(folder), sep="\n", flush=True)
        print("\n## Memory (echo provider)\n", *memory_table(folder), sep="\n", flush=True)
        rows = str(folder / f"rows-{ROWS[-1]}.jsonl")
        print(f"\n## Planning {ROWS[-1]:,} rows\n", *planning_table(rows), sep="\n")


if __name__ == "__main__":
    main()
