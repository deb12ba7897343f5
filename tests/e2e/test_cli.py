"""The command line: mistakes are named before anything is sent, and nothing is truncated."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import Answer, ScriptedServer, error_body
from tests.support import (
    ROOT,
    beam_batch,
    command,
    environment,
    interrupt,
    read_jsonl,
    start,
    wait_until,
    write_jsonl,
)

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "rows.jsonl", [{"id": f"r{n}", "n": n} for n in range(1, 11)])
    write_jsonl(tmp_path / "twice.jsonl", [{"id": "a"}, {"id": "b"}, {"id": "a"}])
    write_jsonl(tmp_path / "null.jsonl", [{"id": "a"}, {"id": None}])
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "wrong.json").write_text('{"type": "nonsense"}')
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "t.md").write_text("{{n}}")
    (tmp_path / "old.jsonl").write_text("old\n")
    (tmp_path / "rows.txt").write_text("x")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("-i rows.jsonl -o rows.jsonl -m echo --overwrite", "same file as --input"),
        ("-i rows.jsonl -o out.jsonl -m echo --error-output ./out.jsonl", "same file as --output"),
        ("-i rows.jsonl -o t.md -m echo --template t.md --overwrite", "same file as --template"),
        (
            "-i rows.jsonl -o o.jsonl -m echo --schema schema.json --summary-output schema.json",
            "same file as --schema",
        ),
        ("-i rows.jsonl -o out.jsonl -m echo --schema broken.json", "not JSON"),
        ("-i rows.jsonl -o out.jsonl -m echo --schema wrong.json", "not a valid JSON Schema"),
        ("-i rows.jsonl -o out.jsonl -m echo --schema list.json", "is an object, this is a list"),
        ("-i rows.jsonl -o out.jsonl -m echo --schema gone.json", "cannot be read"),
        ("-i rows.jsonl -o out.jsonl -m echo --schema-model json:loads", "not a Pydantic model"),
        ("-i rows.jsonl -o out.jsonl -m echo --schema-model json", "package.module:Class"),
        ("-i rows.jsonl -o out.jsonl -m nobody.x", "with a provider out of responses, openai"),
        ("-i rows.jsonl -o out.jsonl -m response.gpt", "Did you mean responses?"),
        ("-i rows.jsonl -o out.jsonl -m openai.x?top_k=3", "openai has no option 'top_k'"),
        ("-i rows.jsonl -o out.jsonl -m openai.x?temperature=9", "a number from 0 to 2"),
        ("-i rows.jsonl -o out.jsonl -m openai.x?transport=websocket", "auto, http, sse"),
        ("-i rows.jsonl -o out.jsonl -m openai.x", "OPENAI_API_KEY"),
        ("-i twice.jsonl -o out.jsonl -m echo --id-field id", "is the id of rows 1 and 3"),
        ("-i null.jsonl -o out.jsonl -m echo --id-field id", "row 2"),
        ("-i rows.jsonl -o old.jsonl -m echo", "--resume"),
        ("-i gone.jsonl -o out.jsonl -m echo", "no such file"),
        ("-i rows.txt -o out.jsonl -m echo", "use one of .jsonl, .ndjson"),
        ("-i . -o out.jsonl -m echo", "among the files of --input ."),
        ("-i rows.jsonl -o out.jsonl -m echo --prompt x --template t.md", "exclude each other"),
        (
            "-i rows.jsonl -o out.jsonl -m echo --schema schema.json --schema-model a:B",
            "exclude each other",
        ),
        ("-i rows.jsonl -o out.jsonl -m echo --parallel 0", "--parallel must be 1 or more"),
        ("-i rows.jsonl -o out.jsonl -m echo --limit -1", "--limit must be 0 or more"),
        ("-i rows.jsonl -o out.jsonl -m echo --price 1", "--price 1: write US dollars per million"),
        ("-i rows.jsonl -o out.jsonl -m echo --price input=1,output=-1", "--price output must be"),
        ("-i rows.jsonl -o out.jsonl -m echo --timeout 0", "--timeout must be more than 0"),
        ("-i rows.jsonl -o out.jsonl -m echo --timeout nan", "--timeout must be more than 0"),
        ("-i rows.jsonl -o out.jsonl -m echo --retry-wait nan", "--retry-wait must be 0 or more"),
        ("-i rows.jsonl -o out.jsonl -m echo --runner Bogus", "--runner Bogus"),
        ("-i rows.jsonl -o out.jsonl -m echo stray", "unexpected argument 'stray'"),
        ("-i rows.jsonl -o out.jsonl -m echo -- --no_such=1", "no flag of Beam's direct runner"),
        ("-i /dev/null -o out.jsonl -m echo", "device or a pipe"),
        ("-i rows.jsonl -o out.jsonl -m echo --error-output /dev/null", "device or a pipe"),
        ("-i rows.jsonl -o out.jsonl -m echo --work-dir t.md", "--work-dir"),
        ("-i rows.jsonl -o out.jsonl -m echo --work-dir s3://b/w", "--work-dir s3://b/w"),
        ("-i rows.jsonl -o s3://bucket/out.jsonl -m echo", "name a path"),
        ("-i rows.jsonl -o out.jsonl -m echo --instruction gone.md", "cannot be read"),
        ("-i rows.jsonl -o out.jsonl", "--model"),
        ("-i rows.jsonl -o out.jsonl -m echo --nonsense", "No such option"),
        ("-i rows.jsonl -o old.jsonl/ -m echo", "is a file"),
    ],
)
def test_a_mistake_is_named_with_exit_2_and_changes_nothing(
    folder: Path, arguments: str, words: str
) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    done = beam_batch("run", *arguments.split(), cwd=folder)
    assert done.returncode == 2, done.stderr
    told = " ".join(done.stderr.replace("│", " ").split())
    assert words in told
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_offset_sample_and_limit_choose_the_reference_s_rows(folder: Path) -> None:
    import random

    done = beam_batch(
        "run", "-i", "rows.jsonl", "-o", "out.jsonl", "-m", "echo", "-p", "{{n}}",
        "--offset", "2", "--sample", "5", "--seed", "7", "--limit", "4", "--parallel", "3",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pairs = list(enumerate(range(3, 11)))
    expected = [row for _, row in sorted(random.Random(7).sample(pairs, 5))][:4]
    assert [r["row_number"] for r in read_jsonl(folder / "out.jsonl")] == expected


@pytest.mark.parametrize("flag", ["--limit", "--sample"])
def test_no_rows_make_empty_outputs(folder: Path, flag: str) -> None:
    done = beam_batch(
        "run", "-i", "rows.jsonl", "-o", "out.jsonl", "-m", "echo", flag, "0", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "out.jsonl").read_bytes() == b""


def test_a_directory_output_is_numbered_shards_in_input_order(folder: Path) -> None:
    write_jsonl(folder / "many.jsonl", [{"n": n} for n in range(12_000)])
    args = ("run", "-i", "many.jsonl", "-o", "shards/", "-m", "echo", "-p", "{{n}}")
    assert beam_batch(*args, cwd=folder).returncode == 0
    names = sorted(path.name for path in (folder / "shards").iterdir())
    assert names == [f"part-{n:05d}-of-00003.jsonl" for n in range(3)]
    results = [r["result"] for name in names for r in read_jsonl(folder / "shards" / name)]
    assert results == [str(n) for n in range(12_000)]
    assert beam_batch(*args, cwd=folder).returncode == 2
    again = beam_batch(*args, "--resume", "--overwrite", cwd=folder)
    assert json.loads(again.stdout)["skipped_rows"] == 12_000


def test_resume_with_overwrite_makes_one_file_in_order_and_keeps_successes(folder: Path) -> None:
    def script(number: int, body: dict[str, object]) -> Answer:
        text = body["messages"][-1]["content"]  # type: ignore[index]
        return Answer(status=400, body=error_body("no")) if text in ("2", "5") else Answer()

    args = ("run", "-i", "rows.jsonl", "-o", "out.jsonl", "-m", "generic.m", "-p", "{{n}}")
    more = ("--id-field", "id", "--error-output", "err.jsonl", "--no-final-summary")
    with ScriptedServer(script) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        assert beam_batch(*args, *more, env=env, cwd=folder).returncode == 0
    assert [r["id"] for r in read_jsonl(folder / "err.jsonl")] == ["r2", "r5"]
    with ScriptedServer() as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        done = beam_batch(*args, *more, "--resume", "--overwrite", env=env, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert server.requests == 2
    results = read_jsonl(folder / "out.jsonl")
    assert [r["id"] for r in results] == [f"r{n}" for n in range(1, 11)]
    assert all(r["ok"] for r in results)
    assert (folder / "err.jsonl").read_bytes() == b""


def test_preview_shows_prompts_and_requests_masks_the_key_and_sends_nothing(folder: Path) -> None:
    with ScriptedServer() as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-canary-key")
        done = beam_batch(
            "preview", "-i", "rows.jsonl", "-m", "responses.gpt-5.4-mini", "-p", "Row {{n}}",
            "--schema", "schema.json", "--rows", "2", env=env, cwd=folder,
        )  # fmt: skip
        assert server.requests == 0
    assert done.returncode == 0, done.stderr
    assert "Row 1" in done.stdout
    assert "Row 2" in done.stdout
    assert "Row 3" not in done.stdout
    assert f"POST {server.base_url}/responses" in done.stdout
    assert '"type": "json_schema"' in done.stdout
    assert "Authorization: Bearer ***" in done.stdout
    assert "sk-canary-key" not in done.stdout + done.stderr


def test_progress_every_prints_plain_lines_on_stderr_only(folder: Path) -> None:
    done = beam_batch(
        "run", "-i", "rows.jsonl", "-o", "out.jsonl", "-m", "echo", "--progress-every", "5",
        "--no-final-summary", cwd=folder,
    )  # fmt: skip
    assert done.stdout == ""
    assert "processed=10 failed=0" in done.stderr


def test_no_secret_is_in_any_file_in_ps_in_errors_or_in_the_pipeline(folder: Path) -> None:
    key = "sk-canary-do-not-leak-4711"
    bad = Answer(status=400, body=error_body(f"your key {key} is odd"))
    write_jsonl(folder / "many.jsonl", [{"n": n} for n in range(300)])
    args = (
        "run", "-i", "many.jsonl", "-o", "out.jsonl", "-m", "openai.m", "-p", "{{n}}",
        "--error-output", "e.jsonl", "--telemetry-output", "t.jsonl", "--summary-output", "s.json",
        "--keep-temp", "--parallel", "4",
    )  # fmt: skip
    script = lambda number, body: bad if number % 2 else Answer()  # noqa: E731
    with ScriptedServer(script, delay=0.02) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY=key)
        process = start(*args, env=env, cwd=folder, fresh=True)
        wait_until(lambda: server.requests > 20, process)
        shown = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True)
        assert "many.jsonl" in shown.stdout
        assert key not in shown.stdout
        _, stopped = interrupt(process, 2)  # type: ignore[arg-type]
        done = beam_batch(*args, "--resume", env=env, cwd=folder, fresh=True)
        assert server.headers[0]["Authorization"] == f"Bearer {key}"
    assert done.returncode == 0, done.stderr
    assert key not in stopped + done.stderr + done.stdout
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(".batch" in str(path) for path in files)
    for path in files:
        assert key.encode() not in path.read_bytes(), path
    assert _pickled(env, instruction=f"plain {key}").count(key) > 0, "the search is blind"
    assert key not in _pickled(env, instruction="plain")


def _pickled(env: dict[str, str], instruction: str) -> str:
    """Return the pipeline of a call, with every pickle in it opened."""
    code = (
        "import sys, beam_batch, apache_beam as beam\n"
        "from apache_beam.internal import pickler\n"
        "p = beam.Pipeline(options=beam.options.pipeline_options.PipelineOptions([]))\n"
        "rows = p | beam.Create(['{}']) | beam_batch.RenderPrompts()\n"
        "rows.prompts | beam_batch.CallModel('openai.m', instruction=sys.argv[1])\n"
        "proto = p.to_runner_api()\n"
        "print(proto)\n"
        "for step in proto.components.transforms.values():\n"
        "    if step.spec.urn == 'beam:transform:pardo:v1':\n"
        "        payload = beam.portability.api.beam_runner_api_pb2.ParDoPayload()\n"
        "        payload.ParseFromString(step.spec.payload)\n"
        "        fn = pickler.loads(payload.do_fn.payload)[0]\n"
        "        print({k: str(v) for k, v in vars(fn).items()})\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, instruction],
        env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "WindowSpec" in shown.stdout
    return shown.stdout + shown.stderr


def test_a_folder_that_cannot_be_made_is_named(folder: Path) -> None:
    done = beam_batch("run", "-i", "rows.jsonl", "-o", "t.md/o.jsonl", "-m", "echo", cwd=folder)
    assert done.returncode == 2
    assert "--output t.md/o.jsonl: cannot make its folder" in done.stderr


def test_a_work_dir_that_holds_somebody_s_files_is_refused_and_left_alone(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("years of work")
    args = ("run", "-i", "rows.jsonl", "-o", "out.jsonl", "-m", "echo", "--work-dir", "mine")
    for more in ((), ("--overwrite",), ("--resume",)):
        done = beam_batch(*args, *more, cwd=folder)
        assert done.returncode == 2, done.stderr
        assert "thesis.txt" in done.stderr
    assert [path.name for path in (folder / "mine").iterdir()] == ["thesis.txt"]


def test_shards_leave_the_other_files_of_their_folder_alone(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "rows.jsonl").write_bytes((folder / "rows.jsonl").read_bytes())
    before = (folder / "data" / "rows.jsonl").read_bytes()
    inside = beam_batch(
        "run", "-i", "data/rows.jsonl", "-o", "data/", "-m", "echo", "--overwrite", cwd=folder
    )
    assert inside.returncode == 2
    assert "--input data/rows.jsonl is inside --output data/" in inside.stderr
    beside = ("run", "-i", "rows.jsonl", "-o", "data/", "-m", "echo")
    assert beam_batch(*beside, cwd=folder).returncode == 0
    assert beam_batch(*beside, "--overwrite", "--limit", "1", cwd=folder).returncode == 0
    errors = beam_batch(
        "run", "-i", "rows.jsonl", "-o", "new/", "-m", "echo", "--error-output", "new/e.jsonl",
        cwd=folder,
    )  # fmt: skip
    assert errors.returncode == 2
    assert (folder / "data" / "rows.jsonl").read_bytes() == before


def test_shards_can_go_to_the_current_folder(folder: Path) -> None:
    (folder / "here").mkdir()
    done = beam_batch("run", "-i", "../rows.jsonl", "-o", "./", "-m", "echo", cwd=folder / "here")
    assert done.returncode == 0, done.stderr
    assert [p.name for p in (folder / "here").iterdir()] == ["part-00000-of-00001.jsonl"]


@pytest.mark.parametrize("flag", ["--error-output", "--telemetry-output", "--summary-output"])
def test_existing_side_files_are_not_replaced_unasked(folder: Path, flag: str) -> None:
    args = ("run", "-i", "rows.jsonl", "-o", "out.jsonl", "-m", "echo", flag, "old.jsonl")
    done = beam_batch(*args, cwd=folder)
    assert done.returncode == 2
    assert f"{flag} old.jsonl exists" in done.stderr
    assert (folder / "old.jsonl").read_text() == "old\n"
    assert beam_batch(*args, "--overwrite", cwd=folder).returncode == 0
    assert (folder / "old.jsonl").read_text() != "old\n"


def test_a_finished_output_is_not_mixed_with_answers_to_other_settings(folder: Path) -> None:
    args = ("run", "-i", "rows.jsonl", "-o", "out.jsonl", "-m", "echo", "--id-field", "id")
    assert beam_batch(*args, "-p", "A {{n}}", "--limit", "4", cwd=folder).returncode == 0
    before = (folder / "out.jsonl").read_bytes()
    mixed = beam_batch(*args, "-p", "B {{n}}", "--resume", cwd=folder)
    assert mixed.returncode == 2
    assert "--template or --prompt changed" in mixed.stderr
    assert (folder / "out.jsonl").read_bytes() == before
    longer = beam_batch(*args, "-p", "A {{n}}", "--resume", cwd=folder)
    assert json.loads(longer.stdout)["skipped_rows"] == 4
    fewer = beam_batch(
        *args, "-p", "A {{n}}", "--resume", "--overwrite", "--limit", "2", cwd=folder
    )
    assert fewer.returncode == 2
    assert "holds 10 answers, but only 2 of their rows are selected" in fewer.stderr
    others = ("--resume", "--overwrite", "--offset", "5", "--limit", "5")
    assert beam_batch(*args, "-p", "A {{n}}", *others, cwd=folder).returncode == 2
    anew = beam_batch(*args, "-p", "B {{n}}", "--resume", "--overwrite", cwd=folder)
    assert json.loads(anew.stdout)["ok_rows"] == 10
    assert read_jsonl(folder / "out.jsonl")[0]["result"] == "B 1"


def test_without_ids_a_finished_output_is_not_mixed_with_another_input(folder: Path) -> None:
    args = ("run", "-i", "rows.jsonl", "-o", "out.jsonl", "-m", "echo")
    assert beam_batch(*args, cwd=folder).returncode == 0
    write_jsonl(folder / "rows.jsonl", [{"id": "new"}])
    done = beam_batch(*args, "--resume", cwd=folder)
    assert done.returncode == 2
    assert "--input (content) changed" in done.stderr


def test_overwrite_on_an_unfinished_addition_makes_one_envelope_a_row(folder: Path) -> None:
    def script(number: int, body: dict[str, object]) -> Answer:
        text = body["messages"][-1]["content"]  # type: ignore[index]
        return Answer(status=400, body=error_body("no")) if text == "2" else Answer()

    args = ("run", "-i", "rows.jsonl", "-o", "out.jsonl", "-m", "generic.m", "-p", "{{n}}")
    with ScriptedServer(script) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        assert beam_batch(*args, env=env, cwd=folder).returncode == 0
        stopped = beam_batch(*args, "--resume", "--max-errors", "0", env=env, cwd=folder)
        assert stopped.returncode == 3
        done = beam_batch(*args, "--resume", "--overwrite", env=env, cwd=folder)
        assert done.returncode == 1, done.stderr
    assert [r["row_number"] for r in read_jsonl(folder / "out.jsonl")] == list(range(1, 11))


def test_a_row_of_a_hundred_levels_can_be_committed_and_resumed(folder: Path) -> None:
    deep = "x"
    for _ in range(99):
        deep = {"a": deep}  # type: ignore[assignment]
    write_jsonl(folder / "deep.jsonl", [{"id": "deep", "v": deep}, {"id": "b"}])
    args = ("run", "-i", "deep.jsonl", "-o", "out.jsonl", "-m", "echo", "--include-input")
    done = beam_batch(*args, "-p", "{{v}}", cwd=folder)
    assert json.loads(done.stdout)["ok_rows"] == 1, done.stderr
    again = beam_batch(*args, "-p", "{{v}}", "--resume", cwd=folder)
    assert json.loads(again.stdout)["skipped_rows"] == 1
    assert json.loads(again.stdout)["torn_lines"] == 0


@pytest.mark.parametrize("output", ["data/out/r.jsonl"])
def test_an_output_that_no_glob_of_the_input_takes_in_is_not_refused_for_that(
    folder: Path, output: str
) -> None:
    (folder / "data" / "out").mkdir(parents=True)
    write_jsonl(folder / "data" / "a.jsonl", [{"id": "a"}])
    env = environment(HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_DISABLE_TELEMETRY="1")
    done = beam_batch("run", "-i", "data/*.jsonl", "-o", output, "-m", "echo", cwd=folder, env=env)
    assert "among the files" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_resume_to_another_output_is_refused(folder: Path) -> None:
    args = ("run", "-i", "rows.jsonl", "-m", "echo", "--work-dir", "w")
    assert beam_batch(*args, "-o", "a.jsonl", "--max-errors", "0", cwd=folder).returncode == 3
    other = beam_batch(*args, "-o", "old.jsonl", "--resume", cwd=folder)
    assert other.returncode == 2
    assert "--output was" in other.stderr
    side = beam_batch(*args, "-o", "a.jsonl", "--error-output", "old.jsonl", "--resume", cwd=folder)
    assert side.returncode == 2
    assert (folder / "old.jsonl").read_text() == "old\n"


@pytest.mark.parametrize("manifest", ["[]", "{}", "null", '{"torn'])
def test_a_manifest_that_is_none_is_named_and_can_be_overwritten(
    folder: Path, manifest: str
) -> None:
    (folder / "w").mkdir()
    (folder / "w" / "manifest.json").write_text(manifest)
    args = ("run", "-i", "rows.jsonl", "-o", "out.jsonl", "-m", "echo", "--work-dir", "w")
    done = beam_batch(*args, "--resume", cwd=folder)
    assert done.returncode == 2
    assert "manifest.json" in done.stderr
    assert beam_batch(*args, "--overwrite", cwd=folder).returncode == 0


def test_a_key_that_cannot_be_one_is_named_without_showing_it(folder: Path) -> None:
    args = ("run", "-i", "rows.jsonl", "-o", "out.jsonl", "-m", "openai.m", "-p", "{{n}}")
    done = beam_batch(*args, env=environment(OPENAI_API_KEY="sk-one\nsk-two"), cwd=folder)
    assert done.returncode == 2
    assert "OPENAI_API_KEY holds a character" in done.stderr
    assert "sk-one" not in done.stderr
    with ScriptedServer() as server:
        env = environment(OPENAI_API_KEY="sk-one\n", OPENAI_BASE_URL=server.base_url)
        assert beam_batch(*args, env=env, cwd=folder).returncode == 0
        assert server.headers[0]["Authorization"] == "Bearer sk-one"


def test_a_live_line_is_shown_on_a_terminal(folder: Path) -> None:
    import pty

    driver, terminal = pty.openpty()
    with ScriptedServer(delay=0.3) as server:
        env = environment(GENERIC_BASE_URL=server.base_url, TERM="xterm", COLUMNS="100")
        args = ("run", "-i", "rows.jsonl", "-o", "out.jsonl", "-m", "generic.m", "--parallel", "2")
        process = subprocess.Popen(
            command(*args), env=env, cwd=folder, stderr=terminal, stdout=subprocess.DEVNULL
        )
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed when the run ends
            while block := os.read(driver, 4096):
                shown += block
        os.close(driver)
        assert process.wait(120) == 0
    assert b"/10" in shown
    assert b"in flight" in shown
    assert b"rows/s" in shown


def test_a_kept_work_directory_of_a_finished_run_is_not_taken_for_unfinished(folder: Path) -> None:
    args = ("run", "-i", "rows.jsonl", "-o", "out.jsonl", "-m", "echo", "--keep-temp")
    assert beam_batch(*args, cwd=folder).returncode == 0
    assert "--output out.jsonl exists" in beam_batch(*args, cwd=folder).stderr
    again = beam_batch(*args, "--resume", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["skipped_rows"] == 10
    assert len(read_jsonl(folder / "out.jsonl")) == 10


def test_help_groups_the_flags() -> None:
    done = beam_batch("run", "--help", cwd=ROOT, fresh=True)
    assert done.returncode == 0
    for title in ("Input", "Model and prompt", "Output", "Calling", "Running"):
        assert title in done.stdout
    assert command("run")[1:3] == ["-m", "beam_batch"]
