"""Workflows: members that have other members answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from beam_batch.agents.member import Member
from beam_batch.agents.workflows.chain import Chain
from beam_batch.agents.workflows.evaluator import EvaluatorOptimizer
from beam_batch.agents.workflows.maker import Maker
from beam_batch.agents.workflows.orchestrator import IterativePlanner, Orchestrator
from beam_batch.agents.workflows.parallel import Parallel
from beam_batch.agents.workflows.router import Router
from beam_batch.agents.workflows.team import Team, make_team
from beam_batch.options.agents import AgentSpec

__all__ = ["make_workflow"]

_TYPES: dict[str, Callable[[Team], Member]] = {
    "chain": Chain,
    "parallel": Parallel,
    "router": Router,
    "evaluator_optimizer": EvaluatorOptimizer,
    "orchestrator": Orchestrator,
    "iterative_planner": IterativePlanner,
    "maker": Maker,
}


def make_workflow(spec: AgentSpec, members: Mapping[str, Member], own: Member) -> Member:
    """Make the workflow of a checked card.

    Args:
        members: by name, all that the card names.
        own: a plain agent of the card's own instruction and model, for the workflow's own calls.
    """
    return _TYPES[spec.type](make_team(spec, members, own))
