"""Beam's metrics: what every runner's page shows of a pipeline."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
import pytest
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.ml.inference.base import RunInference

from beam_batch import (
    BudgetSpec,
    CallModel,
    CallSpec,
    OpenAICompatibleModelHandler,
    PriceSpec,
    RenderPrompts,
)
from tests.fakes import Answer
from tests.transforms.support import pipeline, serving

PRICE = BudgetSpec(price=PriceSpec(input=100, output=1000))
EXPECTED = {
    "rows_ok": 300, "rows_failed": 1, "requests": 302, "retries": 1,
    "input_tokens": 1505, "output_tokens": 602,
    "cost_micro_usd": 1505 * 100 + 602 * 1000,
}  # fmt: skip


def _script(number: int, body: dict[str, Any]) -> Answer:
    if number == 5:
        return Answer(status=503)
    prompt = body["messages"][-1]["content"]
    return Answer(finish_reason="length" if prompt == "row 7" else "stop")


def _shown(result: Any) -> tuple[dict[str, int], dict[str, Any]]:
    found = result.metrics().query(MetricsFilter().with_namespace("beam_batch"))
    return (
        {counter.key.metric.name: counter.committed for counter in found["counters"]},
        {told.key.metric.name: told.committed for told in found["distributions"]},
    )


def _check(result: Any, delay_ms: int) -> None:
    counters, distributions = _shown(result)
    assert {name: counters[name] for name in EXPECTED} == EXPECTED
    assert distributions["row_tokens"].count == 301
    assert distributions["row_tokens"].sum == 1505 + 602
    assert distributions["latency_ms"].count == 301
    assert distributions["latency_ms"].min >= delay_ms


def test_call_model_counts_rows_tokens_money_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    call = CallSpec(parallel=64, retry_wait=0.01)
    with serving(monkeypatch, _script, delay=0.02):
        p = pipeline()
        prompts = p | beam.Create([{"n": n} for n in range(301)]) | RenderPrompts("row {{n}}")
        prompts.prompts | CallModel("generic.m", call=call, budget=PRICE)
        result = p.run()
        result.wait_until_finish()
    _check(result, 20)


def test_run_inference_counts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    call = CallSpec(parallel=64, retry_wait=0.01)
    with serving(monkeypatch, _script, delay=0.02):
        p = pipeline()
        handler = OpenAICompatibleModelHandler("generic.m", call=call, budget=PRICE)
        p | beam.Create([f"row {n}" for n in range(301)]) | RunInference(handler)
        result = p.run()
        result.wait_until_finish()
    _check(result, 20)
