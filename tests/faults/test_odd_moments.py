"""Kills at odd moments: in a selection, in the commit, in an addition, while planning."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import Answer, ScriptedServer, error_body, prompt_of
from tests.support import (
    ROOT,
    beam_batch,
    environment,
    interrupt,
    read_jsonl,
    start,
    wait_until,
    write_jsonl,
)

ROWS = 400
PARALLEL = 8
FEW = 6
MOST_STEPS = 40
SELECTIONS = {
    "sql": ("--sql", "SELECT n FROM input WHERE n % 2 = 0"),
    "sample": ("--sample", "150", "--seed", "3"),
    "max-errors": ("--max-errors", "500"),
}
ENGINES = {"direct": (), "two-processes": ("--", "--direct_num_workers=2")}


def _number(prompt: str) -> int:
    return int(prompt.split()[1])


def _refused(number: int) -> bool:
    return number % 10 == 7


def _refuse_some(_: int, body: dict[str, Any]) -> Answer:
    """Refuse every tenth row, whenever it is asked."""
    if _refused(_number(prompt_of(body))):
        return Answer(status=400, body=error_body("no"))
    return Answer()


def _refuse_even(_: int, body: dict[str, Any]) -> Answer:
    if _number(prompt_of(body)) % 2 == 0:
        return Answer(status=400, body=error_body("no"))
    return Answer()


def _arguments(folder: Path, output: str, *more: str) -> tuple[str, ...]:
    return (
        "run", "-i", str(folder / "rows.jsonl"), "-o", f"{folder}/{output}",
        "-m", "generic.scripted", "-p", "row {{n}}", "--parallel", str(PARALLEL),
        "--no-final-summary", "--no-progress", *more,
    )  # fmt: skip


def _sent(server: ScriptedServer) -> Counter[str]:
    return Counter(prompt_of(body) for body in server.bodies)


def _resent(sent: Counter[str]) -> int:
    """Return how many requests were repeats; a refused row is asked again by every --resume."""
    return sum(count - 1 for prompt, count in sent.items() if not _refused(_number(prompt)))


def _row_numbers(path: Path) -> list[int]:
    return [record["row_number"] for record in read_jsonl(path)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(1, ROWS + 1)])
    return tmp_path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """Return what a selection's output is where nothing is killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_jsonl(folder / "rows.jsonl", [{"n": n} for n in range(1, ROWS + 1)])

    def output(name: str) -> bytes:
        path = folder / f"{name}.jsonl"
        if not path.exists():
            with ScriptedServer(_refuse_some) as server:
                env = environment(GENERIC_BASE_URL=server.base_url)
                done = beam_batch(*_arguments(folder, path.name, *SELECTIONS[name]), env=env)
            assert done.returncode == 0, done.stderr
        return path.read_bytes()

    return output


@pytest.mark.parametrize(
    ("name", "engine"), [*((name, "direct") for name in SELECTIONS), ("sample", "two-processes")]
)
def test_a_selection_that_is_killed_ends_as_if_it_had_not_been(
    folder: Path, undisturbed: Callable[[str], bytes], name: str, engine: str
) -> None:
    calm = undisturbed(name)
    dice = random.Random(f"{name} {engine}")
    with ScriptedServer(_refuse_some, delay=0.02) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        args = _arguments(folder, "killed.jsonl", *SELECTIONS[name], "--resume", *ENGINES[engine])
        before = 0
        for _ in range(2):
            target = server.requests + dice.randint(5, 40)
            process = start(*args, env=env)
            wait_until(lambda target=target: server.requests >= target, process)
            assert process.poll() is None, process.communicate()
            interrupt(process, signal.SIGKILL)
            assert not (folder / "killed.jsonl").exists()
            resent = _resent(_sent(server))
            assert resent - before <= PARALLEL
            before = resent
        done = beam_batch(*args, env=env)
        assert done.returncode == 0, done.stderr
        assert _resent(_sent(server)) - before <= PARALLEL
    assert (folder / "killed.jsonl").read_bytes() == calm
    assert not (folder / ".killed.jsonl.batch").exists()


DYING = '''
"""Kills its process before the DIE_AT-th change under DIE_UNDER once a row is answered."""
import os, pathlib, shutil, signal
calls, answered = 0, False

def dying(name, real):
    def call(*args, **more):
        global calls, answered
        under = os.environ.get("DIE_UNDER")
        paths = [str(arg) for arg in args[:2] if under and under in str(arg)]
        if paths and "gauges/" not in paths[0] and (name == "touch" or os.path.exists(paths[0])):
            parts = pathlib.Path(os.environ["DIE_PARTS"])
            answered = answered or any(parts.glob("*.jsonl"))
            calls += answered
            if answered and calls == int(os.environ["DIE_AT"]):
                os.write(2, f"killed before {name} {paths}\\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **more)
    return call

for module, name in (
    (os, "replace"), (os, "rename"), (os, "unlink"), (os, "rmdir"), (shutil, "rmtree"),
    (pathlib.Path, "touch"),
):
    setattr(module, name, dying(name, getattr(module, name)))
'''

STARTER = '''
"""Forks one run a line of stdin: imports are paid once, and a kill -9 ends only the fork."""
import json, os, sys, traceback
import beam_batch.pipeline
from beam_batch import session
from beam_batch.cli.main import main

for line in sys.stdin:
    task = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.environ.update(task["env"])
            if task["rows_a_split"]:
                session.SPLIT_ROWS = task["rows_a_split"]
            sys.argv = ["beam-batch", *task["args"]]
            main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
'''


class Starter:
    """Starts runs that can be told to die before a step; use as a context manager."""

    def __init__(self, folder: Path, server: ScriptedServer) -> None:
        patch = folder / "patch"
        patch.mkdir()
        (patch / "sitecustomize.py").write_text(DYING)
        self._log = (folder / "stderr").open("w+")
        env = environment(GENERIC_BASE_URL=server.base_url)
        env["PYTHONPATH"] = os.pathsep.join([str(patch), str(ROOT)])
        self._process = subprocess.Popen(
            [sys.executable, "-c", STARTER],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def __enter__(self) -> Starter:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=120)
        self._log.close()

    def run(
        self, args: tuple[str, ...], die_at: int = 0, under: str = "", rows_a_split: int = 0
    ) -> int:
        """Run once and return the exit code; `die_at` 0 stands for no death.

        Only changes to paths with `under` in them count, by default those of the output's name.
        """
        self._log.truncate(0)
        self._log.seek(0)
        output = Path(args[args.index("-o") + 1])
        env = {
            "DIE_AT": str(die_at), "DIE_UNDER": under or output.name,
            "DIE_PARTS": str(output.with_name(f".{output.name}.batch") / "parts"),
        }  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        task = {"args": args, "env": env if die_at else {}, "rows_a_split": rows_a_split}
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def stderr(self) -> str:
        """Return what the last run said."""
        self._log.seek(0)
        return self._log.read()


def _deaths(
    starter: Starter, make: Callable[[int], tuple[str, ...]]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Kill a run before its first step, one like it before the fourth, until one survives.

    Every third step: all of them take minutes. Yields where it died, and its arguments.
    """
    for step in range(1, MOST_STEPS, 3):
        args = make(step)
        code = starter.run(args, die_at=step)
        if code == 0:
            assert step > 8, "hardly any step was tried"
            return
        assert code == -signal.SIGKILL, starter.stderr()
        yield f"step {step}, {starter.stderr().strip()}", args
    pytest.fail("the run never came to its end")


def test_a_kill_at_any_step_of_commit_and_removal_loses_and_resends_nothing(
    tmp_path: Path,
) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(1, FEW + 1)])

    def make(step: int) -> tuple[str, ...]:
        return _arguments(tmp_path, f"out-{step}.jsonl")

    with ScriptedServer() as server, Starter(tmp_path, server) as starter:
        asked = 0
        for died, args in _deaths(starter, make):
            code = starter.run((*args, "--resume"))
            assert code == 0, (died, starter.stderr())
            asked, sent = server.requests, server.requests - asked
            assert sent == FEW, died
            output = Path(args[args.index("-o") + 1])
            assert _row_numbers(output) == list(range(1, FEW + 1)), died
            assert all(record["ok"] for record in read_jsonl(output)), died
            assert not output.with_name(f".{output.name}.batch").exists(), died


def test_a_kill_at_any_step_of_commit_leaves_a_whole_folder_of_traces_behind(
    tmp_path: Path,
) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(1, FEW + 1)])

    def make(step: int) -> tuple[str, ...]:
        name = f"out-{step}.jsonl"
        return _arguments(tmp_path, name, "--export-traces", f"{tmp_path}/{name}.traces")

    with ScriptedServer() as server, Starter(tmp_path, server) as starter:
        asked = 0
        for died, args in _deaths(starter, make):
            code = starter.run((*args, "--resume"))
            assert code == 0, (died, starter.stderr())
            asked, sent = server.requests, server.requests - asked
            assert sent == FEW, died
            traces = Path(args[-1])
            lines = read_jsonl(traces / "manifest.jsonl")
            assert [line["row_number"] for line in lines] == list(range(1, FEW + 1)), died
            assert len({line["run_id"] for line in lines}) == 1, died
            named = sorted(line["trace"] for line in lines if line["trace"])
            assert sorted(path.name for path in traces.iterdir()) == ["manifest.jsonl", *named]


def test_a_kill_at_any_step_of_an_addition_s_commit_adds_each_answer_once(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(1, FEW + 1)])

    def telemetry(output: Path) -> Path:
        return output.with_name(f"t-{output.name}")

    def make(step: int) -> tuple[str, ...]:
        output = tmp_path / f"out-{step}.jsonl"
        output.write_bytes(old)
        telemetry(output).write_bytes(old_telemetry)
        more = ("--telemetry-output", str(telemetry(output)), "--resume")
        return _arguments(tmp_path, output.name, *more)

    base = _arguments(tmp_path, "base.jsonl", "--telemetry-output", str(tmp_path / "t.jsonl"))
    with ScriptedServer(_refuse_even) as server:
        done = beam_batch(*base, env=environment(GENERIC_BASE_URL=server.base_url))
    assert done.returncode == 0, done.stderr
    old, old_telemetry = ((tmp_path / name).read_bytes() for name in ("base.jsonl", "t.jsonl"))
    with ScriptedServer() as server, Starter(tmp_path, server) as starter:
        asked = 0
        for died, args in _deaths(starter, make):
            code = starter.run(args)
            assert code == 0, (died, starter.stderr())
            asked, sent = server.requests, server.requests - asked
            assert sent == FEW // 2, died
            output = Path(args[args.index("-o") + 1])
            assert output.read_bytes().startswith(old), died
            assert _row_numbers(output)[FEW:] == list(range(2, FEW + 1, 2)), died
            assert telemetry(output).read_bytes().startswith(old_telemetry), died
            assert _row_numbers(telemetry(output))[FEW:] == list(range(2, FEW + 1, 2)), died


def test_a_kill_after_a_rewrite_into_fewer_shards_can_be_resumed(tmp_path: Path) -> None:
    """The death is after the new shards are in place and before the run is noted as finished."""
    names = [f"{name}.jsonl" for name in "abc"]
    for place, name in enumerate(names):
        write_jsonl(tmp_path / name, [{"n": place * 2 + 1}, {"n": place * 2 + 2}])
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(1, FEW + 1)])
    args = _arguments(tmp_path, "out/", "--id-field", "n")
    apart = ("run", *(part for name in names for part in ("-i", str(tmp_path / name))), *args[3:])
    rewrite = (*args, "--resume", "--overwrite")
    with ScriptedServer() as server, Starter(tmp_path, server) as starter:
        assert starter.run(apart, rows_a_split=3) == 0, starter.stderr()
        assert len(list((tmp_path / "out").glob("part-*-of-00003.jsonl"))) == 3
        died = starter.run(rewrite, die_at=1, under="commit.json", rows_a_split=3)
        assert died == -signal.SIGKILL, starter.stderr()
        assert starter.run(rewrite, rows_a_split=3) == 0, starter.stderr()
        assert server.requests == FEW
    shards = sorted((tmp_path / "out").glob("part-*.jsonl"))
    assert [shard.name for shard in shards] == [
        "part-00000-of-00002.jsonl",
        "part-00001-of-00002.jsonl",
    ]
    assert [n for shard in shards for n in _row_numbers(shard)] == list(range(1, FEW + 1))


FAILED = [number for number in range(1, ROWS + 1) if _refused(number)]


class KilledAddition:
    """A finished output with failures, and a killed run that was answering them."""

    def __init__(self, folder: Path, old: bytes) -> None:
        self.args = _arguments(folder, "out.jsonl")
        self.output = folder / "out.jsonl"
        self.parts = folder / ".out.jsonl.batch" / "parts"
        self.old = old
        self.output.write_bytes(old)
        with ScriptedServer(delay=0.1) as server:
            env = environment(GENERIC_BASE_URL=server.base_url)
            process = start(*self.args, "--resume", "--parallel", "2", env=env)
            wait_until(lambda: server.requests >= 8, process)
            assert process.poll() is None, process.communicate()
            interrupt(process, signal.SIGKILL)
            self.asked = server.requests
        assert self.output.read_bytes() == self.old

    def kept(self) -> dict[str, bytes]:
        """Return what the work directory keeps of the answers."""
        return {path.name: path.read_bytes() for path in self.parts.iterdir()}

    def finish(self, *more: str) -> int:
        """Run to the end and return how many requests that took."""
        with ScriptedServer() as server:
            env = environment(GENERIC_BASE_URL=server.base_url)
            done = beam_batch(*self.args, *more, env=env)
            assert done.returncode == 0, done.stderr
            return server.requests

    def check_added(self, sent: int) -> None:
        """Check that there is one new envelope for each row that had failed."""
        assert self.output.read_bytes().startswith(self.old)
        added = read_jsonl(self.output)[ROWS:]
        assert [record["row_number"] for record in added] == FAILED
        assert all(record["ok"] for record in added)
        assert len(FAILED) <= self.asked + sent <= len(FAILED) + 2
        assert not self.parts.parent.exists()


@pytest.fixture
def killed(folder: Path, undisturbed: Callable[[str], bytes]) -> KilledAddition:
    return KilledAddition(folder, undisturbed("max-errors"))


def test_an_addition_that_is_killed_adds_each_answer_once(killed: KilledAddition) -> None:
    killed.check_added(killed.finish("--resume"))


@pytest.mark.parametrize("remedy", ["put-back", "overwrite", "resume-overwrite"])
def test_an_addition_whose_output_was_moved_away_is_refused_and_each_remedy_works(
    folder: Path, killed: KilledAddition, remedy: str
) -> None:
    kept = killed.kept()
    away = killed.output.rename(folder / "away.jsonl")
    with ScriptedServer() as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        refused = beam_batch(*killed.args, "--resume", env=env)
        assert refused.returncode == 2, refused.stderr
        assert server.requests == 0
    assert f"--output {killed.output}" in refused.stderr
    assert "Put it back" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert killed.kept() == kept
    assert away.read_bytes() == killed.old
    assert not killed.output.exists()
    if remedy == "put-back":
        killed.output.write_bytes(killed.old[:-100])
        shorter = beam_batch(
            *killed.args, "--resume", env=environment(GENERIC_BASE_URL="http://127.0.0.1:9/v1")
        )
        assert shorter.returncode == 2, shorter.stderr
        assert "shorter" in shorter.stderr
        assert killed.kept() == kept
        away.replace(killed.output)
        killed.check_added(killed.finish("--resume"))
        return
    killed.finish(*["--resume"] * (remedy == "resume-overwrite"), "--overwrite")
    assert _row_numbers(killed.output) == list(range(1, ROWS + 1))
    assert all(record["ok"] for record in read_jsonl(killed.output))
    assert away.read_bytes() == killed.old


def test_a_kill_while_planning_is_no_more_than_a_late_start(folder: Path) -> None:
    with (folder / "rows.jsonl").open("ab") as file:
        for n in range(ROWS + 1, 300_001):
            file.write(b'{"n": %d}\n' % n)
    listed = range(150, 300_001, 300)  # planning looks at every row, and few are answered
    (folder / "ids.txt").write_text("".join(f"{n}\n" for n in listed))
    args = (
        "run", "-i", str(folder / "rows.jsonl"), "-o", str(folder / "out.jsonl"), "-m", "echo",
        "--id-field", "n", "--ids", str(folder / "ids.txt"), "-p", "{{n}}",
        "--no-final-summary", "--no-progress",
    )  # fmt: skip
    work = folder / ".out.jsonl.batch"
    process = start(*args, env=environment())
    wait_until((work / "lock").exists, process)
    code, stderr = interrupt(process, signal.SIGKILL)
    assert code == -signal.SIGKILL, stderr
    assert (work / "lock").exists()
    assert not (work / "manifest.json").exists(), "it was not killed while planning"
    assert not (folder / "out.jsonl").exists()
    done = beam_batch(*args, "--resume", env=environment())
    assert done.returncode == 0, done.stderr
    assert [record["id"] for record in read_jsonl(folder / "out.jsonl")] == [str(n) for n in listed]
    assert not work.exists()
