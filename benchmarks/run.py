"""Measure beam_batch beside its peers, on the same server in the same run.

Run: python -m benchmarks.run (or: make bench); prints Markdown tables.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PARALLEL = 64
ROWS = 100_000
ROWS_WITH_LATENCY = 40_000
PEER_ROWS = 5_000
"""Rows of the SDK, in whose rows/s the number makes no difference: all would take an hour."""
LATENCY_MS = 50
MEMORY_ROWS = (10_000, 500_000)
ROUNDS = 3
PROCESSES = ("--", "--direct_num_workers=2")
"""Flags with which a run has two worker processes, of which each has half of the requests."""
VALIDATIONS = 50_000


class Cost(NamedTuple):
    """What one process took.

    Attributes:
        wall, cpu: seconds.
        peak: memory in MB.
    """

    wall: float
    cpu: float
    peak: float


@contextlib.contextmanager
def server(latency_ms: float, *more: str) -> Iterator[int]:
    """Start the loopback server; yields its port."""
    options = ("--latency-ms", str(latency_ms), *more)
    command = [sys.executable, "-m", "benchmarks.server", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def measure(*command: str, **env: str) -> Cost:
    """Run a command to its end."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=os.environ | env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed: {errors.decode()}")
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(time.monotonic() - started, cpu, usage.ru_maxrss / 1024)


def make_rows(folder: Path, count: int) -> str:
    """Write an input of so many rows of some 200 bytes, no two with the same review."""
    path = folder / f"rows-{count}.jsonl"
    with path.open("w") as file:
        for n in range(count):
            row = {"id": f"r{n}", "review": f"{n:08}: " + "The battery lasts all day. " * 6}
            file.write(json.dumps(row) + "\n")
    return str(path)


def beam_batch(rows: str, output: str, model: str, port: int = 0, *more: str) -> Cost:
    """Run the command line over an input."""
    url = f"http://127.0.0.1:{port}/v1"
    arguments = ("--parallel", str(PARALLEL), "--overwrite", "--no-progress", "-p", "{{review}}")
    command = ("beam_batch", "run", "-i", rows, "-o", output, "-m", model, *arguments, *more)
    return measure(*command, GENERIC_BASE_URL=url, OPENAI_BASE_URL=url, OPENAI_API_KEY="none")


def rows_failed(output: str) -> int:
    """Count the rows without an answer, in an output of ours or of the peer's."""
    with open(output) as file:
        return sum(bool(json.loads(line).get("error")) for line in file)


def speed_table(folder: Path, latency_ms: float, count: int) -> list[str]:
    """Compare rows/s and CPU a row; each figure is the median of some rounds, taken in turn."""
    rows, output = make_rows(folder, count), str(folder / "out.jsonl")
    counts = {"beam_batch": count, "SDK + gather": PEER_ROWS, "bare client": count}
    if not latency_ms:
        counts["beam_batch, two processes"] = count
    costs: dict[str, list[Cost]] = {name: [] for name in counts}
    fixed: list[float] = []
    with server(latency_ms) as port:
        url = f"http://127.0.0.1:{port}/v1"
        peer = (url, make_rows(folder, PEER_ROWS), str(folder / "peer.jsonl"), str(PARALLEL))
        bare = ("127.0.0.1", str(port), str(count), str(PARALLEL))
        for _ in range(ROUNDS):
            fixed.append(beam_batch(make_rows(folder, 1), output, "generic.benchmark", port).wall)
            costs["beam_batch"].append(beam_batch(rows, output, "generic.benchmark", port))
            costs["SDK + gather"].append(measure("benchmarks.peer_sdk", *peer))
            if rows_failed(output) or rows_failed(peer[2]):
                raise SystemExit("rows failed, so nothing can be compared")
            costs["bare client"].append(measure("benchmarks.bare_client", *bare))
            if not latency_ms:
                several = beam_batch(rows, output, "generic.benchmark", port, *PROCESSES)
                costs["beam_batch, two processes"].append(several)
    lines = ["| | rows/s | CPU ms/row | peak MB | beam_batch is |", "|---|---|---|---|---|"]
    walls = {n: statistics.median(c.wall for c in costs[n]) / counts[n] for n in counts}
    for name, runs in costs.items():
        cpu = statistics.median(cost.cpu for cost in runs) / counts[name] * 1000
        peak = statistics.median(cost.peak for cost in runs)
        times = walls[name] / walls["beam_batch"]
        lines.append(f"| {name} | {1 / walls[name]:,.0f} | {cpu:.2f} | {peak:.0f} | {times:.2f}x |")
    start = statistics.median(fixed)
    steady = (count - 1) / (walls["beam_batch"] * count - start)
    lines.append(
        f"\nA run of one row takes {start:.1f} s; without them it is {steady:,.0f} rows/s."
    )
    if latency_ms:
        lines.append(latency_line(count, walls["beam_batch"] * count, start, latency_ms))
    return lines


def latency_line(count: int, wall: float, start: float, latency_ms: float) -> str:
    """Say how near the requests in flight come to what the latency allows."""
    bound = PARALLEL / (latency_ms / 1000)
    return (
        f"Latency bound: {bound:,.0f} rows/s; beam_batch reaches {count / wall / bound:.0%} with "
        f"the start of the run, {(count - 1) / (wall - start) / bound:.0%} without."
    )


def validation_table() -> list[str]:
    """Show what the check of a structured reply costs."""
    from beam_batch.options import SchemaSpec
    from beam_batch.prompts.schema import make_validator

    one = {"manufacturer": {"type": "string"}, "product": {"type": "string"}}
    item = {"type": "object", "properties": one, "required": list(one)}
    schema = {"type": "object", "properties": {"competitors": {"type": "array", "items": item}}}
    reply = json.dumps({"competitors": [{"manufacturer": "A" * 20, "product": "B" * 30}] * 3})
    validate = make_validator(SchemaSpec(json=json.dumps(schema)))
    started = time.perf_counter()
    for _ in range(VALIDATIONS):
        validate(reply)
    cost = (time.perf_counter() - started) / VALIDATIONS * 1e6
    return [f"Parsing and validating a reply of three objects: {cost:.1f} microseconds."]


def memory_table(folder: Path) -> list[str]:
    """Show the peak memory over inputs of different length."""
    lines = ["| rows | rows/s | peak MB |", "|---|---|---|"]
    for count in MEMORY_ROWS:
        cost = beam_batch(make_rows(folder, count), str(folder / "echo.jsonl"), "echo")
        lines.append(f"| {count:,} | {count / cost.wall:,.0f} | {cost.peak:.0f} |")
    return lines


def main() -> None:
    """Print all tables."""
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {PARALLEL} in flight.\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"## {ROWS:,} rows, no latency\n", *speed_table(folder, 0, ROWS), sep="\n")
        print(f"\n## {ROWS_WITH_LATENCY:,} rows, {LATENCY_MS} ms\n")
        print(*speed_table(folder, LATENCY_MS, ROWS_WITH_LATENCY), sep="\n")
        print("\n## Memory (echo provider)\n", *memory_table(folder), sep="\n")
    print("\n## Validation\n", *validation_table(), sep="\n")


if __name__ == "__main__":
    main()
