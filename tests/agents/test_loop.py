"""The loop of one agent: what it asks, which tools it calls, where it stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from beam_batch.agents.children import ChildTool
from beam_batch.agents.loop import MOST_CALLS, Agent, Asker
from beam_batch.agents.tools.base import RowRun, ToolReply
from beam_batch.calling.gate import Dropped
from beam_batch.calling.trail import Trail
from beam_batch.errors import (
    AgentError,
    RepeatedCall,
    RowCostReached,
    RowError,
    StructuredOutputError,
    ToolServerDied,
    ToolServerFailed,
    TooManyIterations,
)
from beam_batch.options import SchemaSpec
from beam_batch.options.agents import AgentSpec, LoopSpec
from beam_batch.prompts.schema import make_validator
from beam_batch.providers.base import Reply, Request, ToolCall, ToolSpec, Turn, Usage
from beam_batch.records import Row

NUMBER = SchemaSpec(
    json='{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'
)


def _reply(text: str = "", *calls: tuple[str, Any]) -> Reply:
    wanted = tuple(
        ToolCall(f"c{place}", name, given if isinstance(given, str) else json.dumps(given))
        for place, (name, given) in enumerate(calls)
    )
    return Reply(text, "stop", "m", None, Usage(1, 1, 2), None, wanted)


class _Caller:
    """Answers from a list, and keeps what it was asked."""

    def __init__(self, replies: Sequence[Reply], schema: SchemaSpec | None = None) -> None:
        self.replies = list(replies)
        self.histories: list[tuple[Turn, ...]] = []
        self.validate = make_validator(schema, False)
        self.forgotten = 0
        self.renewed: list[bool] = []
        self.model = "m"

    def to_request(self, instruction: str, message: Any, history: tuple[Turn, ...]) -> Request:
        self.histories.append(history)
        return Request("", {"message": message}, False)

    async def ask(
        self, request: Request, trail: Trail, *, fresh: bool = False, renew: bool = False
    ) -> Reply:
        self.renewed.append(renew)
        trail.sent("a")
        return self.replies.pop(0)

    async def forget(self, request: Request) -> None:
        self.forgotten += 1


class _Tool:
    def __init__(self, name: str, do: Callable[[dict[str, Any]], ToolReply]) -> None:
        self.spec = ToolSpec(name, "", {"type": "object"})
        self._do = do
        self.asked: list[dict[str, Any]] = []

    async def call(self, arguments: dict[str, Any], run: RowRun) -> ToolReply:
        self.asked.append(arguments)
        return self._do(arguments)


def _say(text: str, is_error: bool = False) -> Callable[[dict[str, Any]], ToolReply]:
    return lambda arguments: ToolReply(text, is_error)


def _run() -> RowRun:
    return RowRun(Row(0, 1, "1", {}), Trail(1, lists_calls=True))


def _ask(
    caller: _Caller,
    tools: Sequence[_Tool] = (),
    *,
    loop: LoopSpec | None = None,
    schema: SchemaSpec | None = None,
    last: _Caller | None = None,
    reask: int = 0,
    run: RowRun | None = None,
) -> Any:
    spec = AgentSpec(name="a", instruction="i", loop=loop or LoopSpec())
    agent = Agent(spec, lambda _: Asker(caller, last), tools, reask)  # type: ignore[arg-type]
    return asyncio.run(agent.ask("hello", run or _run(), schema))


def test_an_answer_without_calls_is_the_result() -> None:
    assert _ask(_Caller([_reply("hi")])) == "hi"


def test_tools_are_called_and_what_they_say_goes_back() -> None:
    caller = _Caller([_reply("", ("add", {"a": 1}), ("add", {"a": 2})), _reply("three")])
    tool, run = _Tool("add", _say("ok")), _run()
    assert _ask(caller, [tool], run=run) == "three"
    assert tool.asked == [{"a": 1}, {"a": 2}]
    (turn,) = caller.histories[1]
    assert [result.text for result in turn.results] == ["ok", "ok"]
    assert [result.call.id for result in turn.results] == ["c0", "c1"]
    notes = run.trail.as_notes()
    assert notes["tool_calls"] == 2
    assert notes["tools"] == {"add": 2}
    assert len(notes["calls"]) == 2


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (("nothing", {}), "There is no tool 'nothing'; there are: add."),
        (("add", "{"), "The arguments are not JSON"),
        (("add", "[]"), "The arguments are not a JSON object."),
    ],
)
def test_a_call_that_cannot_be_made_is_told_to_the_model(call: tuple[str, Any], said: str) -> None:
    caller = _Caller([_reply("", call), _reply("sorry")])
    tool = _Tool("add", _say("ok"))
    assert _ask(caller, [tool]) == "sorry"
    assert not tool.asked
    (turn,) = caller.histories[1]
    assert turn.results[0].is_error
    assert said in turn.results[0].text


def test_a_large_result_is_cut_and_says_so() -> None:
    caller = _Caller([_reply("", ("add", {})), _reply("ok")])
    _ask(caller, [_Tool("add", _say("x" * 1000))], loop=LoopSpec(max_result=10))
    text = caller.histories[1][0].results[0].text
    assert text == "x" * 10 + "\n[cut: 990 of 1000 characters left out]"


def test_a_model_that_never_ends_is_stopped() -> None:
    caller = _Caller([_reply("", ("add", {"n": n})) for n in range(9)])
    with pytest.raises(TooManyIterations, match="max_iterations=4"):
        _ask(caller, [_Tool("add", _say("ok"))], loop=LoopSpec(max_iterations=4))
    assert len(caller.histories) == 4


def test_a_model_that_repeats_itself_is_stopped_also_when_it_alternates() -> None:
    calls = [("add", {"n": n % 2}) for n in range(20)]
    caller = _Caller([_reply("", call) for call in calls])
    with pytest.raises(RepeatedCall, match="called add 3 times"):
        _ask(caller, [_Tool("add", _say("ok"))], loop=LoopSpec(max_repeats=2))
    assert len(caller.histories) == 5


def test_a_call_that_says_something_new_is_no_repetition() -> None:
    said = iter("abcd")
    caller = _Caller([*(_reply("", ("poll", {})) for _ in range(4)), _reply("done")])
    tool = _Tool("poll", lambda arguments: ToolReply(next(said)))
    assert _ask(caller, [tool], loop=LoopSpec(max_repeats=1)) == "done"


def test_a_result_that_does_not_fit_is_asked_for_again() -> None:
    caller = _Caller([_reply("no"), _reply('{"n": 1}')], NUMBER)
    assert _ask(caller, schema=NUMBER, reask=1) == {"n": 1}
    assert "cannot be used" in caller.histories[1][0].message
    assert caller.forgotten == 1


def test_a_result_that_does_not_fit_fails_the_row() -> None:
    with pytest.raises(StructuredOutputError):
        _ask(_Caller([_reply("no")], NUMBER), schema=NUMBER)


def test_where_tools_and_schema_exclude_each_other_the_result_is_asked_for_last() -> None:
    caller = _Caller([_reply("", ("add", {})), _reply("it is one")])
    last = _Caller([_reply('{"n": 1}')], NUMBER)
    assert _ask(caller, [_Tool("add", _say("1"))], schema=NUMBER, last=last) == {"n": 1}
    (history,) = last.histories
    assert history[1].reply.text == "it is one"
    assert "JSON" in history[1].message


def test_a_failing_tool_ends_the_others_of_its_reply() -> None:
    ended = []

    class Slow(_Tool):
        async def call(self, arguments: dict[str, Any], run: RowRun) -> ToolReply:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)
            raise AssertionError

    def die(arguments: dict[str, Any]) -> ToolReply:
        raise ToolServerDied("gone")

    caller = _Caller([_reply("", ("slow", {}), ("die", {}))])
    with pytest.raises(ToolServerDied):
        _ask(caller, [Slow("slow", _say("")), _Tool("die", die)])
    assert ended


def test_tools_run_one_after_another_where_the_card_says_so() -> None:
    running = most = 0

    class Counted(_Tool):
        async def call(self, arguments: dict[str, Any], run: RowRun) -> ToolReply:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            return ToolReply(str(arguments))

    for parallel, expected in ((True, 3), (False, 1)):
        most = 0
        caller = _Caller([_reply("", *(("t", {"n": n}) for n in range(3))), _reply("ok")])
        _ask(caller, [Counted("t", _say(""))], loop=LoopSpec(parallel_tool_calls=parallel))
        assert most == expected


def test_a_child_knows_only_its_message_and_its_failure_goes_back() -> None:
    child_caller = _Caller([_reply("", ("x", {})), _reply("", ("x", {}))])
    child_spec = AgentSpec(name="child", description="helps", loop=LoopSpec(max_iterations=2))
    child = Agent(child_spec, lambda _: Asker(child_caller, None))  # type: ignore[arg-type]
    tool = ChildTool(child)
    assert tool.spec.name == "child"
    caller = _Caller(
        [_reply("", ("child", {"message": "do it"}), ("child", {})), _reply("gave up")]
    )
    spec = AgentSpec(name="a")
    agent = Agent(spec, lambda _: Asker(caller, None), [tool])  # type: ignore[arg-type]
    assert asyncio.run(agent.ask("hello", _run())) == "gave up"
    assert child_caller.histories[0] == ()
    first, second = caller.histories[1][0].results
    assert first.text.startswith("TooManyIterations: agent child")
    assert second.text == "Give the message as a string."
    assert first.is_error
    assert second.is_error


def test_a_tool_with_a_bug_is_told_to_the_model_by_its_type_alone() -> None:
    def broken(arguments: dict[str, Any]) -> ToolReply:
        raise OverflowError("internal")

    caller = _Caller([_reply("", ("t", {})), _reply("ok")])
    assert _ask(caller, [_Tool("t", broken)]) == "ok"
    assert caller.histories[1][0].results[0].text == "The tool failed: OverflowError"


def test_a_tool_that_cancels_itself_stops_no_run() -> None:
    def cancel(arguments: dict[str, Any]) -> ToolReply:
        raise asyncio.CancelledError

    caller = _Caller([_reply("", ("t", {})), _reply("ok")])
    assert _ask(caller, [_Tool("t", cancel)]) == "ok"
    assert caller.histories[1][0].results[0].is_error


def test_a_flood_of_calls_is_cut() -> None:
    caller = _Caller([_reply("", *(("t", {"n": n}) for n in range(100))), _reply("ok")])
    tool = _Tool("t", lambda arguments: ToolReply(str(arguments)))
    assert _ask(caller, [tool]) == "ok"
    assert len(tool.asked) == MOST_CALLS
    results = caller.histories[1][0].results
    assert len(results) == 100
    assert "first 32 calls" in results[-1].text


def test_a_stopped_run_waits_for_an_agent_and_for_no_other_tool() -> None:
    async def main() -> None:
        run = _run()
        answered = asyncio.Event()

        class Child:
            spec = AgentSpec(name="child")

            async def ask(self, message: Any, run: RowRun, schema: Any = None) -> str:
                run.stopping.set()
                await asyncio.sleep(0.01)  # its request is in flight
                answered.set()
                return "paid"

        class Slow(_Tool):
            async def call(self, arguments: dict[str, Any], run: RowRun) -> ToolReply:
                await asyncio.Event().wait()
                raise AssertionError

        caller = _Caller([_reply("", ("slow", {}), ("child", {"message": "x"}))])
        tools = [Slow("slow", _say("")), ChildTool(Child())]
        agent = Agent(AgentSpec(name="a"), lambda _: Asker(caller, None), tools)  # type: ignore
        with pytest.raises(Dropped):
            await agent.ask("hello", run)
        assert answered.is_set()

    asyncio.run(main())


def test_the_call_for_the_result_is_beside_the_limit() -> None:
    caller = _Caller([_reply("it is one")])
    last = _Caller([_reply('{"n": 1}')], NUMBER)
    loop = LoopSpec(max_iterations=1)
    assert _ask(caller, [_Tool("t", _say("1"))], loop=loop, schema=NUMBER, last=last) == {"n": 1}


class _Failing:
    def __init__(self, error: RowError) -> None:
        self.spec = AgentSpec(name="child")
        self.error = error

    async def ask(self, message: Any, run: RowRun, schema: SchemaSpec | None = None) -> Any:
        raise self.error


@pytest.mark.parametrize("kind", [RowCostReached, ToolServerFailed, ToolServerDied])
def test_what_ends_the_row_of_a_child_ends_that_of_who_asked_it(kind: type[RowError]) -> None:
    assert not issubclass(kind, AgentError)
    assert not hasattr(kind, "retryable")
    with pytest.raises(kind):
        asyncio.run(ChildTool(_Failing(kind("no"))).call({"message": "x"}, _run()))
