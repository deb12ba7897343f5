"""Python functions as tools: a signature becomes a schema, an exception an answer."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NotRequired, Required, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, to_jsonable_python
from typing_extensions import TypedDict

from beam_batch import jsonio
from beam_batch.agents.tools.base import RowRun, Tool, ToolReply
from beam_batch.agents.tools.names import usable
from beam_batch.agents.tools.threads import NoThread, OwnLoop
from beam_batch.errors import OptionsError, first_line
from beam_batch.options.agents import FunctionSpec
from beam_batch.providers.base import ToolSpec

MOST_PROBLEMS = 5
"""Wrong arguments that one answer names."""
_imported = threading.Lock()
_Kind = inspect.Parameter


def tool_of(spec: FunctionSpec, timeout: float) -> Tool:
    """Return a function as a tool; its module is imported once a process.

    Raises:
        OptionsError: there is no such function, or none that a model can call.
    """
    function = _load(spec)
    arguments = _arguments_of(spec, function)
    schema = arguments.json_schema()
    schema.pop("title", None)
    schema.setdefault("properties", {})
    description = inspect.getdoc(function) or ""
    return FunctionTool(
        spec=ToolSpec(usable(spec.function), description, schema),
        origin=Path(spec.file).stem if spec.file else spec.module.rpartition(".")[2],
        function=function,
        arguments=arguments,
        timeout=timeout,
    )


def check_function(spec: FunctionSpec) -> None:
    """Import a function and look at its signature, as a worker will.

    Raises:
        OptionsError: it cannot be a tool.
    """
    tool_of(spec, 1.0)


@dataclass
class FunctionTool:
    """A function as a model calls it.

    Attributes:
        arguments: reads and checks the arguments.
        timeout: seconds; a thread that takes longer goes on, but nobody waits for it.
    """

    spec: ToolSpec
    origin: str
    function: Callable[..., Any]
    arguments: TypeAdapter[dict[str, Any]]
    timeout: float

    async def call(self, arguments: dict[str, Any], run: RowRun) -> ToolReply:
        """Call the function; whatever it raises is told to the model, without its traceback."""
        own = OwnLoop()
        try:
            work = run.room.threads.run(self._reply, arguments, own, timeout=self.timeout)
            return await work
        except NoThread as error:
            return ToolReply(str(error), is_error=True)
        except TimeoutError:
            return ToolReply(f"It did not end within {self.timeout:g} s.", is_error=True)
        finally:
            own.cancel()

    def _reply(self, arguments: dict[str, Any], own: OwnLoop) -> ToolReply:
        """Do all that runs code of the user's, in a thread; of validators and results as well."""
        try:
            try:
                given = self.arguments.validate_json(jsonio.dumps(arguments))
            except ValidationError as error:
                return ToolReply(f"Wrong arguments: {_problems(error)}", is_error=True)
            result = self.function(**given)
            if inspect.isawaitable(result):
                result = own.finish(result)
            return ToolReply(_text(result))
        except BaseException as error:  # whatever ends the call, the model can go another way
            return _raised(error)


def _raised(error: BaseException) -> ToolReply:
    name = type(error).__name__
    try:
        text = f"{name}: {error}".removesuffix(": ")
    except BaseException:  # an error's own text may run code of the user's, too
        text = f"{name}, which cannot say what it is"
    return ToolReply(text, is_error=True)


def _load(spec: FunctionSpec) -> Callable[..., Any]:
    where = f"card: function {spec.file or spec.module}:{spec.function}"
    try:
        module = _import_file(spec.file) if spec.file else importlib.import_module(spec.module)
    except (Exception, SystemExit) as error:  # importing runs code of the user's
        raise OptionsError(
            f"{where} cannot be imported ({type(error).__name__}: {first_line(error)})."
        ) from error
    found: Any = module
    for name in spec.function.split("."):
        found = getattr(found, name, None)
    if found is None:
        raise OptionsError(f"{where} does not exist.")
    if not inspect.isroutine(found):
        raise OptionsError(f"{where} is no function but {type(found).__name__}.")
    function: Callable[..., Any] = found
    return function


def _import_file(path: str) -> ModuleType:
    """Import a file under a name of its own, so that it hides no module of the same name."""
    name = "beam_batch_tools_" + hashlib.sha256(path.encode()).hexdigest()[:16]
    with _imported:
        if name in sys.modules:
            return sys.modules[name]
        found = importlib.util.spec_from_file_location(name, path)
        if found is None or found.loader is None:
            raise ImportError("not a Python file")
        module = importlib.util.module_from_spec(found)
        sys.modules[name] = module  # before it runs: dataclasses look their module up
        try:
            found.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module


def _arguments_of(spec: FunctionSpec, function: Callable[..., Any]) -> TypeAdapter[dict[str, Any]]:
    """Make a typed dictionary of a signature: what the model leaves out, the default is for."""
    where = f"card: function {spec.function}"
    try:
        hints = get_type_hints(function, include_extras=True)
        signature = inspect.signature(function)
    except (NameError, TypeError, ValueError) as error:
        raise OptionsError(f"{where} has no usable signature: {first_line(error)}.") from None
    fields: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind not in (_Kind.POSITIONAL_OR_KEYWORD, _Kind.KEYWORD_ONLY):
            raise OptionsError(
                f"{where}: {parameter} cannot be given by name; "
                "a model gives all arguments by name, so *, ** and / are not possible."
            )
        fields[name] = _field(hints.get(name, Any), parameter.default)
    make: Any = TypedDict
    kind = make("Arguments", fields)
    kind.__pydantic_config__ = ConfigDict(extra="forbid")
    try:
        adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(kind)
        adapter.json_schema()
    except (PydanticUserError, TypeError) as error:
        raise OptionsError(
            f"{where} has a parameter that no JSON can be made into: {first_line(error)}"
        ) from None
    return adapter


def _field(hint: Any, default: Any) -> Any:
    if default is _Kind.empty:
        return Required[hint]
    try:
        shown = Field(json_schema_extra={"default": to_jsonable_python(default)})
    except PydanticSerializationError:
        return NotRequired[hint]
    return NotRequired[Annotated[hint, shown]]


def _problems(error: ValidationError) -> str:
    """Say what is wrong in pydantic's words, without the values and links."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    said = [
        f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}"
        for problem in problems[:MOST_PROBLEMS]
    ]
    more = len(problems) - len(said)
    return "; ".join(said) + (f"; and {more} more" if more else "")


def _text(result: Any) -> str:
    if isinstance(result, str):
        return result
    if isinstance(result, (bytes, bytearray, memoryview)):
        raise TypeError("it returned bytes, which a model cannot read")
    return jsonio.dumps(to_jsonable_python(result)).decode()
