"""The ledger: sums set aside and settled, by several processes at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from beam_batch.outputs.ledger import Balance, LedgerSpec, Sum
from beam_batch.outputs.workdir import WorkDir
from tests.support import ROOT, environment

SPEND = """
import sys
from beam_batch.outputs.ledger import LedgerSpec, Sum
from beam_batch.outputs.workdir import WorkDir
ledger = LedgerSpec(WorkDir(sys.argv[1]), max_cost=1.0).open()
sent = 0
while ledger.reserve(Sum.of(0.01, 10)) is None:
    ledger.settle(Sum.of(0.01, 10), Sum.of(0.004, 4))
    sent += 1
print(sent)
"""


def test_nothing_is_set_aside_beyond_a_cap_and_the_refusal_says_why(tmp_path: Path) -> None:
    ledger = LedgerSpec(WorkDir(str(tmp_path)), max_cost=1.0, max_tokens=100).open()
    assert ledger.reserve(Sum.of(0.6, 60)) is None
    assert ledger.reserve(Sum.of(0.5, 1)) == Balance(Sum(0, 0), Sum(600_000_000, 60))
    assert ledger.reserve(Sum.of(0.1, 41)) is not None
    ledger.settle(Sum.of(0.6, 60), Sum.of(0.1, 10))
    assert ledger.reserve(Sum.of(0.9, 90)) is None
    assert ledger.reserve(Sum.of(0.000000001, 0)) is not None


def test_what_dead_workers_had_set_aside_is_spent(tmp_path: Path) -> None:
    spec = LedgerSpec(WorkDir(str(tmp_path)), max_cost=1.0)
    dead = spec.open()
    assert dead.reserve(Sum.of(0.7, 7)) is None
    dead.close()
    ledger = spec.open()
    ledger.charge_reserved()
    refused = ledger.reserve(Sum.of(0.4, 4))
    assert refused == Balance(Sum.of(0.7, 7), Sum(0, 0))


def test_processes_together_come_to_the_cap_and_no_further(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SPEND, str(tmp_path)]
    workers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT)
        for _ in range(3)
    ]
    sent = sum(int(worker.communicate(timeout=60)[0]) for worker in workers)
    assert 0.98 <= sent * 0.004 <= 1.0
