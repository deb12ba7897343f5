"""beam-batch cache ls and prune, as a user runs them."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from beam_batch.cli.main import cli
from beam_batch.errors import OptionsError
from beam_batch.reuse.making import open_cache
from beam_batch.reuse.upkeep import in_units, parse_age, parse_size
from tests.reuse.support import kept, key
from tests.support import beam_batch

DAY = 86_400


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A cache of 30 replies, one a day and the newest of today; every third of another model."""
    place = str(tmp_path / "cache") if request.param == "local" else f"memory://{tmp_path.name}"
    store = open_cache(place)
    now = time.time()
    for number in range(30):
        asked = "openai.m" if number % 3 else "google.g"
        store.put(key(number), kept("x" * 1000, now - number * DAY - 60, asked))
    store.close()
    return place


def call(*args: str) -> Result:
    return CliRunner().invoke(cli, ["cache", *args], catch_exceptions=True)


def listed(place: str) -> dict[str, int]:
    done = call("ls", place, "--json")
    assert done.exit_code == 0, done.exception
    return {name: part["replies"] for name, part in json.loads(done.stdout)["models"].items()}


def test_ls_counts_in_all_and_by_model(place: str) -> None:
    found = json.loads(call("ls", place, "--json").stdout)
    assert (found["replies"], found["bytes"] > 30_000) == (30, True)
    assert found["oldest"] < found["newest"] <= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    assert found["models"]["openai.m"] | {"bytes": 0} == {
        "replies": 20, "bytes": 0, "input_tokens": 200, "output_tokens": 100,
    }  # fmt: skip
    assert list(found["models"]) == ["google.g", "openai.m"]
    text = call("ls", place).stdout
    assert text.startswith(f"{place}: 30 replies, 3")
    assert "openai.m: 20 replies, " in text
    assert "200 input and 100 output tokens" in text


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        (["--older-than", "10d"], {"google.g": 4, "openai.m": 6}),
        (["--model", "google.g"], {"openai.m": 20}),
        (["--model", "google.g", "--older-than", "10"], {"google.g": 4, "openai.m": 20}),
        (["--model", "nobody"], {"google.g": 10, "openai.m": 20}),
        (["--max-size", "1GB"], {"google.g": 10, "openai.m": 20}),
        (["--max-size", "0"], {}),
        (["--model", "openai.m", "--max-size", "0kB"], {"google.g": 10}),
    ],
)
def test_prune_removes_what_the_rules_say(
    place: str, rules: list[str], left: dict[str, int]
) -> None:
    done = call("prune", place, "--yes", *rules)
    assert done.exit_code == 0, done.exception
    gone = 30 - sum(left.values())
    assert done.stdout.startswith(f"removed {gone} of 30 replies (")
    assert listed(place) == left


def test_prune_to_a_size_keeps_the_newest(place: str) -> None:
    size = json.loads(call("ls", place, "--json").stdout)["bytes"] // 30
    call("prune", place, "--yes", "--max-size", str(size * 6 + 100))
    assert listed(place) == {"google.g": 2, "openai.m": 4}


def test_prune_gives_the_space_back(tmp_path: Path) -> None:
    store = open_cache(str(tmp_path))
    for number in range(2000):
        store.put(key(number), kept("x" * 1000))
    store.close()
    before = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert call("prune", str(tmp_path), "--yes", "--max-size", "100kB").exit_code == 0
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < before / 5
    with sqlite3.connect(tmp_path / "replies.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_prune_asks_first(place: str) -> None:
    done = call("prune", place, "--max-size", "0")
    assert isinstance(done.exception, OptionsError)
    assert "Remove 30 of 30 replies" in str(done.exception)
    assert "--yes" in str(done.exception)
    assert sum(listed(place).values()) == 30


def test_a_folder_that_is_no_cache_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "replies.sqlite").write_text("not a database")
    for place in (str(tmp_path), str(tmp_path / "other"), "memory://no-cache"):
        for command in (["ls", place], ["prune", place, "--yes", "--max-size", "0"]):
            done = call(*command)
            assert isinstance(done.exception, OptionsError)
            assert f"{place} is no cache of beam-batch" in str(done.exception)
    assert isinstance(call("ls", str(tmp_path / "missing")).exception, OptionsError)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "other", "precious", "replies.sqlite",
    ]  # fmt: skip


def test_mistakes_end_in_one_message(tmp_path: Path) -> None:
    done = beam_batch("cache", "prune", tmp_path)
    assert (done.returncode, done.stderr) == (
        2, "Error: say what goes: --older-than 30d, --model NAME or --max-size 2GB.\n",
    )  # fmt: skip
    done = beam_batch("cache", "prune", tmp_path, "--older-than", "soon")
    assert (done.returncode, "'soon'" in done.stderr) == (2, True)
    done = beam_batch(
        "run", "-i", "x.jsonl", "-o", "o.jsonl", "-m", "echo", "--cache", "hf://a", cwd=tmp_path
    )
    assert (done.returncode, done.stderr.startswith("Error: --cache hf://a: ")) == (2, True)


def test_ages_and_sizes_are_read_as_people_write_them() -> None:
    ages = {"30d": 30 * DAY, "2": 2 * DAY, "12h": 43_200, "1.5w": 10.5 * DAY, "90s": 90, "5 m": 300}
    assert {text: parse_age("--a", text) for text in ages} == ages
    sizes = {"2GB": 2e9, "500mb": 5e8, "1KiB": 1024, "1.5k": 1500, "7": 7, "7 B": 7, "1T": 1e12}
    assert {text: parse_size("--s", text) for text in sizes} == sizes
    for text in ("", "-1d", "d", "1y", "1 d d"):
        with pytest.raises(OptionsError, match="--a must be an age"):
            parse_age("--a", text)
    for text in ("", "-1", "GB", "1PB", "nan"):
        with pytest.raises(OptionsError, match="--s must be a size"):
            parse_size("--s", text)
    assert [in_units(n) for n in (0, 999, 1500, 2e9, 3e12)] == [
        "0 bytes", "999 bytes", "1.5 kB", "2.0 GB", "3.0 TB",
    ]  # fmt: skip
