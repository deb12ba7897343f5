"""MAKER: the same question again and again, until one answer is ahead by k votes.

After "Solving a Million-Step LLM Task with Zero Errors", arXiv:2511.09030.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

from beam_batch.agents.member import together
from beam_batch.agents.tools.base import RowRun
from beam_batch.agents.workflows.matching import matcher
from beam_batch.agents.workflows.team import Team
from beam_batch.agents.workflows.texts import as_text
from beam_batch.errors import ReplyError, WorkflowFailed
from beam_batch.options import SchemaSpec
from beam_batch.records import Content


class Votes:
    """Counts the answers to one question.

    Attributes:
        samples: answers taken, those that were thrown away included.
        discarded: how many were thrown away.
        problem: why the last of these was.
    """

    def __init__(self, key: Callable[[Any], str]) -> None:
        self._key = key
        self._counts: Counter[str] = Counter()
        self._answers: dict[str, Any] = {}
        self.samples = 0
        self.discarded = 0
        self.problem = ""

    def add(self, answer: Any) -> None:
        """Count an answer."""
        self.samples += 1
        key = self._key(answer)
        self._counts[key] += 1
        self._answers.setdefault(key, answer)

    def discard(self, problem: str) -> None:
        """Count an answer that is thrown away."""
        self.samples += 1
        self.discarded += 1
        self.problem = problem

    @property
    def counts(self) -> list[int]:
        """Votes of each candidate, the most first."""
        return sorted(self._counts.values(), reverse=True)

    @property
    def lead(self) -> int:
        """Votes that the leader is ahead of the next; 0 for a tie or no votes at all."""
        first, second = (*self.counts[:2], 0, 0)[:2]
        return first - second

    @property
    def leader(self) -> Any:
        """The answer with the most votes, as it was first given."""
        return self._answers[self._counts.most_common(1)[0][0]]


class Maker:
    """Asks its member until one answer leads by k votes.

    Where none does within max_samples, the result is the one that leads by less. Never more is
    asked at once than the leader still needs at least, so that it costs no sample to be quick.
    """

    def __init__(self, team: Team) -> None:
        self.spec = team.spec
        (self._worker,) = team.members
        settings = team.spec.settings
        self._ahead = settings["k"]
        self._most = settings["max_samples"]
        self._strategy = settings["match_strategy"]
        self._longest = settings.get("red_flag_max_length")

    async def ask(self, message: Content, run: RowRun, schema: SchemaSpec | None = None) -> Any:
        """Return the answer that won.

        Raises:
            WorkflowFailed: no answer leads, or all were thrown away.
        """
        votes = Votes(matcher(self._strategy, schema is not None))
        own = dataclasses.replace(run, fresh=True)
        while votes.lead < self._ahead and votes.samples < self._most:
            needed = min(self._ahead - votes.lead, self._most - votes.samples)
            for sample in await together(self._sample(message, own, schema) for _ in range(needed)):
                self._count(votes, sample, schema)
        run.trail.note("maker", self._notes(votes))
        if not votes.lead:
            raise self._failure(votes)
        return votes.leader

    async def _sample(self, message: Content, run: RowRun, schema: SchemaSpec | None) -> Any:
        """Return an answer, or the error that is to be thrown away."""
        try:
            return await self._worker.ask(message, run, schema)
        except ReplyError as error:
            return error

    def _count(self, votes: Votes, sample: Any, schema: SchemaSpec | None) -> None:
        if isinstance(sample, ReplyError):
            votes.discard(f"{type(sample).__name__}: {sample}")
        elif self._longest and len(as_text(sample, schema)) > self._longest:
            votes.discard(f"longer than red_flag_max_length={self._longest}")
        else:
            votes.add(sample)

    def _notes(self, votes: Votes) -> dict[str, Any]:
        return {
            "samples": votes.samples,
            "discarded": votes.discarded,
            "votes": votes.counts,
            "agreed": votes.lead >= self._ahead,
        }

    def _failure(self, votes: Votes) -> WorkflowFailed:
        found = f"maker {self.spec.name}: no answer leads after {votes.samples} samples"
        if not votes.counts:
            return WorkflowFailed(f"{found}: all were thrown away, the last as {votes.problem}")
        counts = ", ".join(map(str, votes.counts[:10]))
        thrown = f"; {votes.discarded} were thrown away" if votes.discarded else ""
        return WorkflowFailed(f"{found}: the candidates have {counts} votes{thrown}")
