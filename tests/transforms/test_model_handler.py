"""OpenAICompatibleModelHandler in Beam's own RunInference."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
import pytest
from apache_beam.ml.inference.base import RunInference

from beam_batch import (
    BudgetSpec,
    CallSpec,
    OpenAICompatibleModelHandler,
    OptionsError,
    RepairSpec,
    SchemaSpec,
)
from tests.fakes import Answer
from tests.transforms.support import expect, pipeline, saying, serving


def _told(result: Any) -> tuple[Any, ...]:
    found = result.inference
    return (
        str(result.example)[:12],
        found["ok"],
        found["result"],
        (found["error"] or {}).get("type"),
    )


def test_texts_dicts_and_rows_are_answered_and_failures_end_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = {
        "good": Answer(),
        "cut": Answer(finish_reason="length"),
        "a dict": Answer(text="yes"),
    }
    elements = ["good", "cut", {"text": "a dict"}, {"none": 1}]
    with serving(monkeypatch, saying(answers)) as server, pipeline() as p:
        handler = OpenAICompatibleModelHandler("generic.m", template="{{text}}")
        results = p | beam.Create(elements) | RunInference(handler)
        expect(
            results | beam.Map(_told),
            [
                ("good", True, "good", None),
                ("cut", False, None, "Truncated"),
                ("{'text': 'a ", True, "yes", None),
                ("{'none': 1}", False, None, "MissingTemplateField"),
            ],
        )
    assert server.requests == 3


def test_each_result_stands_by_its_element_and_tells_what_it_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def script(number: int, body: dict[str, Any]) -> Answer:
        return Answer(status=503 if number == 2 else 200)

    texts = [f"text {number}" for number in range(40)]
    with serving(monkeypatch, script, delay=0.01) as server, pipeline() as p:
        call = CallSpec(parallel=4, retry_wait=0.01)
        handler = OpenAICompatibleModelHandler("generic.m", call=call)
        results = p | beam.Create(texts, reshuffle=False) | RunInference(handler)
        expect(
            results | beam.Map(lambda r: (r.example, r.inference["result"], r.model_id)),
            [(text, text, "generic.m") for text in texts],
        )
        attempts = results | beam.Map(lambda r: r.inference["attempts"]) | beam.CombineGlobally(sum)
        expect(attempts, [41], "Attempts")
        usage = results | "Usage" >> beam.Map(lambda r: r.inference["usage"]["output_tokens"])
        expect(usage, [2] * 40, "Tokens")
    assert server.requests == 41
    assert 2 <= server.most_in_flight <= 4


def test_a_schema_and_a_second_question_work_as_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(number: int, body: dict[str, Any]) -> Answer:
        return Answer(text='{"n": "one"}' if number == 1 else '{"n": 1}')

    schema = SchemaSpec(json='{"type": "object", "properties": {"n": {"type": "integer"}}}')
    with serving(monkeypatch, script), pipeline() as p:
        handler = OpenAICompatibleModelHandler(
            "generic.m", schema=schema, repair=RepairSpec(reask=1)
        )
        results = p | beam.Create(["x"]) | RunInference(handler)
        expect(results | beam.Map(lambda r: r.inference["result"]), [{"n": 1}])


def test_a_refused_key_raises_or_goes_to_the_failures_of_run_inference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(monkeypatch, lambda *_: Answer(status=401)) as server:
        with pytest.raises(Exception, match="401"), pipeline() as p:
            p | beam.Create(["x"]) | RunInference(OpenAICompatibleModelHandler("generic.m"))
        assert server.requests >= 1
        with pipeline() as p:
            _, failures = (
                p
                | beam.Create(["y"])
                | RunInference(OpenAICompatibleModelHandler("generic.m")).with_exception_handling()
            )
            expect(failures.failed_inferences | beam.Map(lambda failed: failed[0]), [["y"]])


def test_what_only_a_run_can_do_is_refused() -> None:
    with pytest.raises(OptionsError, match="caps"):
        OpenAICompatibleModelHandler("echo", budget=BudgetSpec(max_cost=1.0))
    with pytest.raises(OptionsError, match="inference_args"), pipeline() as p:
        (
            p
            | beam.Create(["x"])
            | RunInference(OpenAICompatibleModelHandler("echo"), inference_args={"temperature": 1})
        )
