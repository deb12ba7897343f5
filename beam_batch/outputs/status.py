"""How a run is, from its work directory alone: for whoever sees that, on whichever machine."""

from __future__ import annotations

import os
import time
from typing import Any

from beam_batch import jsonio
from beam_batch.errors import OptionsError
from beam_batch.outputs.gauges import AT, BEGAN, gauges_of, total
from beam_batch.outputs.stopping import StopFlag
from beam_batch.outputs.workdir import (
    COMMIT,
    FINISHED,
    WorkDir,
    default_work_dir,
    settings_file,
)
from beam_batch.places import scheme_of

FRESH = 15.0
"""Seconds after which a worker that shows nothing new is held to be gone; it does so every two."""


def find_run(named: str) -> WorkDir | None:
    """Return the work directory that is named, or that of an output; None where that is finished.

    Raises:
        OptionsError: no run is there.
    """
    for path in (named, default_work_dir(named)):
        if os.path.isfile(path):  # an output
            continue
        remote = bool(scheme_of(path))
        work = (
            WorkDir(path, here=default_work_dir(path)) if remote else WorkDir(os.path.abspath(path))
        )
        if work.read_manifest() is not None:
            return work
    if not scheme_of(named) and settings_file(named).exists() and os.path.exists(named):
        return None
    raise OptionsError(
        f"{named}: no run is there; name the work directory, or the output, of one that has begun "
        "to send."
    )


def survey(work: WorkDir) -> dict[str, Any]:
    """Say how a run is.

    What workers show is some seconds old, and lacks what a killed one did after its last note. One
    that was killed is at work until FRESH seconds have passed, and one that is held up for longer
    is not. Both are measured against the clock of this machine, as are the rates and times of
    workers with clocks of their own.

    Returns: `state` (starting, at work, stopping, stopped, silent, finishing or finished) and its
    `reason`; `session`, its first is 1; of the plan `rows`, `kept` (answered by an earlier run) and
    `left`; `ok` of all sessions and `failed` of this one, which a resumed run sends again; `usd`,
    `requests`, `retries`, `input_tokens` and `output_tokens` of all sessions; `latency_ms`, a row's
    mean; `rows_per_s` of this session; its `workers` that are not gone, and what they have
    `in_flight`; `told_s`, seconds since a worker last wrote (None: none did).
    """
    manifest = work.read_manifest()
    assert manifest is not None
    session = manifest["session"]
    mine, every = gauges_of(work, session), total(gauges_of(work).values())
    now, living = total(mine.values()), _living(mine)
    in_flight = sum(int(gauge.get("in_flight", 0)) for gauge in living.values())
    failed = int(now.get("failed", 0) + now.get("unrenderable", 0))
    ok, kept, rows = int(every.get("ok", 0)), manifest.get("kept", 0), _rows(work, manifest["plan"])
    told = time.time() - max(gauge.get(AT, 0) for gauge in mine.values()) if mine else None
    state, reason = _state(work, manifest, in_flight, told)
    counts = ("requests", "retries", "input_tokens", "output_tokens")
    return {
        "state": state,
        "reason": reason,
        "session": session,
        "rows": rows,
        "kept": kept,
        "ok": ok,
        "failed": failed,
        "left": max(0, rows - kept - ok - failed),
        "in_flight": in_flight,
        "rows_per_s": _rate(now.get("ok", 0) + failed, mine),
        "usd": every.get("usd", 0.0),
        **{name: int(every.get(name, 0)) for name in counts},
        "latency_ms": round(every.get("latency_ms", 0) / max(1, every.get("asked_rows", 0)), 1),
        "told_s": None if told is None else round(told, 1),
        "workers": [_worker(name, gauge) for name, gauge in living.items() if "in_flight" in gauge],
    }


def show(found: dict[str, Any]) -> str:
    """Write what `survey` says for people."""
    reason = f": {found['reason']}" if found["reason"] else ""
    told = "" if found["told_s"] is None else f", workers wrote {found['told_s']:.0f} s ago"
    lines = [
        f"{found['state']}{reason}",
        f"session   {found['session']}{told}",
        f"rows      {found['rows']:,}: ok {found['ok'] + found['kept']:,}, failed "
        f"{found['failed']:,}, in flight {found['in_flight']:,}, left {found['left']:,}",
        f"speed     {found['rows_per_s']:,.1f} rows/s, {found['latency_ms']:,.0f} ms a row",
        f"requests  {found['requests']:,}, of them retries {found['retries']:,}",
        f"tokens    in {found['input_tokens']:,}, out {found['output_tokens']:,}",
        f"cost      {found['usd']:,.4f} USD",
    ]
    for worker in found["workers"]:
        lines.append(
            f"worker    {worker['name']}: ok {worker['ok']:,}, failed {worker['failed']:,}, in "
            f"flight {worker['in_flight']:,}, {worker['usd']:,.4f} USD"
        )
    return "\n".join(lines)


def _living(gauges: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Leave out what workers show that are gone."""
    now = time.time()
    return {name: gauge for name, gauge in gauges.items() if now - gauge.get(AT, 0) < FRESH}


def _rows(work: WorkDir, plan: str) -> int:
    data = work.place.get(f"{plan}/plan.json")
    return int(jsonio.loads(data)["selected_rows"]) if data is not None else 0


def _state(
    work: WorkDir, manifest: dict[str, Any], in_flight: int, told: float | None
) -> tuple[str, str]:
    """Return the state and, where there is one, its reason."""
    if work.place.get(FINISHED) is not None:
        return "finished", ""
    if work.place.get(COMMIT) is not None:
        return "finishing", "its files are being put in place"
    is_fresh = told is not None and told < FRESH
    flag = manifest.get("stop")  # those of earlier versions have none
    stopped = StopFlag(work, flag).read() if flag is not None else None
    if stopped is not None:
        return ("stopping" if in_flight else "stopped"), stopped[0]
    if told is None:
        return "starting", "no worker has written yet"
    if is_fresh:
        return "at work", ""
    return "silent", "it was killed, or its files are being put in place"


def _rate(rows: float, gauges: dict[str, dict[str, float]]) -> float:
    """Return rows a second, from the session's first note to its last."""
    if not gauges:
        return 0.0
    began = min(gauge.get(BEGAN, 0) for gauge in gauges.values())
    seconds = max(gauge.get(AT, 0) for gauge in gauges.values()) - began
    return round(rows / seconds, 1) if seconds > 0 else 0.0


def _worker(name: str, gauge: dict[str, float]) -> dict[str, Any]:
    return {
        "name": name.partition("-")[2],
        "ok": int(gauge.get("ok", 0)),
        "failed": int(gauge.get("failed", 0)),
        "in_flight": int(gauge["in_flight"]),
        "usd": gauge.get("usd", 0.0),
        "told_s": round(time.time() - gauge.get(AT, 0), 1),
    }
