"""What agents need of a machine is looked for before anything is sent."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from beam_batch.checks import check
from beam_batch.errors import OptionsError
from beam_batch.options import AgentSpec, CrewSpec, ModelSpec, OutputSpec, RunSpec, SourceSpec

ECHO = ModelSpec(text="echo", provider="echo", model="echo")


def _spec(crew: CrewSpec, folder: Path, runner: str = "direct") -> RunSpec:
    return RunSpec(
        source=SourceSpec(input=str(folder / "rows.jsonl")),
        output=OutputSpec(output=str(folder / "out.jsonl")),
        model=ECHO,
        crew=crew,
        runner=runner,
    )


@pytest.mark.parametrize(("card", "flag"), [(True, False), (False, True)])
def test_commands_want_both_card_and_run(card: bool, flag: bool, tmp_path: Path) -> None:
    crew = CrewSpec(
        agents={"a": AgentSpec(name="a", model=ECHO, shell=card)}, selected="a", shell=flag
    )
    with pytest.raises(OptionsError, match="--shell"):
        check(_spec(crew, tmp_path, "prism"), {})
    agreed = dataclasses.replace(crew, agents={"a": AgentSpec(name="a", model=ECHO, shell=flag)})
    check(_spec(agreed, tmp_path), {})
