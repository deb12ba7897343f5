"""Requests, replies, streams, errors and model strings, as pure functions."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from beam_batch import errors
from beam_batch.options import SchemaSpec
from beam_batch.providers import headers, make_provider, read_key, resolve_model
from beam_batch.providers.failing import retry_after, to_error
from beam_batch.redaction import redact

SCHEMA = SchemaSpec(
    json=json.dumps({"type": "object", "properties": {"a": {"type": "string"}}}), name="out"
)
STRICT = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}


def _body(model: str, schema: SchemaSpec | None = None) -> dict[str, Any]:
    return make_provider(resolve_model(model, {}), schema).to_request("Do it.", "Hello").body


def test_a_responses_request_carries_every_option() -> None:
    model = (
        "responses.gpt-5.5?reasoning=low&verbosity=med&max_tokens=5&service_tier=fast"
        "&web_search=on&temp=0.5&top_p=1"
    )
    assert _body(model, SCHEMA) == {
        "model": "gpt-5.5",
        "store": False,
        "reasoning": {"effort": "low"},
        "text": {
            "verbosity": "medium",
            "format": {"type": "json_schema", "name": "out", "schema": STRICT, "strict": True},
        },
        "max_output_tokens": 16,
        "service_tier": "priority",
        "tools": [{"type": "web_search"}],
        "include": ["web_search_call.action.sources"],
        "temperature": 0.5,
        "top_p": 1.0,
        "instructions": "Do it.",
        "input": "Hello",
    }


def test_chat_requests_differ_between_openai_generic_and_local() -> None:
    messages = [{"role": "system", "content": "Do it."}, {"role": "user", "content": "Hello"}]
    openai = _body("openai.m?max_tokens=9&reasoning=high", SCHEMA)
    assert openai == {
        "model": "m",
        "max_completion_tokens": 9,
        "reasoning_effort": "high",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "out", "schema": STRICT, "strict": True},
        },
        "messages": messages,
    }
    generic = _body("generic.org/m:v1?max_tokens=9&repetition_penalty=1.1", SCHEMA)
    assert generic["model"] == "org/m:v1"
    assert generic["max_tokens"] == 9
    assert generic["repetition_penalty"] == 1.1
    assert generic["response_format"]["json_schema"]["schema"] == json.loads(SCHEMA.json)
    local = _body("local.smollm2?repetition_penalty=1.1&slots=2")
    assert local["repeat_penalty"] == 1.1
    assert "slots" not in local


def test_requests_do_not_share_state() -> None:
    provider = make_provider(resolve_model("openai.m", {}), None)
    first = provider.to_request("i", "one").body
    first["messages"].append("changed")
    first["model"] = "changed"
    second = provider.to_request("i", "two").body
    assert second["model"] == "m"
    assert len(second["messages"]) == 2


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"status": "incomplete", "incomplete_details": None}, errors.Truncated),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
         errors.ContentFiltered),
        ({"status": "failed", "error": {"code": "server_error", "message": "x"}},
         errors.ServerError),
        ({"status": "failed", "error": {"code": "invalid_prompt", "message": "x"}},
         errors.RequestRejected),
        ({"status": "queued"}, errors.InvalidResponse),
        ({"output": []}, errors.EmptyReply),
        ({"output": "no"}, errors.InvalidResponse),
        ({"output": [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]},
         errors.Refused),
    ],
)  # fmt: skip
def test_an_incomplete_response_is_a_failure_with_its_tokens(
    changes: dict[str, Any], error: type[Exception]
) -> None:
    body: dict[str, Any] = {
        "id": "r1",
        "model": "m-1",
        "status": "completed",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}],
        "usage": {
            "input_tokens": 2,
            "output_tokens": 1,
            "total_tokens": 3,
            "input_tokens_details": {"cached_tokens": 1},
        },
    }
    provider = make_provider(resolve_model("responses.m", {}), None)
    reply = provider.to_reply(body)
    assert (reply.text, reply.model, reply.usage.cached_tokens) == ("Hi", "m-1", 1)
    with pytest.raises(error) as caught:
        provider.to_reply(body | changes)
    if error is not errors.InvalidResponse or "status" in changes:
        assert caught.value.usage.total_tokens == 3  # type: ignore[attr-defined]


def test_openai_s_usage_counts_cache_writes() -> None:
    usage = {"input_tokens": 9, "input_tokens_details": {"cache_write_tokens": 4}}
    output = [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}]
    provider = make_provider(resolve_model("responses.m", {}), None)
    reply = provider.to_reply({"status": "completed", "output": output, "usage": usage})
    assert reply.usage.as_dict() == {"input_tokens": 9, "cache_write_tokens": 4}
    usage = {"prompt_tokens": 9, "prompt_tokens_details": {"cache_write_tokens": 4}}
    choices = [{"message": {"content": "Hi"}, "finish_reason": "stop"}]
    provider = make_provider(resolve_model("openai.m", {}), None)
    reply = provider.to_reply({"choices": choices, "usage": usage})
    assert reply.usage.as_dict() == {"input_tokens": 9, "cache_write_tokens": 4}


def test_a_responses_stream_gives_the_final_response() -> None:
    stream = make_provider(resolve_model("responses.m", {}), None).new_stream()
    assert stream.feed({"type": "response.created"}) is False
    assert stream.feed({"type": "response.output_text.delta", "delta": "H"}) is True
    with pytest.raises(errors.ConnectionLost):
        stream.result()
    stream.feed({"type": "response.completed", "response": {"id": "r"}})
    assert stream.result() == {"id": "r"}


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, {"message": "x"}, errors.FatalReply),
        (403, {"message": "x"}, errors.FatalReply),
        (404, {"message": "The model `m` does not exist"}, errors.FatalReply),
        (400, {"message": "x", "code": "model_not_found"}, errors.FatalReply),
        (429, {"message": "x", "type": "insufficient_quota"}, errors.FatalReply),
        (400, {"message": "x", "param": "text.format.schema"}, errors.FatalReply),
        (400, {"message": "x", "code": "invalid_json_schema"}, errors.FatalReply),
        (400, {"message": "x", "param": "input"}, errors.RequestRejected),
        (404, {"message": "no route"}, errors.RequestRejected),
        (307, {}, errors.RequestRejected),
        (429, {"message": "x"}, errors.RateLimited),
        (408, {}, errors.ServerError),
        (409, {}, errors.ServerError),
        (425, {}, errors.ServerError),
        (529, {}, errors.ServerError),
    ],
)
def test_a_status_has_one_meaning(status: int, body: Any, error: type[Exception]) -> None:
    assert type(to_error(status, {}, json.dumps({"error": body}).encode(), None)) is error


def test_the_wait_a_provider_asks_for_is_read_in_every_form() -> None:
    assert retry_after({"Retry-After": "2"}) == 2
    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert retry_after({"retry-after-ms": "250", "Retry-After": "9"}) == 0.25
    assert retry_after({"Retry-After": "soon"}) is None
    assert retry_after({}) is None
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < (retry_after({"Retry-After": soon}) or 0) <= 30
    assert retry_after({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0


def test_keys_are_taken_out_of_messages() -> None:
    text = redact("key secret-1, sk-abcdef123, Bearer abcdef.ghi", "secret-1")
    assert "secret-1" not in text
    assert "abcdef" not in text
    error = to_error(401, {}, b'{"error":{"message":"bad key secret-1"}}', "secret-1")
    assert "secret-1" not in str(error)


@pytest.mark.parametrize(
    ("text", "provider", "model"),
    [
        ("gpt-5.4-mini", "responses", "gpt-5.4-mini"),
        ("responses.gpt-5.4-mini", "responses", "gpt-5.4-mini"),
        ("openai/gpt-4.1", "openai", "gpt-4.1"),
        ("generic.meta/llama:8b", "generic", "meta/llama:8b"),
        ("local", "local", "smollm2"),
        ("local./data/x.gguf", "local", "/data/x.gguf"),
        ("local.hf://o/r/f.gguf?ctx=512", "local", "hf://o/r/f.gguf"),
        ("echo", "echo", "echo"),
    ],
)
def test_model_strings_name_a_provider_and_a_model(text: str, provider: str, model: str) -> None:
    spec = resolve_model(text, {})
    assert (spec.provider, spec.model) == (provider, model)


@pytest.mark.parametrize(
    "text",
    [
        "", "claude", "responses.", "responses.m?top_k=1", "openai.m?web_search=on",
        "generic.m?service_tier=flex", "echo?temperature=1", "openai.m?max_tokens=0",
        "openai.m?temperature=hot", "openai.m?reasoning=huge", "responses.m?web_search=maybe",
        "responses.m?reasoning", "azure.m?transport=websocket", "generic.m?transport=ws",
        "responses.m?transport=tcp",
    ],
)  # fmt: skip
def test_a_model_string_that_cannot_work_is_refused(text: str) -> None:
    with pytest.raises(errors.OptionsError, match="--model"):
        resolve_model(text, {})


def test_base_urls_and_keys_come_from_the_environment() -> None:
    env = {"OPENAI_BASE_URL": "http://h/v1/", "OPENAI_API_KEY": "k", "OPENAI_ORG_ID": "o"}
    spec = resolve_model("responses.m", env)
    assert spec.base_url == "http://h/v1"
    assert "k" not in repr(spec).replace("key_env", "").replace("tokens", "")[-4:]
    head = headers(spec, read_key(spec, env), env)
    assert head["Authorization"] == "Bearer k"
    assert head["OpenAI-Organization"] == "o"
    for url in ("ftp://h", "nonsense", "http://user:pw@h/v1"):
        with pytest.raises(errors.OptionsError, match="OPENAI_BASE_URL"):
            resolve_model("openai.m", {"OPENAI_BASE_URL": url})
