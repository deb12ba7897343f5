"""Writing cards, and loading them as a run does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beam_batch.agents.cards.loading import LoadedCrew, load_crew
from beam_batch.options.agents import AgentSpec, CrewSpec


def write(folder: Path, name: str, text: str) -> Path:
    """Write a file, and the folders above it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def load(
    *cards: Path | str,
    selected: str | None = None,
    variables: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    **given: Any,
) -> CrewSpec:
    return load_with_notes(*cards, selected=selected, variables=variables, env=env, **given).crew


def load_with_notes(
    *cards: Path | str,
    selected: str | None = None,
    variables: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    **given: Any,
) -> LoadedCrew:
    options: dict[str, Any] = {"trust": False, "mcp_config": None} | given
    return load_crew(
        [str(card) for card in cards],
        selected=selected,
        variables=variables or {},
        env=env or {},
        **options,
    )


def agent(path: Path, **given: Any) -> AgentSpec:
    """Load one card that answers rows."""
    crew = load(path, **given)
    return crew.agents[crew.selected]


def card(folder: Path, fields: str, **given: Any) -> AgentSpec:
    """Load one card out of its YAML."""
    return agent(write(folder, "card.yaml", fields), **given)
