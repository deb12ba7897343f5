"""Python functions as tools."""

from __future__ import annotations

import asyncio
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from beam_batch.agents.setup import Crew
from beam_batch.agents.tools.base import Room, RowRun, Tool, ToolReply
from beam_batch.agents.tools.functions import check_function, tool_of
from beam_batch.agents.tools.threads import MOST_THREADS, Threads
from beam_batch.calling.trail import Trail
from beam_batch.errors import OptionsError
from beam_batch.options import SchemaSpec
from beam_batch.options.agents import AgentSpec, FunctionSpec
from beam_batch.records import Content, Prompt
from tests.agents.support import new_run, until

MODULE = '''
import asyncio
import datetime
import sys
import threading
import time
from dataclasses import dataclass
from typing import Annotated, Literal, Optional

from pydantic import AfterValidator, BaseModel, Field, model_serializer

IMPORTS = []
IMPORTS.append(1)


class Place(BaseModel):
    city: str
    country: str = "DE"


@dataclass
class Weather:
    degrees: float
    day: datetime.date


def weather(
    place: Place,
    unit: Literal["C", "F"] = "C",
    days: Annotated[int, Field(description="How many.", ge=1)] = 1,
    note: Optional[str] = None,
):
    """Say what the weather is.

    Args:
        place: where.
    """
    return f"{place.city} {place.country} {unit} {days} {note}"


async def later(text: str) -> dict:
    await asyncio.sleep(0)
    return {"text": text, "imports": len(IMPORTS), "thread": threading.current_thread().name}


def structured(day: datetime.date) -> Weather:
    return Weather(float("nan"), day)


def thread() -> str:
    return threading.current_thread().name


def untyped(json, _hidden=3):
    return [json, _hidden]


def nothing() -> None:
    pass


def raw() -> bytes:
    return b"x"


def fail():
    raise LookupError("no such thing")


def leave():
    sys.exit(3)


async def leave_later():
    sys.exit(3)


def interrupt():
    raise KeyboardInterrupt


async def interrupt_later():
    raise KeyboardInterrupt


async def end_itself():
    raise asyncio.CancelledError


class Mute(Exception):
    def __str__(self):
        sys.exit("no")


def say_nothing():
    raise Mute


def check_badly(text: Annotated[str, AfterValidator(lambda text: {}["x"])]):
    pass


def slow():
    time.sleep(1000)


async def slow_too():
    await asyncio.sleep(1000)


async def blocking(wait: float) -> None:
    time.sleep(wait)


class Slow(BaseModel):
    wait: float

    @model_serializer
    def write(self) -> float:
        time.sleep(self.wait)
        return self.wait


def shown_slowly(wait: float) -> Slow:
    return Slow(wait=wait)


def checked_slowly(wait: Annotated[float, AfterValidator(lambda wait: time.sleep(wait))]) -> None:
    pass


def nap(wait: float) -> None:
    time.sleep(wait)


async def nap_too(wait: float) -> None:
    await asyncio.sleep(wait)


async def cleaning_up(note: str) -> None:
    try:
        await asyncio.sleep(1000)
    finally:
        open(note, "x").close()


def own_timeout():
    raise TimeoutError("the database is slow")


def many(*names):
    return names


def open_ended(**names):
    return names


def by_place(a, /):
    return a


def odd(lock: threading.Lock):
    return lock


def unknown(place: "Nowhere"):
    return place


class Group:
    @staticmethod
    def inner(n: int = 1) -> int:
        return n


number = 3
'''


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "own_tools.py"
    file.write_text(MODULE)
    return str(file)


def _tool(path: str, function: str, timeout: float = 20.0) -> Tool:
    return tool_of(FunctionSpec(file=path, function=function), timeout)


class EchoingRun:
    spec = AgentSpec(name="a")

    async def ask(self, message: Content, run: RowRun, schema: SchemaSpec | None = None) -> Any:
        return run.room


def _tool_threads() -> int:
    return sum(thread.name == "tool" for thread in threading.enumerate())


def _call(tool: Tool, **arguments: Any) -> ToolReply:
    return asyncio.run(tool.call(arguments, new_run()))


def test_a_signature_becomes_a_schema(path: str) -> None:
    spec = _tool(path, "weather").spec
    assert spec.name == "weather"
    assert spec.description == "Say what the weather is.\n\nArgs:\n    place: where."
    parameters = spec.parameters
    assert parameters["required"] == ["place"]
    assert parameters["additionalProperties"] is False
    assert parameters["properties"]["place"] == {"$ref": "#/$defs/Place"}
    assert parameters["$defs"]["Place"]["required"] == ["city"]
    assert parameters["properties"]["unit"]["enum"] == ["C", "F"]
    assert parameters["properties"]["unit"]["default"] == "C"
    days = parameters["properties"]["days"]
    assert (days["description"], days["minimum"]) == ("How many.", 1)
    assert {"type": "null"} in parameters["properties"]["note"]["anyOf"]


def test_arguments_become_what_the_hints_say(path: str) -> None:
    weather = _tool(path, "weather")
    assert _call(weather, place={"city": "Ulm"}).text == "Ulm DE C 1 None"
    assert _call(weather, place={"city": "Ulm"}, days="2", unit="F").text == "Ulm DE F 2 None"
    assert _call(_tool(path, "structured"), day="2026-11-22").text == (
        '{"degrees":null,"day":"2026-11-22"}'
    )
    assert _call(_tool(path, "untyped"), json=[1]).text == "[[1],3]"
    assert _call(_tool(path, "Group.inner")).text == "1"
    assert _call(_tool(path, "nothing")).text == "null"


def test_wrong_arguments_are_explained_briefly(path: str) -> None:
    weather = _tool(path, "weather")
    assert _call(weather, unit="K", place={}, dyas=1) == ToolReply(
        "Wrong arguments: place.city: Field required; unit: Input should be 'C' or 'F'; "
        "dyas: Extra inputs are not permitted",
        is_error=True,
    )


def test_functions_run_beside_the_loop(path: str) -> None:
    assert _call(_tool(path, "thread")).text == "tool"
    reply = _call(_tool(path, "later"), text="é")
    assert reply.text == '{"text":"é","imports":1,"thread":"tool"}'


@pytest.mark.parametrize("function", ["blocking", "checked_slowly", "shown_slowly"])
def test_a_function_that_blocks_holds_nothing_up(path: str, function: str) -> None:
    async def call() -> None:
        tool, ticks = _tool(path, function, timeout=0.2), 0
        calling = asyncio.create_task(tool.call({"wait": 2}, new_run()))
        while not calling.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert calling.result() == ToolReply("It did not end within 0.2 s.", is_error=True)
        assert ticks > 3
        assert _tool_threads()
        await until(lambda: not _tool_threads())

    asyncio.run(call())


@pytest.mark.parametrize("function", ["nap", "nap_too"])
def test_many_calls_share_few_threads_and_all_have_their_time(path: str, function: str) -> None:
    tool, most = _tool(path, function, timeout=2.0), 0
    run = replace(new_run(), room=Room(Threads(most=4)))

    async def call() -> list[ToolReply]:
        nonlocal most
        calls = asyncio.gather(*(tool.call({"wait": 0.1}, run) for _ in range(100)))
        while not calls.done():
            most = max(most, _tool_threads())
            await asyncio.sleep(0.01)
        return calls.result()

    assert set(asyncio.run(call())) == {ToolReply("null")}  # the last ones begin after 2 s
    assert 1 < most <= 4 + 1  # one that is about to end


def test_rows_of_a_worker_share_its_threads() -> None:
    assert MOST_THREADS == 64
    crew = Crew([], EchoingRun(), None, None, asyncio.Event())

    async def work() -> set[int]:
        return {id(await crew.work(Prompt(new_run().row, ""), Trail(1))) for _ in range(2)}

    assert len(asyncio.run(work())) == 1


def test_calls_that_do_not_end_are_followed_by_a_few_others_only(path: str) -> None:
    tool = _tool(path, "nap", timeout=0.05)
    run = replace(new_run(), room=Room(Threads(most_left=2)))

    async def call() -> None:
        for _ in range(2):
            assert "did not end" in (await tool.call({"wait": 1}, run)).text
        refused = await tool.call({"wait": 0}, run)
        said = "2 earlier calls have not ended yet; no more are made."
        assert refused == ToolReply(said, is_error=True)
        await until(lambda: not _tool_threads())
        assert await tool.call({"wait": 0}, run) == ToolReply("null")

    asyncio.run(call())


def test_an_async_function_is_cancelled_when_its_time_is_up(path: str, tmp_path: Path) -> None:
    note = tmp_path / "note"
    tool = _tool(path, "cleaning_up", timeout=0.2)

    async def call() -> None:
        assert (await tool.call({"note": str(note)}, new_run())).is_error
        await until(note.exists)

    asyncio.run(call())


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("fail", "LookupError: no such thing"),
        ("leave", "SystemExit: 3"),
        ("own_timeout", "TimeoutError: the database is slow"),
        ("leave_later", "SystemExit: 3"),
        ("interrupt", "KeyboardInterrupt"),
        ("interrupt_later", "KeyboardInterrupt"),
        ("end_itself", "CancelledError"),
        ("say_nothing", "Mute, which cannot say what it is"),
        ("check_badly", "KeyError: 'x'"),
        ("raw", "TypeError: it returned bytes, which a model cannot read"),
    ],
)
def test_what_a_function_raises_is_told_without_a_traceback(
    path: str, function: str, said: str
) -> None:
    arguments = {"text": "a"} if function == "check_badly" else {}
    reply = _call(_tool(path, function), **arguments)
    assert reply.is_error
    assert reply.text.endswith(said)
    assert "Traceback" not in reply.text


@pytest.mark.parametrize("function", ["slow", "slow_too"])
def test_a_function_has_its_time(path: str, function: str) -> None:
    reply = _call(_tool(path, function, timeout=0.05))
    assert reply == ToolReply("It did not end within 0.05 s.", is_error=True)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("many", r"\*names cannot be given by name"),
        ("open_ended", r"\*\*names cannot be given by name"),
        ("by_place", "a cannot be given by name"),
        ("odd", "that no JSON can be made into"),
        ("unknown", "no usable signature: name 'Nowhere' is not defined"),
        ("missing", "does not exist"),
        ("number", "is no function but int"),
    ],
)
def test_what_cannot_be_a_tool_is_refused(path: str, function: str, said: str) -> None:
    with pytest.raises(OptionsError, match=said):
        check_function(FunctionSpec(file=path, function=function))


def test_a_module_that_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_module_at_all")
    with pytest.raises(OptionsError, match="ModuleNotFoundError: No module named 'no_such"):
        check_function(FunctionSpec(file=str(broken), function="f"))
    with pytest.raises(OptionsError, match=r"card: function no_such\.module:f cannot be imported"):
        check_function(FunctionSpec(module="no_such.module", function="f"))


def test_a_function_of_an_installed_module_is_found() -> None:
    tool = tool_of(FunctionSpec(module="textwrap", function="dedent"), 20.0)
    assert _call(tool, text="  a").text == "a"
    assert "own_tools" not in sys.modules
