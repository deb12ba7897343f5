"""Seats: the worker processes of a session divide what a limit allows, on any number of machines.

A seat is an object that says how many units its owner may come to use. The places that all can
see know no transactions, so nobody takes anything: whoever wants more first writes how much, then
reads what all others have written, and uses it only if all of it together is within the total.
Whoever wants less stops using it first, and writes that afterwards. Of two that write at once, at
least the later one reads the other, so what is used never passes the total.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from beam_batch.outputs.roll import BEAT, LOOK, TTL, Clock, Roll
from beam_batch.places import Place

FOLDER = "seats/"


class Seat:
    """One worker's units of a session's total, none at first.

    All methods but the constructor wait for the place.

    Attributes:
        held: units that may be used, until `until`.
        interval: seconds from one step to the next.
    """

    def __init__(
        self, place: Place, session: int, total: int, clock: Clock = time.monotonic
    ) -> None:
        self._total = total
        self._roll = Roll(place, f"{FOLDER}{session:04d}-", clock)
        self._clock = clock
        self._failing_since: float | None = None
        self._claim = 0
        self._written: tuple[int, int, bool] | None = None
        self.held = 0
        self.interval = LOOK if place.is_folder else BEAT

    @property
    def until(self) -> float:
        """When, by the clock, the units may be others' unless a step has renewed them."""
        return self._roll.until

    @property
    def is_cut_off(self) -> bool:
        """Whether the place has answered no step for long."""
        return self._failing_since is not None and self._clock() - self._failing_since >= TTL

    def step(self, in_use: int, wanted: bool = True) -> int:
        """Give, take and renew units; return how many may be used from now on.

        Args:
            in_use: units in use now. Until this returns, no more may come into use than the larger
                of this and what the step before returned.
            wanted: whether there is work for them; else they are left to others.

        Where the place does not answer, nothing changes but that `until` comes nearer.
        """
        if self._roll.is_lost:
            self._roll.renew()
            self.held = self._claim = 0
            self._written = None
        busy = max(in_use, self.held)
        try:
            if self._written is None:  # a newcomer is seen before it sees others
                self._write(busy, wanted)
            while self._claim_more(busy, wanted):
                pass
            self._failing_since = None
        except OSError:
            if self._failing_since is None:
                self._failing_since = self._clock()
        return 0 if self._roll.is_lost else self.held

    def close(self) -> None:
        """Leave all units to others; nothing may be in use any more."""
        self.held = self._claim = 0
        self._roll.leave()

    def _claim_more(self, busy: int, wanted: bool) -> bool:
        """Confirm what was written before, and write what is wanted now; whether that is more."""
        others = self._roll.others()
        share = self._share(others) if wanted else 0
        self.held = min(self.held, share)
        if self._claim + sum(other["held"] for other in others.values()) <= self._total:
            self.held = min(self._claim, share)
        room = self._total - sum(self._certain(name, other) for name, other in others.items())
        before, claim = self._claim, max(busy, self.held, min(share, room))
        if (claim, self.held, wanted) != self._written or self._roll.is_due:
            self._write(claim, wanted)
        return claim > before

    def _share(self, others: Mapping[str, Mapping[str, Any]]) -> int:
        """Return this one's part of the total; what cannot be divided goes to the first by name."""
        names = sorted([self._roll.id, *(name for name, it in others.items() if it["wanted"])])
        index = names.index(self._roll.id)
        return self._total // len(names) + (index < self._total % len(names))

    def _certain(self, name: str, other: Mapping[str, Any]) -> int:
        """Return what another will have: of those that want more at once, the first gets it."""
        return int(other["held"] if name < self._roll.id else other["used"])

    def _write(self, claim: int, wanted: bool) -> None:
        written = claim, self.held, wanted
        self._written = None  # a put that fails may have landed: what is there is not known
        self._roll.put({"held": claim, "used": self.held, "wanted": wanted})
        self._claim, self._written = claim, written
