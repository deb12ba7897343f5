"""What is said to whoever puts the wrong thing before a transform, or no key into a worker."""

from __future__ import annotations

import apache_beam as beam
import pytest
from apache_beam.ml.inference.base import RunInference

from beam_batch import CallModel, OpenAICompatibleModelHandler, RenderPrompts
from tests.transforms.support import pipeline

NO_KEY = "the environment variable OPENAI_API_KEY there"


def test_text_where_prompts_should_be_is_named() -> None:
    with pytest.raises(Exception, match="takes prompts, got str: put Render"), pipeline() as p:
        p | beam.Create(["x"]) | CallModel("echo")


def test_a_worker_without_the_key_says_which_before_it_sends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    handler = OpenAICompatibleModelHandler("openai.m")
    with pytest.raises(Exception, match=NO_KEY), pipeline() as p:
        (p | beam.Create([{"a": 1}]) | RenderPrompts("{{a}}")).prompts | CallModel("openai.m")
    with pytest.raises(Exception, match=NO_KEY), pipeline() as p:
        p | beam.Create(["x"]) | RunInference(handler)
