"""A worker's part of the limits, while other workers come and go."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from beam_batch.calling.gate import AUTO_MOST, GateSpec
from beam_batch.outputs.seats import Seat

if TYPE_CHECKING:
    from beam_batch.calling.setup import WindowSpec

PARTS = 840
"""Units into which the limits of a run are cut where no number of requests is set."""
IDLE_AFTER = 3
"""Steps without a row after which a worker leaves its units to others."""


def whole(spec: WindowSpec) -> GateSpec:
    """Return the limits of the run."""
    call, most = spec.call, AUTO_MOST
    if spec.model.provider == "local":  # more would only wait inside this machine
        most = 2 * int(spec.model.options["slots"])
    return GateSpec(parallel=call.parallel, most=most, rpm=call.rpm, tpm=call.tpm)


class Share:
    """A seat, as limits of a gate.

    A unit is one request in flight; with `auto` it is one part of 840 of everything.
    """

    def __init__(self, limits: GateSpec, seat: Seat) -> None:
        self._whole = limits
        self._seat = seat
        self._total = total_of(limits)
        self._idle = 0
        self.limits = self._part(0)

    @property
    def seconds(self) -> float:
        """Time from one step to the next."""
        return self._seat.interval

    def step(self, in_flight: int, rows: int) -> GateSpec:
        """Renew the part; waits for the place.

        Args:
            in_flight: requests now; no more come to it meanwhile than `limits` allows.
            rows: rows that the worker has to answer.
        """
        self._idle = 0 if rows else self._idle + 1
        units = self._seat.step(self._units(in_flight), self._idle <= IDLE_AFTER)
        self.limits = self._part(units)
        return self.limits

    @property
    def is_cut_off(self) -> bool:
        """Whether the work directory has not answered for long."""
        return self._seat.is_cut_off

    def close(self) -> None:
        """Leave the part to others."""
        self._seat.close()

    def _units(self, in_flight: int) -> int:
        """Return the least number of units that allow so many requests."""
        if self._whole.parallel is not None or in_flight <= 1:
            return in_flight
        return min(self._total, -(-in_flight * self._total // self._whole.most))

    def _part(self, units: int) -> GateSpec:
        limits, share = self._whole, units / self._total
        if not units:
            return dataclasses.replace(limits, share=0.0, until=self._seat.until)
        return dataclasses.replace(
            limits,
            parallel=None if limits.parallel is None else units,
            most=max(1, limits.most * units // self._total),
            rpm=limits.rpm and limits.rpm * share,
            tpm=limits.tpm and limits.tpm * share,
            share=share,
            until=self._seat.until,
        )


def total_of(limits: GateSpec) -> int:
    """Return the number of units of a run."""
    return PARTS if limits.parallel is None else limits.parallel


def open_share(spec: WindowSpec) -> Share | None:
    """Take a seat, unless there is nobody to divide with.

    In a store there may be: a worker that was held up for long, while another session began.
    """
    if spec.record is None or (spec.alone and spec.record.work.is_folder):
        return None
    limits = whole(spec)
    share = Share(limits, Seat(spec.record.work.place, spec.record.session, total_of(limits)))
    share.step(0, 1)
    return share
