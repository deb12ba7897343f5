"""Measure agents: what an agent without tools costs beside a plain prompt, and a loop with a tool
beside openai-agents, on the same server in the same run.

Run: python -m benchmarks.agents [PYTHON_OF_THE_PEER] (or: make bench-agents); prints Markdown.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.run import Cost, make_rows, server

ROWS = 20_000
PEER_ROWS = 1_000
PARALLEL = 32
ROUNDS = 3
REFERENCE = "20 to 30"
"""Rows a second of the tool that is best known for batches of agents, on one core."""
CARD = """---
name: counter
{more}
---
Classify the review.
"""
TOOL = '''
def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())
'''


def measure(command: list[str], **env: str) -> Cost:
    """Run a command to its end; times in seconds, memory in MB."""
    started = time.monotonic()
    process = subprocess.Popen(command, env=os.environ | env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(time.monotonic() - started, cpu, usage.ru_maxrss / 1024)


def ours(rows: str, folder: Path, port: int, *more: str) -> Cost:
    """Run the command line."""
    command = [
        sys.executable, "-m", "beam_batch", "run", "-i", rows, "-o", str(folder / "out.jsonl"),
        "-m", "generic.benchmark", "-p", "{{review}}", "--parallel", str(PARALLEL), "--overwrite",
        "--no-progress", "--no-dedupe", "--fail-on-error", *more,
    ]  # fmt: skip
    return measure(command, GENERIC_BASE_URL=f"http://127.0.0.1:{port}/v1")


def median(costs: list[Cost]) -> Cost:
    """Return the run that took neither the longest nor the shortest."""
    return sorted(costs)[len(costs) // 2]


def main(peer: str) -> None:
    """Measure in turn, print a table."""
    with tempfile.TemporaryDirectory() as name, server(0) as port:
        folder = Path(name)
        (folder / "tools.py").write_text(TOOL)
        plain_card, tool_card = folder / "plain.md", folder / "tool.md"
        plain_card.write_text(CARD.format(more="description: plain"))
        tool_card.write_text(CARD.format(more='function_tools: ["tools.py:count_words"]'))
        rows, few = make_rows(folder, ROWS), make_rows(folder, PEER_ROWS)
        url = f"http://127.0.0.1:{port}/v1"
        instruction = folder / "instruction.md"
        instruction.write_text("Classify the review.")
        runs = {
            "plain prompt": lambda: ours(rows, folder, port, "--instruction", str(instruction)),
            "agent without tools": lambda: ours(
                rows, folder, port, "--agent-card", str(plain_card)
            ),
            "agent with a tool": lambda: ours(rows, folder, port, "--agent-card", str(tool_card)),
        }
        counts = dict.fromkeys(runs, ROWS)
        if peer:
            command = [peer, "-m", "benchmarks.peer_agents", url, few, str(PARALLEL)]
            runs["openai-agents without tools"] = lambda: measure(command)
            runs["openai-agents with a tool"] = lambda: measure([*command, "tools"])
            counts |= dict.fromkeys(list(runs)[3:], PEER_ROWS)
        costs: dict[str, list[Cost]] = {name: [] for name in runs}
        for _ in range(ROUNDS):
            for name, run in runs.items():
                costs[name].append(run())
        one = statistics.median(
            ours(make_rows(folder, 1), folder, port, "--agent-card", str(tool_card)).wall
            for _ in range(ROUNDS)
        )
    print(f"{PARALLEL} in flight, no latency; {os.cpu_count()} cores.\n")
    print(
        "| | rows/s | CPU ms/row | peak MB | CPU beside a plain prompt |",
        "|---|---|---|---|---|",
        sep="\n",
    )
    base = median(costs["plain prompt"]).cpu / ROWS
    for name, found in costs.items():
        cost, count = median(found), counts[name]
        cpu = cost.cpu / count
        print(
            f"| {name} | {count / cost.wall:,.0f} | {cpu * 1000:.2f} | {cost.peak:.0f} "
            f"| {cpu / base:.2f}x |"
        )
    print(f"\nAn agent's run of one row takes {one:.1f} s. Reference tool: {REFERENCE} rows/s.")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
