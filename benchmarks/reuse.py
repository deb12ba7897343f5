"""Measure what reusing replies costs a row: key, claim, look-up and keeping.

Run: python -m benchmarks.reuse [ROWS]; prints a Markdown table, in microseconds a row. Each figure
is the median of some rounds with a new folder each; request and reply are of 0.9 and 0.4 kB.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from beam_batch.options import ModelSpec, ReuseSpec
from beam_batch.outputs.workdir import WorkDir
from beam_batch.providers.base import Reply, Request, Usage
from beam_batch.reuse.making import make_once

ROUNDS = 3
AT_ONCE = 64
MODEL = ModelSpec(
    text="openai.m", provider="openai", model="m", base_url="https://api.openai.com/v1"
)
REPLY = Reply("positive: " + "a good product " * 20, "stop", "m", "id", Usage(60, 12, 72), None)


async def answered() -> Reply:
    """Answer at once."""
    return REPLY


def request_of(row: int, distinct: int) -> Request:
    """Build the request of a row; so many are different."""
    messages = [
        {"role": "system", "content": "Classify the review. " * 10},
        {"role": "user", "content": f"{row % distinct}: " + "The battery lasts all day. " * 20},
    ]
    return Request("/chat/completions", {"model": "m", "messages": messages}, False)


async def drive(spec: ReuseSpec | None, work: WorkDir, rows: int, distinct: int) -> float:
    """Return the processor's seconds for so many rows, some at once."""
    once = make_once(spec, MODEL, work) if spec is not None else None
    numbers = iter(range(rows))

    async def work_off() -> None:
        for number in numbers:
            request = request_of(number, distinct)
            if once is None:
                await answered()
            else:
                await once.reply(once.key(request), answered)
            await asyncio.sleep(0)  # as a request would, so that tasks take turns

    started = time.process_time()
    await asyncio.gather(*(work_off() for _ in range(AT_ONCE)))
    if once is not None:
        await once.close()
    return time.process_time() - started


def cost(make: Callable[[Path], ReuseSpec | None], rows: int, distinct: int, times: int) -> float:
    """Return microseconds a row of the last of some runs in one folder."""
    found = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=".") as name:
            folder = Path(name)
            for number in range(times):
                work = WorkDir(str(folder / f"work-{number}"))
                work.create()
                seconds = asyncio.run(drive(make(folder), work, rows, distinct))
            found.append(seconds / rows * 1e6)
    return statistics.median(found)


def main(rows: int) -> None:
    """Measure and print."""
    base = cost(lambda _: None, rows, rows, 1)

    def dedupe(_: Path) -> ReuseSpec:
        return ReuseSpec()

    def both(folder: Path) -> ReuseSpec:
        return ReuseSpec(cache=str(folder / "cache"))

    def cache(folder: Path) -> ReuseSpec:
        return ReuseSpec(cache=str(folder / "cache"), dedupe=False)

    print(f"| {rows:,} rows, {AT_ONCE} at once | us a row |\n|---|---|")
    for title, make, distinct, times in (
        ("all different", dedupe, rows, 1),
        ("one in ten different", dedupe, rows // 10, 1),
        ("all different, `--cache`, empty", both, rows, 1),
        ("all different, `--cache`, full", both, rows, 2),
        ("all different, `--cache --no-dedupe`, empty", cache, rows, 1),
    ):
        print(f"| {title} | {cost(make, rows, distinct, times) - base:.1f} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
