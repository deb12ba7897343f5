"""Who works in a workflow, and what is checked of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from beam_batch.agents.member import Member
from beam_batch.errors import OptionsError
from beam_batch.options.agents import AgentSpec


class Team(NamedTuple):
    """A workflow's card and its members.

    Attributes:
        members: in the order of `spec.agents`.
        own: the plain agent of the workflow's own instruction and model.
        fan_in: brings the answers of the others together, or None.
    """

    spec: AgentSpec
    members: tuple[Member, ...]
    own: Member
    fan_in: Member | None = None

    def setting(self, name: str, default: Any) -> Any:
        """Return a setting of the card."""
        value = self.spec.settings.get(name)
        return default if value is None else value

    def error(self, message: str) -> OptionsError:
        """Return what to raise where the card makes no sense."""
        place = self.spec.source or self.spec.name
        return OptionsError(f"card {place}: {self.spec.type} {self.spec.name} {message}")

    def number(self, name: str, default: int, least: int) -> int:
        """Return a setting that is a whole number.

        Raises:
            OptionsError: it is none, or too small.
        """
        value = self.setting(name, default)
        if not isinstance(value, int) or value < least:
            raise self.error(f"wants {name} to be a whole number from {least} on, got {value!r}.")
        return value

    def one_of(self, name: str, known: tuple[str, ...], default: str) -> str:
        """Return a setting that is one of some words.

        Raises:
            OptionsError: it is not.
        """
        value = self.setting(name, default)
        if value not in known:
            raise self.error(f"wants {name} to be one of {', '.join(known)}, got {value!r}.")
        return str(value)


def make_team(spec: AgentSpec, members: Mapping[str, Member], own: Member) -> Team:
    """Find the members of a workflow.

    Raises:
        OptionsError: one is missing, or there are too few or too many.
    """
    team = Team(spec, (), own)
    fan_in = spec.settings.get("fan_in")
    for name in (*spec.agents, *filter(None, [fan_in])):
        if name not in members:
            raise team.error(f"names {name}, and there is no such agent.")
    wanted = {"evaluator_optimizer": 2, "maker": 1}.get(spec.type)
    if wanted is not None and len(spec.agents) != wanted:
        raise team.error(f"takes exactly {wanted} member(s), got {len(spec.agents)}.")
    if not spec.agents:
        raise team.error("has no members.")
    return team._replace(
        members=tuple(members[name] for name in spec.agents),
        fan_in=members[fan_in] if fan_in else None,
    )
