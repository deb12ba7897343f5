"""What is done to a process for speed, and that it is undone where the process is not ours."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from beam_batch import process
from beam_batch.process import THRESHOLDS, little_collecting
from tests.support import environment


@pytest.fixture(autouse=True)
def _nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that another test has left open is no user here."""
    monkeypatch.setattr(process, "_users", 0)
    gc.unfreeze()
    gc.set_threshold(700, 10, 10)


def test_two_users_in_any_order_leave_the_collector_as_it_was() -> None:
    first, second = little_collecting(), little_collecting()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold() == THRESHOLDS
    second.__exit__(None, None, None)
    assert gc.get_threshold() == (700, 10, 10)
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("chosen", [(0, 10, 10), (100_000, 50, 50)])
def test_who_wants_less_collecting_gets_it(chosen: tuple[int, int, int]) -> None:
    gc.set_threshold(*chosen)
    with little_collecting():
        assert gc.get_threshold() == chosen
    assert gc.get_threshold() == chosen


@pytest.mark.parametrize("call", ["cli", "api"])
def test_only_a_command_keeps_beam_from_pandas(tmp_path: Path, call: str) -> None:
    pytest.importorskip("pandas", reason="Beam imports pandas where it is installed")
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')
    calls = {
        "cli": "from beam_batch.cli.main import main\n"
        "sys.argv = 'beam-batch run -i rows.jsonl -o o.jsonl -m echo'.split()\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n",
        "api": "import beam_batch as b\n"
        "b.run(b.RunSpec(source=b.SourceSpec(input='rows.jsonl'), model='echo',"
        " output=b.OutputSpec(output='o.jsonl')))\n",
    }
    script = (
        "import sys\n" + calls[call] + "import pandas\n"
        "found = 'apache_beam.typehints.pandas_type_compatibility' in sys.modules\n"
        f"assert found is {call == 'api'}, found\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
