"""Who works in a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from beam_batch.agents.member import Member
from beam_batch.options.agents import AgentSpec


class Team(NamedTuple):
    """A workflow's card, whose settings are checked and whole, and its members.

    Attributes:
        members: in the order of `spec.agents`.
        own: the plain agent of the workflow's own instruction and model.
        fan_in: brings the answers of the others together, or None.
    """

    spec: AgentSpec
    members: tuple[Member, ...]
    own: Member
    fan_in: Member | None = None


def make_team(spec: AgentSpec, members: Mapping[str, Member], own: Member) -> Team:
    """Find the members of a workflow."""
    fan_in = spec.settings.get("fan_in")
    return Team(
        spec,
        tuple(members[name] for name in spec.agents),
        own,
        members[fan_in] if fan_in else None,
    )
