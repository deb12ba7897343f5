"""Keys of requests, and replies as they are kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from beam_batch.errors import OptionsError
from beam_batch.options import ModelSpec, ReuseSpec
from beam_batch.providers.base import Reply, Request, Usage
from beam_batch.reuse.kept import KeptReply
from beam_batch.reuse.keys import request_key
from beam_batch.reuse.making import deduplicates
from tests.reuse.support import MODEL, kept

BODY: dict[str, Any] = {
    "model": "m",
    "temperature": 0,
    "messages": [
        {"role": "system", "content": "Classify."},
        {"role": "user", "content": "good"},
    ],
}


def key_of(spec: ModelSpec = MODEL, /, path: str = "/p", **changes: Any) -> bytes:
    return request_key(spec, Request(path, BODY | changes, False))


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 1},
        {"max_tokens": 5},
        {"model": "n"},
        {"messages": [*BODY["messages"], {"role": "user", "content": "more"}]},
        {"messages": [{"role": "system", "content": "Classify!"}, BODY["messages"][1]]},
        {"messages": [BODY["messages"][1], BODY["messages"][0]]},
        {"response_format": {"type": "json_schema"}},
        {"seed": 2**70},
        {"user": "a lone surrogate \ud800"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_key_differs_by_whatever_changes_an_answer(changes: dict[str, Any]) -> None:
    assert len(key_of()) == 16
    assert key_of(**changes) != key_of()
    assert key_of(**changes) == key_of(**changes)


@pytest.mark.parametrize(
    "changes", [{"provider": "generic"}, {"base_url": "http://y/v1"}, {"model": "n"}]
)
def test_a_key_differs_by_who_is_asked(changes: dict[str, Any]) -> None:
    assert key_of(dataclasses.replace(MODEL, **changes)) != key_of()


@pytest.mark.parametrize(
    "changes",
    [
        {"stream": True},
        {"stream_options": {"include_usage": True}},
        {"service_tier": "flex"},
        {"prompt_cache_key": "k"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_key_is_the_same_however_the_answer_comes(changes: dict[str, Any]) -> None:
    assert key_of(**changes) == key_of()
    nested = {"response_format": {"schema": {"properties": changes}}}
    assert key_of(**nested) != key_of(response_format={"schema": {"properties": {}}})


def test_a_key_differs_also_where_a_body_is_no_plain_json() -> None:
    keys = [key_of(seed=2**70), key_of(seed=2**71), key_of(user="\ud800"), key_of(user="\ud801")]
    assert len(set(keys)) == 4


def test_a_key_does_not_depend_on_order_path_or_account() -> None:
    turned = dict(reversed(BODY.items()))
    assert request_key(MODEL, Request("/p", turned, False)) == key_of()
    assert key_of(path="/models/m:streamGenerateContent?alt=sse") == key_of()
    other = dataclasses.replace(MODEL, key_env=("OTHER_KEY",), text="gpt", options={"transport": 1})
    assert key_of(other) == key_of()


def test_a_local_model_s_key_is_its_file_and_not_its_port(tmp_path: Path) -> None:
    weights = tmp_path / "w.gguf"
    weights.write_bytes(b"1")
    local = dataclasses.replace(MODEL, provider="local", model=str(weights))
    first = key_of(local)
    assert key_of(dataclasses.replace(local, base_url="http://127.0.0.1:5/v1")) == first
    assert key_of(dataclasses.replace(local, options={"slots": 4, "threads": 2})) == first
    assert key_of(dataclasses.replace(local, options={"ctx": 512})) != first
    weights.write_bytes(b"12")
    assert key_of(local) != first


def test_a_kept_reply_comes_back_as_it_was() -> None:
    bare = KeptReply(Reply("ä\n\U0001f600", "stop", None, None, Usage(), None), "a.b", 1.25)
    for one in (kept("x"), bare):
        assert KeptReply.decode(one.encode()) == one


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"{}", kept("x").encode()[:-4],
     kept("x").encode().replace(b'"usage"', b'"usages"'),
     kept("x").encode().replace(b'"text":"x"', b'"text":5')],
)  # fmt: skip
def test_what_is_no_kept_reply_is_none(data: bytes) -> None:
    assert KeptReply.decode(data) is None


def test_requests_are_deduplicated_unless_answers_are_samples_or_free() -> None:
    warm = dataclasses.replace(MODEL, options={"temperature": 0.7})
    cold = dataclasses.replace(MODEL, options={"temperature": 0.0})
    echo = dataclasses.replace(MODEL, provider="echo")
    assert [deduplicates(ReuseSpec(), m) for m in (MODEL, cold, warm, echo)] == [1, 1, 0, 0]
    assert all(deduplicates(ReuseSpec(dedupe=True), m) for m in (MODEL, warm, echo))
    assert not any(deduplicates(ReuseSpec(dedupe=False), m) for m in (MODEL, cold))


def test_settings_that_cannot_work_are_refused() -> None:
    for settings in ({"cache": ""}, {"cache_max_age": 3}, {"cache": "c", "cache_max_age": -1}):
        with pytest.raises(OptionsError, match="--cache"):
            ReuseSpec(**settings)  # type: ignore[arg-type]
