"""The ledger of a run in an object store: each worker spends from an allowance of its own.

An allowance is carved out of the cap as a seat takes its units (see `seats`): written first, used
only if all of them together are within the cap. It is for many requests at once, and for fewer as
the cap comes near, so that few requests wait for the store.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from beam_batch.outputs.ledger import Balance, Sum
from beam_batch.outputs.roll import Clock, Roll
from beam_batch.places import Place

PREFIX = "ledger-"
CHUNK = 64
"""Requests at their worst for which an allowance is asked at once."""
_NO_CAP = 1 << 62

Values = Mapping[str, Any]


class Allowance:
    """A worker's part of the ledger; `refill`, `renew`, `charge_reserved` and `close` wait.

    In the store: `held`, what it may come to have spent; `used`, how much of that is confirmed;
    `spent`; and, in that of a driver, whose objects are counted in it (`carries`).
    """

    waits = True

    def __init__(
        self,
        place: Place,
        caps: tuple[int | None, int | None],
        clock: Clock = time.monotonic,
    ) -> None:
        self._caps = Sum(*(_NO_CAP if cap is None else cap for cap in caps))
        self._roll = Roll(place, PREFIX, clock)
        self._one = threading.Lock()
        self._at_place = threading.Lock()
        self._spent = self._reserved = self._allowed = self._claim = Sum(0, 0)
        self._elsewhere = Balance(Sum(0, 0), Sum(0, 0))
        self._written: dict[str, Any] = {}
        self._carries: list[str] = []
        self._is_idle = True
        self._is_there = False

    def reserve(self, worst: Sum) -> Balance | None:
        """Set the worst case of a request aside, or return the balance that leaves no room."""
        with self._one:
            needed = _plus(self._used, worst)
            if _fits(needed, self._allowed):
                self._reserved = _plus(self._reserved, worst)
                self._is_idle = False
                return None
            spent, reserved = self._elsewhere
            return Balance(_plus(self._spent, spent), _plus(self._reserved, reserved))

    def settle(self, worst: Sum, actual: Sum) -> None:
        """Replace what was set aside for a request by what it has cost."""
        with self._one:
            self._spent = _plus(self._spent, actual)
            self._reserved = _minus(self._reserved, worst)

    def refill(self, worst: Sum) -> Balance | None:
        """Set a worst case aside, once an allowance is there that it fits into.

        Else what is idle is left to others.

        Raises:
            OSError: the place cannot be used.
        """
        with self._at_place:
            while self._claim_more(worst):
                pass
            return self.reserve(worst)  # before anybody gives back what is not used

    def renew(self) -> None:
        """Publish what was spent; leave to others what was not asked for since the last time."""
        with self._at_place:
            if not self._is_there:
                return
            with self._one:
                if self._is_idle:
                    self._allowed = self._used
                self._is_idle = True
            self._write(self._allowed)

    def charge_reserved(self) -> None:
        """Take over what all others have spent, and what they may have: no worker is left."""
        with self._at_place:
            others = self._read_all()
            with self._one:
                for values, _ in others.values():
                    self._spent = _plus(self._spent, Sum(*values["held"]))
                self._allowed = self._used
                self._elsewhere = Balance(Sum(0, 0), Sum(0, 0))
            self._carries = sorted(others)
            self._write(self._allowed)
            self._roll.remove(others)

    def close(self) -> None:
        """Publish what was spent, and leave the rest to others."""
        with self._at_place:
            with self._one:
                self._allowed = self._used
            if self._is_there or any(self._used):
                self._write(self._allowed)

    @property
    def _used(self) -> Sum:
        """What is spent or set aside here."""
        return _plus(self._spent, self._reserved)

    def _claim_more(self, worst: Sum) -> bool:
        """Confirm what was written before, and write what is needed now; whether that is more."""
        others = self._read_all()
        certain = taken = Sum(0, 0)
        for name, (values, _) in others.items():
            taken = _plus(taken, Sum(*values["held"]))
            first = "held" if name < self._roll.id else "used"
            certain = _plus(certain, Sum(*values[first]))
        self._elsewhere = _balance(others)
        before = self._claim
        with self._one:
            if _fits(_plus(before, taken), self._caps):
                self._allowed = before
            needed = _plus(self._used, worst)
            if _fits(needed, self._allowed):
                return False
            room = _minus(self._caps, certain)
            if _fits(needed, room):
                claim = _most(self._allowed, _wanted(needed, worst, room, len(others) + 1))
            else:
                claim = self._allowed = self._used
        self._write(claim)
        return not _fits(claim, before)

    def _read_all(self) -> dict[str, tuple[Values, bool]]:
        """Read what others have, and whether they live; what a driver carries is there once."""
        living, dead = self._roll.look()
        both = {name: (it, True) for name, it in living.items()}
        both |= {name: (it, False) for name, it in dead.items()}
        carried = {name for values, _ in both.values() for name in values["carries"]}
        carried.update(self._carries)
        return {name: found for name, found in both.items() if name not in carried}

    def _write(self, claim: Sum) -> None:
        """Write a claim, which is never less than what is spent and set aside."""
        with self._one:
            values: dict[str, Any] = {
                "held": _most(claim, self._used),
                "used": _most(self._allowed, self._used),
                "spent": self._spent,
                "carries": self._carries,
            }
        if values != self._written or self._roll.is_due:
            self._claim = _least(self._claim, values["held"])  # a put that fails may have landed
            self._is_there, self._written = True, {}
            self._roll.put(values)
            self._written = values
        self._claim = values["held"]


def _wanted(needed: Sum, worst: Sum, room: Sum, workers: int) -> Sum:
    """Return what to claim: many requests' worth, but of a small rest no more than a part."""
    many = Sum(*(need + (CHUNK - 1) * one for need, one in zip(needed, worst, strict=True)))
    part = Sum(
        *(need + (left - need) // (2 * workers) for need, left in zip(needed, room, strict=True))
    )
    return _least(many, part)


def _balance(others: Mapping[str, tuple[Values, bool]]) -> Balance:
    """Add up what others have; what the dead had left may have been paid as well."""
    spent = reserved = Sum(0, 0)
    for values, lives in others.values():
        known = Sum(*values["spent" if lives else "held"])
        spent = _plus(spent, known)
        reserved = _plus(reserved, _minus(Sum(*values["held"]), known))
    return Balance(spent, reserved)


def _plus(a: Sum, b: Sum) -> Sum:
    return Sum(a.nano_usd + b.nano_usd, a.tokens + b.tokens)


def _minus(a: Sum, b: Sum) -> Sum:
    return Sum(a.nano_usd - b.nano_usd, a.tokens - b.tokens)


def _fits(a: Sum, b: Sum) -> bool:
    return a.nano_usd <= b.nano_usd and a.tokens <= b.tokens


def _most(a: Sum, b: Sum) -> Sum:
    return Sum(max(a.nano_usd, b.nano_usd), max(a.tokens, b.tokens))


def _least(a: Sum, b: Sum) -> Sum:
    return Sum(min(a.nano_usd, b.nano_usd), min(a.tokens, b.tokens))
