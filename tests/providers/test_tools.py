"""Tools in each wire format: how they are offered, how calls are read, how results go back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from beam_batch.errors import EmptyReply, InvalidResponse, Truncated
from beam_batch.providers import make_provider, resolve_model
from beam_batch.providers.base import Provider, ToolResult, Tools, ToolSpec, Turn

ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})
CHAT = {
    "id": "x", "model": "m",
    "choices": [{"finish_reason": "tool_calls", "message": {
        "role": "assistant", "content": None, "reasoning_content": "hm",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
        ],
    }}],
}  # fmt: skip
RESPONSES = {
    "object": "response", "status": "completed", "id": "x", "model": "m",
    "output": [
        {"type": "reasoning", "id": "r0", "summary": []},
        {"type": "reasoning", "id": "r1", "summary": [], "encrypted_content": "e"},
        {"type": "function_call", "id": "f", "call_id": "c1", "name": "add",
         "arguments": '{"a": 1}'},
    ],
}  # fmt: skip
ANTHROPIC = {
    "type": "message", "stop_reason": "tool_use", "id": "x", "model": "m",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}},
    ],
}  # fmt: skip
GOOGLE = {
    "responseId": "x", "modelVersion": "m",
    "candidates": [{"finishReason": "STOP", "content": {"role": "model", "parts": [
        {"functionCall": {"name": "add", "args": {"a": 1}}, "thoughtSignature": "s"},
    ]}}],
}  # fmt: skip
BODIES = {
    "openai.m": CHAT, "generic.m": CHAT, "responses.m": RESPONSES, "anthropic.m": ANTHROPIC,
    "google.m": GOOGLE,
}  # fmt: skip
ENV = {"GENERIC_BASE_URL": "http://127.0.0.1:1/v1"}


def _provider(model: str, parallel: bool = True) -> Provider:
    return make_provider(resolve_model(model, ENV), None, Tools((ADD,), parallel))


@pytest.mark.parametrize("model", BODIES)
def test_calls_are_read_and_results_go_back_to_them(model: str) -> None:
    provider = _provider(model)
    reply = provider.to_reply(BODIES[model])
    (call,) = reply.calls
    assert call.name == "add"
    assert json.loads(call.arguments) == {"a": 1}
    turn = Turn(reply, (ToolResult(call, "two"),))
    body = json.dumps(provider.to_request("i", "p", (turn,)).body)
    assert '"two"' in body
    assert body.count("c1") == (0 if model == "google.m" else 2)


@pytest.mark.parametrize("model", BODIES)
def test_tools_stand_before_what_changes_from_row_to_row(model: str) -> None:
    first, second = (list(_provider(model).to_request("i", text).body) for text in ("a", "b"))
    assert first == second
    prompt = "input" if "input" in first else "contents" if "contents" in first else "messages"
    assert first.index("tools") < first.index(prompt)


@pytest.mark.parametrize("model", BODIES)
def test_without_tools_an_answer_of_calls_is_empty(model: str) -> None:
    with pytest.raises(EmptyReply):
        make_provider(resolve_model(model, ENV), None).to_reply(BODIES[model])


def _said(model: str) -> list[dict[str, Any]]:
    provider = _provider(model)
    reply = provider.to_reply(BODIES[model])
    turn = Turn(reply, (ToolResult(reply.calls[0], "no", True),), "go on")
    body = provider.to_request("i", "p", (turn,)).body
    found: list[dict[str, Any]] = body.get("input") or body.get("contents") or body["messages"]
    return found


def test_chat_writes_tool_messages_and_repeats_what_was_thought() -> None:
    *_, said, told, message = _said("generic.m")
    assert said["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert said["reasoning_content"] == "hm"
    assert told == {"role": "tool", "tool_call_id": "c1", "content": "no"}
    assert message == {"role": "user", "content": "go on"}


def test_responses_repeats_reasoning_only_where_it_is_encrypted() -> None:
    first, *said, told, message = _said("responses.m")
    assert first == {"role": "user", "content": "p"}
    assert [item["type"] for item in said] == ["reasoning", "function_call"]
    assert said[0]["encrypted_content"] == "e"
    assert told == {"type": "function_call_output", "call_id": "c1", "output": "no"}
    assert message == {"role": "user", "content": "go on"}
    assert (
        "reasoning.encrypted_content"
        in _provider("responses.gpt-5").to_request("i", "p").body["include"]
    )


def test_anthropic_repeats_its_blocks_and_marks_a_failed_tool() -> None:
    _, said, told = _said("anthropic.m")
    assert said == {"role": "assistant", "content": ANTHROPIC["content"]}
    result, text = told["content"]
    assert (result["tool_use_id"], result["is_error"]) == ("c1", True)
    assert text == {"type": "text", "text": "go on"}


def test_google_repeats_signatures_and_answers_by_name() -> None:
    _, said, told = _said("google.m")
    assert said["parts"][0]["thoughtSignature"] == "s"
    assert told["parts"][0]["functionResponse"] == {"name": "add", "response": {"error": "no"}}
    assert told["parts"][1] == {"text": "go on"}


@pytest.mark.parametrize("model", ["openai.m", "responses.m", "anthropic.m"])
def test_one_call_at_a_time_where_the_card_says_so(model: str) -> None:
    body = _provider(model, parallel=False).to_request("i", "p").body
    choice = body.get("tool_choice", {}).get("disable_parallel_tool_use")
    assert body.get("parallel_tool_calls") is False or choice is True


def _streamed(model: str, events: list[dict[str, Any]]) -> Any:
    provider = _provider(f"{model}?transport=sse")
    stream = provider.new_stream()
    for event in events:
        stream.feed(event)
    return provider.to_reply(stream.result())


def test_chat_puts_the_pieces_of_streamed_calls_together() -> None:
    def event(*calls: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {"choices": [{"delta": {"tool_calls": list(calls)}, "finish_reason": reason}]}

    reply = _streamed(
        "generic.m",
        [
            event({"index": 0, "id": "c1", "function": {"name": "add", "arguments": ""}}),
            event({"index": 1, "id": "c2", "function": {"name": "add", "arguments": "{}"}}),
            event({"index": 0, "function": {"arguments": '{"a"'}}),
            event({"index": 0, "function": {"arguments": ": 1}"}}, reason="tool_calls"),
        ],
    )
    assert [tuple(call) for call in reply.calls] == [
        ("c1", "add", '{"a": 1}'),
        ("c2", "add", "{}"),
    ]


def _delta(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def test_anthropic_puts_the_pieces_of_streamed_blocks_together() -> None:
    reply = _streamed(
        "anthropic.m",
        [
            {"type": "message_start", "message": {"model": "m", "id": "x"}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}},
            _delta(0, {"type": "thinking_delta", "thinking": "h"}),
            _delta(0, {"type": "signature_delta", "signature": "s"}),
            {"type": "content_block_start", "index": 1,
             "content_block": {"type": "tool_use", "id": "c1", "name": "add", "input": {}}},
            _delta(1, {"type": "input_json_delta", "partial_json": '{"a":'}),
            _delta(1, {"type": "input_json_delta", "partial_json": " 1}"}),
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
            {"type": "message_stop"},
        ],
    )  # fmt: skip
    assert reply.calls[0].arguments == '{"a": 1}'
    assert reply.raw[0] == {"type": "thinking", "thinking": "h", "signature": "s"}


def test_citations_and_searches_are_kept() -> None:
    note = {"type": "url_citation", "url": "u", "title": "t", "start_index": 1, "end_index": 2}
    body = {
        "object": "response", "status": "completed",
        "output": [
            {"type": "web_search_call", "status": "completed"},
            {"type": "message", "content": [
                {"type": "output_text", "text": "hi", "annotations": [note, note]}]},
        ],
    }  # fmt: skip
    reply = make_provider(resolve_model("responses.m?web_search=true", ENV), None).to_reply(body)
    assert reply.searches == 1
    assert reply.citations == ({"url": "u", "title": "t", "start_index": 1, "end_index": 2},)


@pytest.mark.parametrize("model", BODIES)
def test_without_an_instruction_nothing_stands_in_its_place(model: str) -> None:
    body = make_provider(resolve_model(model, ENV), None).to_request("", "p").body
    assert "system" not in json.dumps(body)
    assert "instructions" not in body


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("responses.gpt-5.4-mini", True), ("responses.o4-mini", True),
        ("responses.gpt-4.1-mini", False), ("responses.gpt-5-chat-latest", False),
        ("openresponses.qwen", False), ("openresponses.qwen?reasoning=low", True),
    ],
)  # fmt: skip
def test_encrypted_reasoning_is_asked_for_where_there_is_reasoning(
    model: str, wanted: bool
) -> None:
    env = ENV | {"OPENRESPONSES_BASE_URL": "http://127.0.0.1:1/v1"}
    body = make_provider(resolve_model(model, env), None, Tools((ADD,))).to_request("i", "p").body
    assert ("reasoning.encrypted_content" in body.get("include", ())) is wanted


def test_streamed_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    def event(*calls: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {"choices": [{"delta": {"tool_calls": list(calls)}, "finish_reason": reason}]}

    reply = _streamed(
        "generic.m",
        [
            event({"id": "a", "function": {"name": "add", "arguments": '{"a"'}}),
            event({"function": {"arguments": ": 1}"}}),
            event({"id": "b", "function": {"name": "add", "arguments": "{}"}}, reason="stop"),
        ],
    )
    assert [call.arguments for call in reply.calls] == ['{"a": 1}', "{}"]


def test_a_stream_that_is_cut_in_a_call_is_truncated() -> None:
    events = [
        {"type": "message_start", "message": {"model": "m", "id": "x"}},
        {"type": "content_block_start", "index": 0,
         "content_block": {"type": "tool_use", "id": "c1", "name": "add", "input": {}}},
        _delta(0, {"type": "input_json_delta", "partial_json": '{"a'}),
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}},
        {"type": "message_stop"},
    ]  # fmt: skip
    with pytest.raises(Truncated):
        _streamed("anthropic.m", events)


def test_a_malformed_call_of_gemini_is_named() -> None:
    body = {"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL", "content": {}}]}
    with pytest.raises(InvalidResponse, match="MALFORMED_FUNCTION_CALL"):
        _provider("google.m").to_reply(body)
