"""Prove that no run passes --max-cost, whatever the answers cost and however many are lost.

Run: python -m benchmarks.caps [RUNS] [FIRST_SEED] (or: make bench-caps); prints a Markdown table,
and ends with 1 where a cap was passed or a run ended otherwise than at its cap. Each run takes
some 3 seconds.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.fakes import PRICE, PayingServer
from tests.support import beam_batch, environment, write_jsonl

RUNS = 50
ROWS = 600
"""They would cost some 11 USD at what the server takes."""
CAPS = (0.5, 5.0)
PARALLEL = 64
AT_CAP = 4
"""The exit code of a run that its cap has ended."""


class Outcome(NamedTuple):
    """How a run ended: its seed, its cap and what the server was paid, in USD, its exit code."""

    seed: int
    workers: int
    cap: float
    paid: float
    code: int

    @property
    def passed(self) -> bool:
        """Whether more was paid than allowed; a billionth is a rounding of the server's sum."""
        return self.paid > self.cap + 1e-9


def run(folder: Path, seed: int, workers: int) -> Outcome:
    """Run once, to a cap that the seed draws."""
    cap = round(random.Random(seed).uniform(*CAPS), 4)
    with PayingServer(seed) as server:
        done = beam_batch(
            "run", "-i", folder / "rows.jsonl", "-o", folder / f"out-{seed}.jsonl",
            "-p", "row {{n}}", "-m", "generic.m?max_tokens=40", *PRICE,
            "--max-cost", cap, "--parallel", PARALLEL, "--retry-wait", "0.01", "--no-progress",
            "--", f"--direct_num_workers={workers}",
            env=environment(GENERIC_BASE_URL=server.base_url),
        )  # fmt: skip
        outcome = Outcome(seed, workers, cap, server.paid_usd, done.returncode)
    if outcome.passed or outcome.code != AT_CAP:
        print(f"{outcome}\n{done.stderr}", file=sys.stderr, flush=True)
    return outcome


def table(outcomes: list[Outcome]) -> list[str]:
    """Sum up, for each number of worker processes."""
    lines = [
        "| worker processes | runs | caps passed | mean share used | least | most |",
        "|---|---|---|---|---|---|",
    ]
    for workers in sorted({outcome.workers for outcome in outcomes}):
        chosen = [outcome for outcome in outcomes if outcome.workers == workers]
        shares = [outcome.paid / outcome.cap for outcome in chosen]
        passed = sum(outcome.passed for outcome in chosen)
        lines.append(
            f"| {workers} | {len(chosen)} | {passed} | {statistics.mean(shares):.1%} "
            f"| {min(shares):.1%} | {max(shares):.1%} |"
        )
    return lines


def main(runs: int, first_seed: int) -> int:
    """Run, print, and return the exit code."""
    outcomes = []
    print(f"{runs} runs from seed {first_seed}, {PARALLEL} in flight.\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jsonl(folder / "rows.jsonl", [{"n": n} for n in range(ROWS)])
        for number in range(runs):
            outcomes.append(run(folder, first_seed + number, 1 + number % 2))
    print(*table(outcomes), sep="\n")
    return int(any(outcome.passed or outcome.code != AT_CAP for outcome in outcomes))


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    runs = given[0] if given else RUNS
    seed = given[1] if len(given) > 1 else random.SystemRandom().randrange(1_000_000)
    raise SystemExit(main(runs, seed))
