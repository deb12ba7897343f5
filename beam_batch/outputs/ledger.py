"""The ledger of a run: what it has spent and may still spend, over all workers and sessions.

One small file under a lock of the kernel. What a request may cost at worst is written down before
it is sent, so that neither a killed worker nor two workers at once can pass a cap.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from beam_batch import jsonio
from beam_batch.outputs import parts
from beam_batch.outputs.workdir import WorkDir

_FORM = struct.Struct("<4q")
_NANO = 1_000_000_000


class Sum(NamedTuple):
    """An amount: billionths of a USD, and tokens."""

    nano_usd: int
    tokens: int

    @classmethod
    def of(cls, usd: float, tokens: int) -> Sum:
        """Make a sum of USD, rounded up, and tokens."""
        return cls(-int(-usd * _NANO // 1), tokens)

    @property
    def usd(self) -> float:
        """The money in USD."""
        return self.nano_usd / _NANO


class Balance(NamedTuple):
    """What is spent, and what is set aside for requests in flight."""

    spent: Sum
    reserved: Sum


@dataclass(frozen=True)
class LedgerSpec:
    """Where a ledger is, and its caps (None: there is none); picklable, opens nothing by itself."""

    work: WorkDir
    max_cost: float | None = None
    max_tokens: int | None = None

    def open(self) -> Ledger:
        """Open the ledger, at first use with nothing in it."""
        return Ledger(self)


class Ledger:
    """Sets sums aside, and settles them. Safe between processes; each call is some 10 us."""

    def __init__(self, spec: LedgerSpec) -> None:
        self._max_nano = None if spec.max_cost is None else int(spec.max_cost * _NANO)
        self._max_tokens = spec.max_tokens
        self._fd = os.open(spec.work.root / "ledger", os.O_RDWR | os.O_CREAT, 0o644)

    def reserve(self, worst: Sum) -> Balance | None:
        """Set the worst case of a request aside, or return the balance that leaves no room."""
        with _Locked(self._fd):
            (spent, reserved) = self._read()
            nano = spent.nano_usd + reserved.nano_usd + worst.nano_usd
            tokens = spent.tokens + reserved.tokens + worst.tokens
            if self._max_nano is not None and nano > self._max_nano:
                return Balance(spent, reserved)
            if self._max_tokens is not None and tokens > self._max_tokens:
                return Balance(spent, reserved)
            held = Sum(reserved.nano_usd + worst.nano_usd, reserved.tokens + worst.tokens)
            self._write(Balance(spent, held))
            return None

    def settle(self, worst: Sum, actual: Sum) -> None:
        """Replace what was set aside for a request by what it has cost."""
        with _Locked(self._fd):
            (spent, reserved) = self._read()
            self._write(
                Balance(
                    Sum(spent.nano_usd + actual.nano_usd, spent.tokens + actual.tokens),
                    Sum(reserved.nano_usd - worst.nano_usd, reserved.tokens - worst.tokens),
                )
            )

    def charge_reserved(self) -> None:
        """Count what dead workers had set aside as spent: their requests may have been paid."""
        with _Locked(self._fd):
            (spent, reserved) = self._read()
            total = Sum(spent.nano_usd + reserved.nano_usd, spent.tokens + reserved.tokens)
            self._write(Balance(total, Sum(0, 0)))

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _read(self) -> Balance:
        data = os.pread(self._fd, _FORM.size, 0)
        if len(data) < _FORM.size:
            return Balance(Sum(0, 0), Sum(0, 0))
        a, b, c, d = _FORM.unpack(data)
        return Balance(Sum(a, b), Sum(c, d))

    def _write(self, balance: Balance) -> None:
        os.pwrite(self._fd, _FORM.pack(*balance.spent, *balance.reserved), 0)


def spent_by_sessions(work: WorkDir, counts: Callable[[int], bool]) -> tuple[float, int]:
    """Add up what the part files of some sessions say: US dollars, and tokens."""
    usd, tokens = 0.0, 0
    for path in work.parts.glob("*.jsonl"):
        session = parts.PartName.parse(path).session
        if session == parts.KEPT_SESSION or not counts(session):
            continue
        for found in parts.read(path):
            if found is None:
                continue
            telemetry = jsonio.loads_own(found.telemetry)
            usd += telemetry.get("cost_usd") or 0.0
            turn = telemetry["usage"].get("turn") or {}
            total = turn.get("input_tokens", 0) + turn.get("output_tokens", 0)
            tokens += turn.get("total_tokens") or total
    return usd, tokens


class _Locked:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)
