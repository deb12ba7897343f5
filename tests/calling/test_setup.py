"""How a worker is put together."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from beam_batch.calling.budget import worst_input
from beam_batch.calling.gate import GateSpec
from beam_batch.calling.pricing import make_pricer
from beam_batch.calling.setup import WindowSpec, make_ladder
from beam_batch.options import BudgetSpec, CallSpec, RepairSpec
from beam_batch.outputs.recording import RecordSpec
from beam_batch.outputs.stopping import StopFlag
from beam_batch.outputs.workdir import WorkDir
from beam_batch.providers import resolve_model


def test_the_dearest_tier_that_may_serve_is_set_aside_for_each_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-a-test")
    flex, priority, usual = (
        resolve_model(f"responses.gpt-5.4-mini?max_tokens=100&service_tier={tier}", {})
        for tier in ("flex", "priority", "default")
    )
    work = WorkDir(str(tmp_path / "work"))
    work.create()
    spec = WindowSpec(
        token="t",
        model=flex,
        instruction="",
        schema=None,
        call=CallSpec(),
        include_input=False,
        repair=RepairSpec(fallback=priority, flex_fallback=True),
        budget=BudgetSpec(max_cost=1.0),
        record=RecordSpec(work=work, session=1, stop=StopFlag(work, "stop")),
    )

    async def main() -> None:
        ladder = await make_ladder(spec, GateSpec(parallel=1), asyncio.Event())
        for caller, dearest in zip(ladder.callers, (usual, priority), strict=True):
            request = caller.to_request("", "a prompt")
            wanted = make_pricer(dearest, None).worst(worst_input(request), 100)
            assert caller.budget is not None
            assert caller.budget._worst(request).usd == pytest.approx(wanted)
        await ladder.close()

    asyncio.run(main())
    rates = [make_pricer(model, None).worst(1000, 100) for model in (usual, priority)]
    assert rates[0] != rates[1], "the tiers cost the same, so this shows nothing"
