"""What a worker is where it is more than one model call: agents, their tools, their limits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from beam_batch.errors import OptionsError
from beam_batch.options.asking import ModelSpec
from beam_batch.options.checking import at_least

AGENT = "agent"
SESSIONS = ("shared", "row")
RATINGS = ("POOR", "FAIR", "GOOD", "EXCELLENT")
"""What an evaluator may say, from the worst to the best."""
STRATEGIES = ("exact", "normalized", "structured")
"""When two answers of a maker's samples say the same."""
MOST_ROUNDS = 20
"""Times a plan is made where the card sets no limit."""
TRACE_MANIFEST = "manifest.jsonl"


@dataclass(frozen=True, kw_only=True)
class ServerSpec:
    """One MCP server: a command of this machine (stdio) or a URL (http, sse).

    Attributes:
        command, args, url: may hold ``${NAME}``, which is taken from the worker's environment when
            the server starts, so that no secret is in a spec; ``$${`` is ``${``.
        env: what its process sees beside PATH and HOME; the same holds for its values.
        headers: of every request to a URL; the same holds for their values.
        session: shared by all rows of a worker, or one a row.
        allowed: patterns (fnmatch) of the tools that may be used; () for all.
        timeout: seconds for one tool call; the card's tool_timeout is not for servers.
        start_timeout: seconds for its start and handshake.
    """

    name: str
    transport: str = "stdio"
    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    session: str = "shared"
    allowed: tuple[str, ...] = ()
    timeout: float = 60.0
    start_timeout: float = 30.0


@dataclass(frozen=True, kw_only=True)
class FunctionSpec:
    """One Python function that a model may call: ``module.py:function`` or ``package:function``.

    Attributes:
        file: absolute path of the file, or '' where `module` is importable.
    """

    function: str
    file: str = ""
    module: str = ""


@dataclass(frozen=True, kw_only=True)
class LoopSpec:
    """How far one agent may go on one message.

    A row is one message to the agent that answers it. An agent that others ask, or that a workflow
    asks several times, begins anew with each message; ``--row-max-cost`` and ``--row-deadline``
    hold for the whole row.

    Attributes:
        max_iterations: model calls.
        parallel_tool_calls: whether tool calls of one reply run at the same time.
        tool_timeout: seconds for one call of a function or a command, or to list or read files and
            skills. MCP servers have timeouts of their own, and agents none.
        max_result: characters of a tool result that the model gets to see.
        max_repeats: times that the same call may be made and say the same, in a row or not.
    """

    max_iterations: int = 20
    parallel_tool_calls: bool = True
    tool_timeout: float = 60.0
    max_result: int = 50_000
    max_repeats: int = 3

    def __post_init__(self) -> None:
        for name in ("max_iterations", "max_result", "max_repeats"):
            at_least(f"card: {name}", getattr(self, name), 1)
        if self.tool_timeout <= 0:
            raise OptionsError(
                f"card: tool_timeout must be more than 0 s, got {self.tool_timeout}."
            )


@dataclass(frozen=True, kw_only=True)
class AgentSpec:
    """One card: an agent, or a workflow over other agents.

    Attributes:
        type: 'agent', or a workflow of `agents.cards.fields.TYPES`.
        model: a string or None, as its card says; a ModelSpec once `agents.cards.models.resolve`d.
        params: options that are added to those of the model string, such as max_tokens.
        agents: names of its members: children that are its tools, or the parts of a workflow in
            the order in which the table of types names them.
        settings: of a workflow, all of them; `agents.cards.fields.settings_of` has the defaults.
        roots: folders that its file tools may read, absolute.
        shell: whether it may run commands; the crew must say so as well.
        tool_only: whether it can only be used by other agents.
        source: where its card is.
    """

    name: str
    type: str = AGENT
    description: str = ""
    instruction: str = ""
    model: str | ModelSpec | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    loop: LoopSpec = LoopSpec()
    servers: tuple[ServerSpec, ...] = ()
    functions: tuple[FunctionSpec, ...] = ()
    skills: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    roots: tuple[str, ...] = ()
    shell: bool = False
    tool_only: bool = False
    default: bool = False
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class CrewSpec:
    """All agents of a run, and the one that answers rows; made by `agents.cards.load_crew`.

    Attributes:
        agents: by name.
        selected: name of the one that answers rows.
        cards: what the user named, for the summary.
        shell: whether agents may run commands whose cards say so.
    """

    agents: Mapping[str, AgentSpec]
    selected: str
    cards: tuple[str, ...] = ()
    shell: bool = False


@dataclass(frozen=True, kw_only=True)
class TraceSpec:
    """Where the conversations of rows are written.

    Attributes:
        folder: takes one file a row, and manifest.jsonl; None for no traces.
        repo: dataset of the Hub that the folder is sent to, or None.
        path: in that dataset; ending with '/', the run's name is added; None for traces/<run>.
    """

    folder: str | None = None
    repo: str | None = None
    path: str | None = None

    @property
    def manifest(self) -> str | None:
        """The list of the rows and their traces."""
        return os.path.join(self.folder, TRACE_MANIFEST) if self.folder else None

    def __post_init__(self) -> None:
        if self.repo and not self.folder:
            raise OptionsError("--hf-dataset sends traces; name their folder with --export-traces.")
        if self.path and not self.repo:
            raise OptionsError("--hf-dataset-path needs --hf-dataset.")
