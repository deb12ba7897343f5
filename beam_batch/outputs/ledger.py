"""The ledger of a run: what it has spent and may still spend, over all workers and sessions.

In a folder it is one small file under a lock of the kernel; in an object store, see `allowance`.
What a request may cost at worst is written down before it is sent, so that neither a killed worker
nor two workers at once can pass a cap.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from beam_batch import jsonio
from beam_batch.outputs import parts, spent
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

    def open(self) -> AnyLedger:
        """Open the ledger, at first use with nothing in it."""
        place = self.work.place
        if place.is_folder:
            return Ledger(self)
        from beam_batch.outputs.allowance import Allowance

        return Allowance(place, (_nano(self.max_cost), self.max_tokens))


class AnyLedger(Protocol):
    """Sets sums aside, and settles them.

    Attributes:
        waits: whether `reserve` may have no room though the run has, which `refill` gets.
            What is not `reserve` or `settle` then waits for the place.
    """

    waits: bool

    def reserve(self, worst: Sum) -> Balance | None:
        """Set the worst case of a request aside, or return the balance that leaves no room."""

    def settle(self, worst: Sum, actual: Sum) -> None:
        """Replace what was set aside for a request by what it has cost."""

    def refill(self, worst: Sum) -> Balance | None:
        """Set a worst case aside like `reserve`, in room that is got for it."""

    def renew(self) -> None:
        """Tell others what was spent; to be called every few seconds."""

    def charge_reserved(self) -> None:
        """Count what dead workers had set aside as spent: their requests may have been paid."""

    def close(self) -> None:
        """Tell others what was spent, and close what is open."""


class Ledger:
    """The ledger in a folder. Safe between processes.

    Plain numbers, and locks without a context manager: every request passes here twice, and that
    saves a third of its time.
    """

    waits = False

    def __init__(self, spec: LedgerSpec) -> None:
        self._max_nano = _nano(spec.max_cost)
        self._max_tokens = spec.max_tokens
        self._fd = os.open(spec.work.root / "ledger", os.O_RDWR | os.O_CREAT, 0o644)

    def reserve(self, worst: Sum) -> Balance | None:
        """Set the worst case of a request aside, or return the balance that leaves no room."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            spent, spent_tokens, held, held_tokens = self._read()
            nano, tokens = held + worst.nano_usd, held_tokens + worst.tokens
            if (self._max_nano is not None and spent + nano > self._max_nano) or (
                self._max_tokens is not None and spent_tokens + tokens > self._max_tokens
            ):
                return Balance(Sum(spent, spent_tokens), Sum(held, held_tokens))
            self._write(spent, spent_tokens, nano, tokens)
            return None
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def settle(self, worst: Sum, actual: Sum) -> None:
        """Replace what was set aside for a request by what it has cost."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            spent, spent_tokens, held, held_tokens = self._read()
            self._write(
                spent + actual.nano_usd,
                spent_tokens + actual.tokens,
                held - worst.nano_usd,
                held_tokens - worst.tokens,
            )
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def refill(self, worst: Sum) -> Balance | None:
        """Reserve: there is no room but what all see."""
        return self.reserve(worst)

    def renew(self) -> None:
        """Do nothing: all see the same file."""

    def charge_reserved(self) -> None:
        """Count what dead workers had set aside as spent: their requests may have been paid."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            spent, spent_tokens, held, held_tokens = self._read()
            self._write(spent + held, spent_tokens + held_tokens, 0, 0)
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _read(self) -> tuple[int, int, int, int]:
        """Read what is spent, then what is set aside: each money, then tokens."""
        data = os.pread(self._fd, _FORM.size, 0)
        return _FORM.unpack(data) if len(data) == _FORM.size else (0, 0, 0, 0)

    def _write(self, spent: int, spent_tokens: int, held: int, held_tokens: int) -> None:
        os.pwrite(self._fd, _FORM.pack(spent, spent_tokens, held, held_tokens), 0)


def spent_by_sessions(work: WorkDir, counts: Callable[[int], bool]) -> tuple[float, int]:
    """Add up what some sessions have spent, with and without an outcome: US dollars, and tokens.

    Raises:
        OSError: the work directory cannot be read.
    """
    return parts.with_new_lists(work.place, lambda: _spent_by_sessions(work, counts))


def _spent_by_sessions(work: WorkDir, counts: Callable[[int], bool]) -> tuple[float, int]:
    lost = spent.lost(work, counts)
    usd, tokens = lost.usd or 0.0, _total(lost.usage)
    for part in parts.all_parts(work.place):
        if part.session == parts.KEPT_SESSION or not counts(part.session):
            continue
        for found in parts.read(part):
            if found is None:
                continue
            telemetry = jsonio.loads_own(found.telemetry)
            usd += telemetry.get("cost_usd") or 0.0
            tokens += _total(telemetry["usage"].get("turn") or {})
    return usd, tokens


def _nano(usd: float | None) -> int | None:
    return None if usd is None else int(usd * _NANO)


def _total(usage: Mapping[str, int]) -> int:
    total = usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
    return usage.get("total_tokens") or total
