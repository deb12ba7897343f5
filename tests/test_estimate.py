"""Estimates: what they say before a run, against what the run then takes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

import beam_batch
from beam_batch.calling.pricing import make_pricer
from beam_batch.errors import OptionsError, RunStopped
from beam_batch.estimate import estimate
from beam_batch.estimate.counting import Sizes, count_rows
from beam_batch.estimate.extrapolate import t_975, total_of
from beam_batch.estimate.report import dollars, duration
from beam_batch.estimate.tokens import make_counter
from beam_batch.inputs.plan import plan_rows
from beam_batch.options import EstimateSpec, PromptSpec, SchemaSpec, SourceSpec, parse_price
from beam_batch.providers import resolve_model
from beam_batch.providers.base import Usage
from tests.fakes import Answer, ScriptedServer, error_body, prompt_of
from tests.support import beam_batch as command
from tests.support import environment, read_jsonl, write_jsonl

SENTENCE = "the weather in spring was mild and every meadow stood in bloom, or so they said"
MINI = "openai.gpt-5.4-mini"
PROMPTS = {
    "short": "{{text}}",
    "medium": "Answer in one line. " + "Mind the usual rules of style. " * 60 + "{{text}}",
    "long": "Compare with this: "
    + "A long report about nothing in particular. " * 900
    + "{{text}}",
}


def _text(words: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(SENTENCE.split(), k=words))


def _rows(path: Path, count: int = 200) -> Path:
    sizes = random.Random(7)
    rows = [{"text": _text(sizes.randint(5, 400), n)} for n in range(count)]
    return write_jsonl(path, rows)


def _metered(number: int, body: dict[str, Any]) -> Answer:
    """Count tokens as no vocabulary does: by characters in, and out by the prompt and by chance."""
    texts = [message["content"] for message in body["messages"]]
    before = 7 + len("".join(texts)) * 2 // 7
    chance = hashlib.sha256(prompt_of(body).encode()).digest()[0]
    after = 20 + len(texts[-1]) // 40 + chance // 8
    return _used(before, after)


def _used(before: int, after: int, cached: int = 0, **more: Any) -> Answer:
    reply = {
        "id": "1",
        "model": "gpt-5.4-mini-2026-03-17",
        "choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": before,
            "completion_tokens": after,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }
    return Answer(body=json.dumps(reply | more).encode())


@pytest.fixture
def _account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")


def _serve(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)


def _spec(path: Path, **more: Any) -> EstimateSpec:
    defaults: dict[str, Any] = {"model": MINI, "prompt": PromptSpec(template="{{text}}")}
    return EstimateSpec(source=SourceSpec(input=str(path)), **(defaults | more))


def _default(found: dict[str, Any]) -> dict[str, Any]:
    [default] = [money for money in found["usd"] if money["tier"] == "default"]
    return default  # type: ignore[no-any-return]


@pytest.mark.usefixtures("_account")
@pytest.mark.parametrize("length", PROMPTS)
def test_an_estimate_is_within_a_tenth_of_what_the_run_then_takes(
    length: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, prompt = _rows(tmp_path / "rows.jsonl"), PromptSpec(template=PROMPTS[length])
    with ScriptedServer(_metered) as server:
        _serve(server, monkeypatch)
        found = estimate(_spec(path, prompt=prompt, probe=20))
        assert server.requests == 20
        summary = beam_batch.run(
            beam_batch.RunSpec(
                source=SourceSpec(input=str(path)),
                output=beam_batch.OutputSpec(output=str(tmp_path / "out.jsonl")),
                model=MINI,
                prompt=prompt,
            )
        )
    used = Usage(summary["usage"]["input_tokens"], summary["usage"]["output_tokens"])
    cost = make_pricer(resolve_model(MINI, {}), None).cost(used)
    assert cost is not None
    default = _default(found)
    assert default["total"] == pytest.approx(cost.usd, rel=0.1)
    assert default["low"] < default["total"] < default["high"]
    assert found["input_tokens"]["total"] == pytest.approx(used.input_tokens, rel=0.1)
    assert found["output_tokens"]["total"] == pytest.approx(used.output_tokens, rel=0.1)


@pytest.mark.usefixtures("_account")
def test_without_a_probe_input_is_priced_and_output_has_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "one two three"}, {"text": "four"}, {}])
    with ScriptedServer(_metered) as server:
        _serve(server, monkeypatch)
        monkeypatch.delenv("OPENAI_API_KEY")
        before = sorted(tmp_path.iterdir())
        found = estimate(
            _spec(
                path,
                model=f"{MINI}?max_tokens=100&service_tier=flex",
                call=beam_batch.CallSpec(tpm=60),
            )
        )
        assert server.requests == 0
    assert sorted(tmp_path.iterdir()) == before
    assert found["rows"] == {
        "selected": 3, "to_send": 2, "identical": 0, "not_sent": {"MissingTemplateField": 1}
    }  # fmt: skip
    count = make_counter(resolve_model(MINI, {})).count
    each = count(PromptSpec().instruction) + 11
    tokens = found["input_tokens"]
    assert (tokens["min"], tokens["max"]) == (each + 1, each + 3)
    assert tokens["counted"] == tokens["total"] == 2 * each + 4
    assert found["output_tokens"]["at_most"] == 200
    assert found["output_tokens"]["total"] is None
    by_tier = {money["tier"]: money for money in found["usd"]}
    assert list(by_tier) == ["default", "flex", "priority", "batch"]
    assert [tier for tier, money in by_tier.items() if money["asked_for"]] == ["flex"]
    assert by_tier["default"]["total"] is None
    assert by_tier["default"]["input"] == pytest.approx(tokens["total"] * 0.75e-6)
    assert by_tier["batch"]["input"] == pytest.approx(tokens["total"] * 0.375e-6)
    assert by_tier["default"]["at_most"] == pytest.approx((tokens["total"] * 0.75 + 900) / 1e6)
    assert found["seconds"] == {"at_rpm": None, "at_tpm": tokens["total"] + 200, "at_latency": None}
    assert found["probe"] is None


@pytest.mark.usefixtures("_account")
def test_a_probe_says_what_it_cost_and_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(number: int, body: dict[str, Any]) -> Answer:
        if prompt_of(body) == "word 3":
            return Answer(status=400, body=error_body("no"))
        return _used(1000, 100, cached=400, service_tier="priority")

    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": f"word {n}"} for n in range(5)])
    with ScriptedServer(script) as server:
        _serve(server, monkeypatch)
        found = estimate(_spec(path, probe=9))
    assert found["probe"]["rows"] == 5
    assert found["probe"]["failed"] == {"RequestRejected": 1}
    assert found["probe"]["input_tokens"] == 4000
    assert found["probe"]["cached_tokens"] == 1600
    # 4 rows: 600 * 0.75 + 400 * 0.075 + 100 * 4.5 = 930 millionths, at priority twice that
    assert found["probe"]["usd"] == pytest.approx(4 * 0.00186)
    assert _default(found)["total"] == pytest.approx(4 * 0.00093)
    by_tier = {money["tier"]: money["total"] for money in found["usd"]}
    assert by_tier["batch"] == by_tier["flex"] == pytest.approx(4 * 0.000465)
    assert by_tier["priority"] == pytest.approx(4 * 0.00186)
    assert _default(found)["low"] == _default(found)["high"] == _default(found)["total"]
    assert found["output_tokens"]["total"] == pytest.approx(400)


@pytest.mark.usefixtures("_account")
def test_the_probe_draws_other_rows_with_another_seed_and_the_same_with_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": str(n)} for n in range(300)])
    drawn = []
    for seed in (1, 1, 2):
        with ScriptedServer(_metered) as server:
            _serve(server, monkeypatch)
            source = SourceSpec(input=str(path), seed=seed, offset=100, limit=150)
            estimate(EstimateSpec(source=source, model=MINI, probe=6, prompt=_spec(path).prompt))
        drawn.append(sorted(int(prompt_of(body)) for body in server.bodies))
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(100 <= number < 250 for numbers in drawn for number in numbers)


def test_every_row_is_as_likely_to_be_drawn_and_rows_keep_their_order(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": str(n)} for n in range(10)])
    drawn: list[int] = []
    for seed in range(400):
        spec = _spec(path, probe=3)
        spec = dataclasses.replace(spec, source=SourceSpec(input=str(path), seed=seed))
        plan = plan_rows(spec.source, tmp_path)
        numbers = [row.number for row in count_rows(spec, plan, lambda content: 1).sample]
        assert numbers == sorted(set(numbers))
        drawn += numbers
    assert all(80 <= drawn.count(number) <= 160 for number in range(1, 11))


def test_images_are_named_as_not_counted(tmp_path: Path) -> None:
    row = {"text": "a", "picture": "https://pictures.example/1.png"}
    path = write_jsonl(tmp_path / "rows.jsonl", [row, row | {"text": "b"}])
    prompt = PromptSpec(template="{{image:picture}} {{text}} {{image:picture}}")
    assert estimate(_spec(path, prompt=prompt))["images_not_counted"] == 4


@pytest.mark.usefixtures("_account")
def test_a_refused_key_ends_the_probe_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _rows(tmp_path / "rows.jsonl", 30)
    refusal = Answer(status=401, body=error_body("bad key"))
    with ScriptedServer(lambda number, body: refusal) as server:
        _serve(server, monkeypatch)
        with pytest.raises(RunStopped, match=r"^the probe was not finished: .*\(401: bad key\)$"):
            estimate(_spec(path, probe=20))
        assert server.requests == 1
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.usefixtures("_account")
def test_answers_without_usage_leave_the_output_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _rows(tmp_path / "rows.jsonl", 5)
    with ScriptedServer(lambda number, body: _used(1, 1, usage=None)) as server:
        _serve(server, monkeypatch)
        found = estimate(_spec(path, probe=3))
    assert found["output_tokens"]["total"] is None
    assert found["input_tokens"]["total"] == found["input_tokens"]["counted"]
    assert _default(found)["total"] is None
    assert found["probe"]["usd"] is None


def test_a_prefix_worth_caching_is_priced_as_cached(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "x"}])
    prompt = PromptSpec(template="word " * 2000 + "{{text}}", instruction="Do it.")
    found = estimate(_spec(path, prompt=prompt))
    assert 2000 <= found["shared_prefix"]["tokens"] < 2010
    total = found["input_tokens"]["total"]
    assert found["shared_prefix"]["expected_cached_share"] == pytest.approx(1920 / total)
    expected = ((total - 1920) * 0.75 + 1920 * 0.075) / 1e6
    assert _default(found)["input_if_cached"] == pytest.approx(expected)
    shorter = PromptSpec(template="word " * 1000 + "{{text}}", instruction="Do it.")
    short = estimate(_spec(path, prompt=shorter))
    assert short["shared_prefix"]["expected_cached_share"] == 0
    claude = estimate(_spec(path, prompt=prompt, model="anthropic.claude-sonnet-4-5"))
    assert claude["shared_prefix"]["tokens"] < 10  # its cache mark stands before the template


def test_a_schema_counts_as_it_is_sent(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "x"}])
    schema = SchemaSpec(json='{"type":"object","properties":{"mood":{"type":"string"}}}')
    plain, shaped = estimate(_spec(path)), estimate(_spec(path, schema=schema))
    assert shaped["input_tokens"]["total"] > plain["input_tokens"]["total"] + 15


def test_without_a_vocabulary_four_bytes_are_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "quicktok", None)
    counter = make_counter(resolve_model(MINI, {}))
    assert (counter.name, counter.exact) == ("4 bytes a token", False)
    assert [counter.count(text) for text in ("", "abc", "abcde", "ääää")] == [0, 1, 2, 2]


@pytest.mark.parametrize(
    ("model", "name", "exact"),
    [
        (MINI, "o200k_base", True),
        ("openai.gpt-4", "cl100k_base", True),
        ("openai.gpt-99", "o200k_base", False),
        ("generic.gpt-4", "o200k_base", False),
        ("generic.gpt-5", "o200k_base", False),
        ("claude-sonnet-4-5", "o200k_base", False),
    ],
)
def test_a_model_is_counted_with_the_vocabulary_it_has(model: str, name: str, exact: bool) -> None:
    counter = make_counter(resolve_model(model, {}))
    assert (counter.name, counter.exact) == (name, exact)


def test_a_text_of_any_length_can_be_counted() -> None:
    count = make_counter(resolve_model(MINI, {})).count
    assert count("<|endoftext|>") > 1
    assert count("a\ud800") == count("a?")
    assert 1_200_000 / 4 < count("word " * 300_000) < 320_000


def test_totals_follow_the_line_through_the_sample() -> None:
    xs = list(range(10, 20))
    exact = total_of(xs, [3 + 2 * x for x in xs], 100, 2_000)
    assert exact.value == pytest.approx(3 * 100 + 2 * 2_000)
    assert exact.low == pytest.approx(exact.value)
    few = total_of([10, 20], [20, 40], 10, 500)  # through 0
    assert few.value == pytest.approx(1_000)
    assert total_of([10], [5], 10, 100) == (50, None, None)
    assert total_of([10], [5], 1, 10) == (5, 5, 5)
    assert total_of([1, 2], [5, 8], 2, 3) == (13, 13, 13)
    noisy = total_of([1, 2, 3], [5, 8, 5], 3, 6)
    assert noisy.low == noisy.high == noisy.value == pytest.approx(18)
    assert total_of([4] * 9, [1, 2] * 4 + [3], 18, 72).value == pytest.approx(30)


def test_an_interval_holds_the_truth_about_95_times_in_100() -> None:
    draw = random.Random(3)
    population = [(x, 5 + x * 0.3 + draw.gauss(0, 20)) for x in draw.choices(range(50, 500), k=900)]
    total_x = sum(x for x, _ in population)
    truth = sum(y for _, y in population)
    held = 0
    for _ in range(1_000):
        sample = draw.sample(population, 20)
        found = total_of([x for x, _ in sample], [y for _, y in sample], 900, total_x)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    assert 925 <= held <= 975


def test_student_s_t_is_that_of_the_tables() -> None:
    table = {1: 12.706, 2: 4.303, 3: 3.182, 5: 2.571, 8: 2.306, 18: 2.101, 100: 1.984}
    for free, value in table.items():
        assert t_975(free) == pytest.approx(value, rel=0.004)


def test_money_and_time_are_written_for_people() -> None:
    amounts = [0, 0.00001234, 0.001234, 0.5, 1234.567, None]
    assert [dollars(usd) for usd in amounts] == [
        "$0.00", "$1.2e-05", "$0.001234", "$0.5", "$1,234.57", "unknown",
    ]  # fmt: skip
    assert [duration(s) for s in (0.2, 59.4, 125, 7_290)] == [
        "1 s", "59 s", "2 min 5 s", "2 h 1 min",
    ]  # fmt: skip


def test_a_broken_row_is_counted_and_many_lengths_take_little_memory(tmp_path: Path) -> None:
    path = _rows(tmp_path / "rows.jsonl", 50)
    path.write_text(path.read_text() + "not json\n")
    found = estimate(_spec(path))
    assert found["rows"]["not_sent"] == {"InvalidJSON": 1}
    sizes = Sizes()
    for tokens in range(9_000, 30_000):
        sizes.add(tokens)
    assert len(sizes.counts) == 1_000 + 2_001
    assert sizes.total == sum(range(9_000, 30_000))
    assert sizes.mean == statistics.mean(range(9_000, 30_000))


def _cli(folder: Path, *args: str, **env: str) -> Any:
    return command(*args, cwd=folder, env=environment(**env))


def test_a_dry_run_sends_nothing_writes_nothing_and_needs_no_key(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "a"}])
    with ScriptedServer(_metered) as server:
        done = _cli(
            tmp_path, "run", "-i", "rows.jsonl", "-o", "sub/out.jsonl", "-m", MINI,
            "--summary-output", "summary.json", "--dry-run", OPENAI_BASE_URL=server.base_url,
        )  # fmt: skip
        assert server.requests == 0
    assert done.returncode == 0, done.stderr
    assert "priority" in done.stdout
    assert "1 selected, 1 to send" in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_the_command_prints_json_with_a_probe_and_every_limit(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "a"}, {"text": "b"}])
    with ScriptedServer(_metered) as server:
        done = _cli(
            tmp_path, "estimate", "-i", "rows.jsonl", "-m", "generic.x", "--probe", "1",
            "--price", "input=1,output=2", "--rpm", "2", "--tpm", "100", "--json",
            "--parallel", "2", GENERIC_BASE_URL=server.base_url,
        )  # fmt: skip
        assert server.requests == 1
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["price"] == "given"
    assert found["seconds"]["at_rpm"] == 60
    assert found["seconds"]["at_latency"] == pytest.approx(found["probe"]["mean_seconds"])
    used = found["input_tokens"]["total"] + 2 * found["output_tokens"]["total"]
    assert _default(found)["total"] == pytest.approx(used / 1e6)
    assert _default(found)["low"] is None
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.usefixtures("_account")
def test_rows_that_all_fail_leave_the_output_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _rows(tmp_path / "rows.jsonl", 5)
    call = beam_batch.CallSpec(max_attempts=1)
    with ScriptedServer(lambda number, body: Answer(status=500)) as server:
        _serve(server, monkeypatch)
        found = estimate(_spec(path, probe=3, call=call))
        assert server.requests == 3
    assert found["probe"]["failed"] == {"ServerError": 3}
    assert found["output_tokens"]["total"] is None


@pytest.mark.parametrize(
    ("model", "most"),
    [("google.gemini-2.5-pro?max_tokens=9", 9), ("google.gemini-2.5-pro", None),
     ("responses.gpt-5?max_tokens=3", 16), ("anthropic.claude-sonnet-4-5", 8192)],
)  # fmt: skip
def test_the_longest_answer_is_the_one_that_the_request_allows(
    model: str, most: int | None, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "x"}])
    assert estimate(_spec(path, model=model))["output_tokens"]["at_most"] == most


def test_an_unknown_price_is_called_unknown(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "a"}])
    done = _cli(tmp_path, "estimate", "-i", "rows.jsonl", "-m", "generic.x")
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("default")]
    assert line.split() == ["default", "unknown", "unknown", "unknown"]
    assert "$" not in done.stdout
    found = estimate(_spec(tmp_path / "rows.jsonl", model="generic.x"))
    assert (found["price"], found["usd"]) == ("unknown", [])


def test_a_probe_is_shown_with_its_interval(tmp_path: Path) -> None:
    _rows(tmp_path / "rows.jsonl", 60)
    with ScriptedServer(_metered) as server:
        done = _cli(
            tmp_path, "estimate", "-i", "rows.jsonl", "-m", MINI, "-p", "{{text}}", "--probe", "9",
            OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-test",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "95 % interval" in done.stdout
    assert "9 rows sent; it cost $" in done.stdout
    assert "extrapolated from the probe" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("estimate --probe 0", "--probe must be 1 or more, got 0."),
        ("estimate --rpm 0", "--rpm must be 1 or more, got 0."),
        ("estimate --tpm 0", "--tpm must be 1 or more, got 0."),
        ("estimate --price 5", "--price 5: write US dollars per million tokens"),
        ("estimate --probe 1", "set the environment variable OPENAI_API_KEY"),
        ("estimate --probe 1 -i gone.jsonl", "set the environment variable OPENAI_API_KEY"),
        ("estimate --files-root gone", "--files-root gone: no such folder."),
        ("run -o out.jsonl --probe 3", "--probe 3 is for an estimate: add --dry-run."),
        ("run -o out.jsonl --dry-run --parallel 0", "--parallel must be 1 or more"),
    ],
)
def test_a_mistake_is_named_with_exit_2(tmp_path: Path, arguments: str, words: str) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "a"}])
    done = _cli(tmp_path, *arguments.split(), "-i", "rows.jsonl", "-m", MINI)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_probe_that_is_refused_exits_without_a_resume_command(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "a"}])
    refusal = Answer(status=401, body=error_body("bad key"))
    with ScriptedServer(lambda number, body: refusal) as server:
        done = _cli(
            tmp_path, "estimate", "-i", "rows.jsonl", "-m", MINI, "--probe", "1",
            OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-test",
        )  # fmt: skip
    assert done.returncode == 1
    assert "the probe was not finished" in done.stderr
    assert "resume" not in done.stderr


def test_a_given_price_reaches_the_estimate(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a"}, {"text": "b"}])
    price = parse_price("input=1000000,output=0")
    found = estimate(_spec(path, model="generic.x", price=price))
    assert _default(found)["input"] == pytest.approx(found["input_tokens"]["total"])


def test_an_input_that_changes_meanwhile_is_an_error_of_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from beam_batch.estimate import counting

    def lose(*args: Any, **more: Any) -> Any:
        raise counting.InputLost("rows.jsonl is gone")

    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a"}])
    monkeypatch.setattr(counting, "read_rows", lose)
    with pytest.raises(OptionsError, match=r"--input rows.jsonl is gone"):
        estimate(_spec(path))
    assert read_jsonl(path) == [{"text": "a"}]


def test_identical_rows_are_counted_once_unless_all_are_sent(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": f"kind {n % 3}"} for n in range(30)])
    found = estimate(_spec(path))
    assert (found["rows"]["to_send"], found["rows"]["identical"]) == (3, 27)
    found = estimate(_spec(path, reuse=beam_batch.ReuseSpec(dedupe=False)))
    assert (found["rows"]["to_send"], found["rows"]["identical"]) == (30, 0)
