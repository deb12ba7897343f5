"""Anthropic and Gemini: requests, replies, streams and what is less than an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from beam_batch import errors
from beam_batch.options import SchemaSpec
from beam_batch.providers import PROVIDERS, headers, make_provider, resolve_model
from beam_batch.providers.base import Provider
from beam_batch.providers.failing import to_error
from beam_batch.records import Image

SHAPE = {"type": "object", "properties": {"a": {"type": "string"}}}
SCHEMA = SchemaSpec(json=json.dumps(SHAPE), name="out")
PNG = Image(None, "image/png", "aGk=")
LINK = Image("https://example.org/a.png", None, None)


def _provider(model: str, schema: SchemaSpec | None = None) -> Provider:
    return make_provider(resolve_model(model, {}), schema)


def _streamed(provider: Provider, events: list[dict[str, Any]]) -> tuple[list[bool], Any]:
    reader = provider.new_stream()
    begun = [reader.feed(event) for event in events]
    return begun, reader.result()


def test_an_anthropic_request_marks_the_stable_part_for_the_cache() -> None:
    provider = _provider("anthropic.claude-x?reasoning=low&max_tokens=9&top_k=3", SCHEMA)
    request = provider.to_request("Do it.", ("See ", PNG, LINK))
    assert request.path == "/messages"
    assert request.body == {
        "model": "claude-x",
        "max_tokens": 9,
        "thinking": {"type": "adaptive"},
        "output_config": {"format": {"type": "json_schema", "schema": SHAPE}, "effort": "low"},
        "top_k": 3,
        "system": [{"type": "text", "text": "Do it.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "See "},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
                    },
                    {"type": "image", "source": {"type": "url", "url": LINK.url}},
                ],
            }
        ],
    }


def _message(**changes: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 5,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 20,
        "output_tokens": 7,
        "service_tier": "standard",
    }
    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}]
    base = {"id": "msg_1", "type": "message", "model": "claude-x-1", "content": content}
    return base | {"stop_reason": "end_turn", "usage": usage} | changes


def test_an_anthropic_reply_counts_cached_tokens_among_the_input() -> None:
    reply = _provider("claude-x").to_reply(_message())
    assert (reply.text, reply.finish_reason, reply.model) == ("yes", "end_turn", "claude-x-1")
    assert reply.service_tier == "standard"
    assert reply.usage.as_dict() == {
        "input_tokens": 125,
        "output_tokens": 7,
        "total_tokens": 132,
        "cached_tokens": 100,
        "cache_write_tokens": 20,
    }


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"stop_reason": "refusal"}, errors.Refused),
        ({"stop_reason": "max_tokens"}, errors.Truncated),
        ({"stop_reason": "pause_turn"}, errors.Truncated),
        ({"content": []}, errors.EmptyReply),
        ({"stop_reason": "tool_use"}, errors.InvalidResponse),
        ({"content": None}, errors.InvalidResponse),
        ({"type": "error", "error": {"type": "overloaded_error"}}, errors.ServerError),
    ],
)
def test_an_anthropic_answer_that_is_none_has_a_name(
    changes: dict[str, Any], kind: type[errors.RowError]
) -> None:
    with pytest.raises(kind):
        _provider("claude-x").to_reply(_message(**changes))


def test_an_anthropic_stream_becomes_the_same_message() -> None:
    provider = _provider("claude-x?transport=sse")
    whole = _message(content=[{"type": "text", "text": "yes sir"}])
    start = {**whole, "content": [], "stop_reason": None, "usage": {"input_tokens": 5}}
    delta = {"type": "text_delta", "text": "yes "}
    begun, body = _streamed(
        provider,
        [
            {"type": "message_start", "message": start},
            {"type": "ping"},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_delta", "index": 0, "delta": {**delta, "text": "sir"}},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": {"output_tokens": 7},
            },
            {"type": "message_stop"},
        ],
    )
    assert begun == [False, False, True, True, True, True]
    reply = provider.to_reply(body)
    assert (reply.text, reply.usage.output_tokens, reply.usage.input_tokens) == ("yes sir", 7, 5)
    with pytest.raises(errors.ConnectionLost):
        _streamed(provider, [{"type": "message_start", "message": start}])


def test_a_gemini_request_has_its_own_names() -> None:
    provider = _provider("google.gemini-x?max_tokens=9&reasoning=low&temperature=0", SCHEMA)
    request = provider.to_request("Do it.", ("See ", PNG, LINK))
    assert request.path == "/models/gemini-x:generateContent"
    assert request.body == {
        "generationConfig": {
            "temperature": 0.0,
            "maxOutputTokens": 9,
            "responseMimeType": "application/json",
            "responseJsonSchema": SHAPE,
            "thinkingConfig": {"thinkingLevel": "low"},
        },
        "systemInstruction": {"parts": [{"text": "Do it."}]},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "See "},
                    {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
                    {"fileData": {"fileUri": LINK.url}},
                ],
            }
        ],
    }
    assert _provider("gemini-x?transport=sse").to_request("", "").path.endswith("?alt=sse")


def _content(text: str = "yes", reason: str | None = "STOP", **more: Any) -> dict[str, Any]:
    parts = [{"text": "hm", "thought": True}, {"text": text}]
    usage = {
        "promptTokenCount": 5, "candidatesTokenCount": 3, "thoughtsTokenCount": 4,
        "totalTokenCount": 12, "cachedContentTokenCount": 2,
    }  # fmt: skip
    candidate = {"content": {"parts": parts}, "finishReason": reason}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-x-1"} | more


def test_a_gemini_reply_counts_thoughts_as_output() -> None:
    reply = _provider("gemini-x").to_reply(_content())
    assert (reply.text, reply.finish_reason, reply.model) == ("yes", "STOP", "gemini-x-1")
    assert reply.usage.as_dict() == {
        "input_tokens": 5,
        "output_tokens": 7,
        "total_tokens": 12,
        "cached_tokens": 2,
        "reasoning_tokens": 4,
    }


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (_content(reason="MAX_TOKENS"), errors.Truncated),
        (_content(reason="SAFETY"), errors.ContentFiltered),
        (_content(text=""), errors.EmptyReply),
        (_content(reason="OTHER"), errors.InvalidResponse),
        (_content(candidates=[], promptFeedback={"blockReason": "SAFETY"}), errors.Refused),
        (_content(candidates=[]), errors.InvalidResponse),
        ({"error": {"code": 500}}, errors.ServerError),
        ([], errors.InvalidResponse),
    ],
)
def test_a_gemini_answer_that_is_none_has_a_name(body: Any, kind: type[errors.RowError]) -> None:
    with pytest.raises(kind):
        _provider("gemini-x").to_reply(body)


def test_a_gemini_stream_becomes_the_same_response() -> None:
    provider = _provider("gemini-x?transport=sse")
    begun, body = _streamed(provider, [_content("yes ", None), _content("sir")])
    assert begun == [True, True]
    assert provider.to_reply(body).text == "yes sir"
    with pytest.raises(errors.ConnectionLost):
        _streamed(provider, [_content("yes ", None)])


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [
        ("claude-x", "x-api-key", "k"),
        ("gemini-x", "x-goog-api-key", "k"),
        ("grok-4", "Authorization", "Bearer k"),
        ("openrouter.a/b", "Authorization", "Bearer k"),
        ("hf.a/b:fastest", "Authorization", "Bearer k"),
    ],
)
def test_each_provider_gets_its_key_in_its_own_header(model: str, name: str, value: str) -> None:
    assert headers(resolve_model(model, {}), "k", {})[name] == value


def test_names_of_models_and_providers_have_other_forms() -> None:
    assert resolve_model("grok.grok-4", {}).provider == "xai"
    assert resolve_model("gemini/gemini-x", {}).provider == "google"
    assert resolve_model("hf.a/b:fastest", {}).model == "a/b:fastest"
    with pytest.raises(errors.OptionsError, match="AZURE_OPENAI_BASE_URL"):
        resolve_model("azure.deployment", {})


def test_what_ends_a_run_is_known_in_every_provider_s_words() -> None:
    google = {"error": {"code": 400, "message": "bad", "details": [{"reason": "API_KEY_INVALID"}]}}
    assert isinstance(to_error(400, {}, json.dumps(google).encode(), None), errors.FatalReply)
    assert isinstance(to_error(402, {}, b"{}", None), errors.FatalReply)
    missing = {
        "type": "error",
        "error": {"type": "not_found_error", "message": "model: x not_found"},
    }
    assert isinstance(to_error(404, {}, json.dumps(missing).encode(), None), errors.FatalReply)


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_every_provider_builds_a_request(name: str) -> None:
    env = {"AZURE_OPENAI_BASE_URL": "https://x.openai.azure.com/openai/v1"}
    provider = make_provider(resolve_model(f"{name}.m", env), SCHEMA)
    assert provider.to_request("Do it.", "Hello").body
