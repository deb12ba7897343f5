"""The Hub as input: a commit is read, no more of it than is needed, and no token is left behind."""

from __future__ import annotations

import io
import json
import random
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub import (
    CONVERTED,
    CUT,
    DROP,
    Asked,
    Files,
    Hub,
    Refusal,
    Script,
    Verdict,
    without_waits,
)
from tests.support import beam_batch, read_jsonl

REPO = "owner/name"
URI = f"hf://datasets/{REPO}"
TOKEN = "hf_ThisTokenMustNotBeLeftBehind"
OTHER_TOKEN = "hf_OfSomebodyWithoutRights"
FOOTER = 64 << 10
"""pyarrow asks for the footer with this many bytes at the end of a file."""

Run = Callable[..., subprocess.CompletedProcess[str]]


def jsonl(*values: object, field: str = "n") -> bytes:
    return b"".join(json.dumps({field: value}).encode() + b"\n" for value in values)


def parquet(*values: object, field: str = "n", group: int | None = None, **columns: Any) -> bytes:
    target = io.BytesIO()
    table = pa.table({field: pa.array(values), **columns})
    pq.write_table(table, target, row_group_size=group, compression="none", use_dictionary=False)
    return target.getvalue()


@cache
def large_parquet() -> bytes:
    """Return 12 MB of Parquet in six row groups."""
    dice = random.Random(8)
    text = [dice.randbytes(500).hex() for _ in range(12_000)]
    return parquet(*range(1, 12_001), group=2_000, text=text)


@cache
def many_rows() -> bytes:
    """Return a Parquet file that is cut into four splits, a row group and about 300 KB each."""
    return parquet(*range(1, 20_001), group=5_000, more=[f"{n:050d}" for n in range(20_000)])


def group_span(data: bytes, group: int) -> tuple[int, int]:
    """Return the first byte of a row group and the one behind its last."""
    columns = pq.read_metadata(io.BytesIO(data)).row_group(group)
    chunks = [columns.column(place) for place in range(columns.num_columns)]
    return (
        min(chunk.data_page_offset for chunk in chunks),
        max(chunk.data_page_offset + chunk.total_compressed_size for chunk in chunks),
    )


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(tokens=(TOKEN, OTHER_TOKEN)) as hub:
        yield hub


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Run:
    """Runs with the echo model and prompt {{n}}, by default; waits between tries are cut short."""

    def run(uri: str, *args: object, **env: str) -> subprocess.CompletedProcess[str]:
        done = beam_batch(
            "run", "-i", uri, "-o", "out.jsonl", "-m", "echo", "-p", "{{n}}", *args,
            env=without_waits(hub.environment(tmp_path, **env), tmp_path / "quick"),
            cwd=tmp_path,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def results(folder: Path) -> list[str]:
    """Return the answers; every row must have one, and rows must be numbered as they stand."""
    envelopes = read_jsonl(folder / "out.jsonl")
    assert [e["row_number"] for e in envelopes] == list(range(1, len(envelopes) + 1))
    assert all(e["ok"] for e in envelopes), [e["error"] for e in envelopes if not e["ok"]][:3]
    return [e["result"] for e in envelopes]


def answered(run: Run, folder: Path, uri: str, *args: object, **env: str) -> list[str]:
    done = run(uri, *args, **env)
    assert done.returncode == 0, done.stderr
    return results(folder)


def refused(run: Run, uri: str, *args: object, **env: str) -> str:
    """Run what must be refused as a mistake of the user's; return what is said."""
    done = run(uri, *args, **env)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert done.stderr.startswith("Error: "), done.stderr
    return done.stderr


def spans(hub: Hub) -> list[tuple[int, int]]:
    return [asked.span for asked in hub.log if asked.is_bytes]


# What a name stands for


def test_config_and_split_choose_from_the_converted_parquet(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    hub.add(
        REPO,
        {"raw.bin": b"?"},
        {
            "en/test/0000.parquet": parquet("en-test"),
            "en/train/0000.parquet": parquet("en-1", "en-2"),
            "en/train/0001.parquet": parquet("en-3"),
            "fr/train/0000.parquet": parquet("fr"),
        },
    )
    uri = f"{URI}?config=en&split=train"
    assert answered(run, tmp_path, uri) == ["en-1", "en-2", "en-3"]


def test_a_split_alone_takes_the_only_config(run: Run, hub: Hub, tmp_path: Path) -> None:
    tables = {"plain/a/0000.parquet": parquet("a"), "plain/b/0000.parquet": parquet("b")}
    hub.add(REPO, {}, tables)
    assert answered(run, tmp_path, f"{URI}?split=b") == ["b"]


def test_a_config_alone_takes_all_its_splits(run: Run, hub: Hub, tmp_path: Path) -> None:
    tables = {
        "x/b/0000.parquet": parquet("b"),
        "x/a/0000.parquet": parquet("a"),
        "y/a/0000.parquet": parquet("other"),
    }
    hub.add(REPO, {}, tables)
    assert answered(run, tmp_path, f"{URI}?config=x") == ["a", "b"]


def test_a_partly_converted_split_goes_by_its_name(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.add(REPO, {}, {"default/partial-train/0000.parquet": parquet("part")})
    assert answered(run, tmp_path, f"{URI}?config=default&split=train") == ["part"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?config=de&split=train", ["no config 'de'", "en, fr"]),
        ("?config=en&split=dev", ["no split 'dev'", "test, train"]),
        ("?split=train", ["no config 'default'", "en, fr"]),
    ],
    ids=["config", "split", "no-config"],
)
def test_a_wrong_config_or_split_names_those_that_exist(
    run: Run, hub: Hub, query: str, words: list[str]
) -> None:
    tables = ("en/train", "en/test", "fr/train")
    hub.add(REPO, {}, {f"{table}/0000.parquet": parquet(1) for table in tables})
    said = refused(run, URI + query)
    for word in words:
        assert word in said


def test_a_config_of_a_dataset_without_converted_parquet_says_so(run: Run, hub: Hub) -> None:
    hub.add(REPO, {"a.jsonl": jsonl(1)})
    assert "without converted Parquet" in refused(run, f"{URI}?config=default")


def test_the_one_data_file_is_found_and_read_with_limit_and_parallel(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    files = {"README.md": b"# x", ".gitattributes": b"*", "data/rows.csv": b"n\n1\n2\n3\n4\n5\n"}
    hub.add(REPO, files, {"default/train/0000.parquet": parquet("converted")})
    assert answered(run, tmp_path, URI, "--limit", 3, "--parallel", 4) == ["1", "2", "3"]


def test_a_repository_without_data_files_stands_for_its_converted_parquet(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    hub.add(REPO, {"README.md": b"#"}, {"default/train/0000.parquet": parquet("converted")})
    assert answered(run, tmp_path, URI) == ["converted"]


def test_an_ambiguous_repository_lists_its_files(run: Run, hub: Hub) -> None:
    files = {f"data/{n}.jsonl": jsonl(n) for n in range(7)}
    hub.add(REPO, {**files, "README.md": b"#"}, {"default/train/0000.parquet": parquet(1)})
    said = refused(run, URI)
    assert "7 data files" in said
    assert all(name in said for name in sorted(files)[:5])
    assert "2 more" in said
    assert "README" not in said
    assert "?config=" in said


def test_a_missing_file_names_what_the_repository_holds(run: Run, hub: Hub) -> None:
    hub.add(REPO, {"data/here.jsonl": jsonl(1)})
    assert "data/here.jsonl" in refused(run, f"{URI}/data/there.jsonl")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("data/*.jsonl", ["a", "b"]),
        ("data/[bc].jsonl", ["b"]),
        ("data/*/*.jsonl", ["old"]),
        ("data/**/*.jsonl", ["a", "b", "old"]),
    ],
    ids=["star", "set", "folder", "any-depth"],
)
def test_a_glob_takes_what_a_shell_would_in_sorted_order(
    run: Run, hub: Hub, tmp_path: Path, pattern: str, expected: list[str]
) -> None:
    hub.page_size = 2
    hub.add(
        REPO,
        {
            "data/b.jsonl": jsonl("b"),
            "data/a.jsonl": jsonl("a"),
            "data/old/c.jsonl": jsonl("old"),
            "data/d.csv": b"n\ncsv\n",
            "top.jsonl": jsonl("top"),
        },
    )
    assert answered(run, tmp_path, f"{URI}/{pattern}") == expected


def test_a_glob_that_matches_nothing_is_a_mistake(run: Run, hub: Hub) -> None:
    hub.add(REPO, {"data/a.jsonl": jsonl(1)})
    assert "data/a.jsonl" in refused(run, f"{URI}/*.csv")


@pytest.mark.parametrize("name", ["a b.jsonl", "données+1.jsonl", "a[1].jsonl", "50%25.jsonl"])
def test_odd_names_of_files_are_read(run: Run, hub: Hub, tmp_path: Path, name: str) -> None:
    hub.add(REPO, {f"data/{name}": jsonl("odd"), "data/a1.jsonl": jsonl("even")})
    assert answered(run, tmp_path, f"{URI}/data/{name}") == ["odd"]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        (f"{URI}?conf=a", "unknown 'conf'"),
        (f"{URI}?config=a&revision=b", "unknown 'revision'"),
        (f"{URI}?config=", "config needs one value"),
        (f"{URI}?split", "split needs one value"),
        (f"{URI}?config=a&config=b", "config needs one value"),
        (f"{URI}?split=a&split=", "split needs one value"),
        (f"{URI}/a.parquet?split=train", "not a file"),
        ("hf://datasets/", "hf://datasets/owner/name"),
        ("hf://models/owner/name/a.jsonl", "hf://datasets/owner/name"),
    ],
)
def test_a_name_that_is_none_is_refused_before_the_hub_is_asked(
    run: Run, hub: Hub, name: str, word: str
) -> None:
    assert word in refused(run, name)
    assert hub.log == []


def test_a_name_without_an_owner_is_refused(run: Run) -> None:
    assert "hf://datasets/nameonly" in refused(run, "hf://datasets/nameonly")


def test_a_query_over_the_hub_is_answered(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.add(REPO, {}, {"default/train/0000.parquet": parquet(*range(100))})
    uri = f"{URI}?config=default&split=train"
    args = ("--sql", "SELECT n FROM input WHERE n >= 97 ORDER BY n DESC")
    assert answered(run, tmp_path, uri, *args) == ["99", "98", "97"]


# Revisions


def test_a_revision_is_read_by_branch_commit_and_ref(run: Run, hub: Hub, tmp_path: Path) -> None:
    old = hub.add(REPO, {"a.jsonl": jsonl("old")}, {"x/y/0.parquet": parquet("converted")})
    hub.commit(REPO, {"a.jsonl": jsonl("new")})
    hub.commit(REPO, {"a.jsonl": jsonl("dev")}, "dev")
    for uri, expected in (
        (f"{URI}/a.jsonl", "new"),
        (f"{URI}@main/a.jsonl", "new"),
        (f"{URI}@dev/a.jsonl", "dev"),
        (f"{URI}@dev", "dev"),
        (f"{URI}@{old}/a.jsonl", "old"),
        (f"{URI}@{CONVERTED}/x/y/0.parquet", "converted"),
        (f"{URI}@refs%2Fconvert%2Fparquet/x/*/0.parquet", "converted"),
        (f"{URI}@~parquet/x/y/0.parquet", "converted"),
    ):
        assert answered(run, tmp_path, uri, "--overwrite") == [expected], uri


def test_a_missing_revision_is_named(run: Run, hub: Hub) -> None:
    hub.add(REPO, {"a.jsonl": jsonl(1)})
    said = refused(run, f"{URI}@v2/a.jsonl")
    assert "@v2" in said
    assert "no such revision" in said


@pytest.mark.parametrize("kind", ["text", "converted"])
def test_a_resumed_run_reads_the_commit_that_was_planned(
    run: Run, hub: Hub, tmp_path: Path, kind: str
) -> None:
    def files(word: str) -> Files:
        return {"a.jsonl": jsonl(word), "a.parquet": parquet(word)}

    pinned = hub.add(REPO, files("old"))
    moving = hub.commit(REPO, {"default/train/0.parquet": parquet("old")}, CONVERTED)
    name, head = {
        "text": ("/a.jsonl", ""),
        "parquet": ("/a.parquet", ""),
        "converted": ("?config=default&split=train", f"/revision/{CONVERTED}"),
    }[kind]
    assert run(URI + name, "--max-errors", 0).returncode == 3
    plan = next(tmp_path.glob(".out.jsonl.batch/**/plan.json")).read_text()
    assert f"@{moving if kind == 'converted' else pinned}/" in plan

    hub.commit(REPO, files("new"))
    hub.commit(REPO, {"default/train/0.parquet": parquet("new")}, CONVERTED)
    assert answered(run, tmp_path, URI + name, "--resume") == ["old"]
    asked = [asked.path for asked in hub.log]
    assert asked.count(f"/api/datasets/{REPO}{head}") == 1
    assert answered(run, tmp_path, URI + name, "--overwrite") == ["new"]


def test_each_of_several_inputs_is_pinned(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.add(REPO, {"a.parquet": parquet("a")})
    hub.add("owner/second", {"b.jsonl": jsonl("b")})
    args = (f"{URI}/a.parquet", "-i", "hf://datasets/owner/second")
    assert run(*args, "--max-errors", 0).returncode == 3
    hub.commit(REPO, {"a.parquet": parquet("A")})
    hub.commit("owner/second", {"b.jsonl": jsonl("B")})
    assert answered(run, tmp_path, *args, "--resume") == ["a", "b"]


# How much is read


@pytest.mark.parametrize("parallel", [1, 32])
def test_a_limit_reads_the_footer_and_one_row_group(
    run: Run, hub: Hub, tmp_path: Path, parallel: int
) -> None:
    data = large_parquet()
    hub.add(REPO, {}, {"default/train/0000.parquet": data})
    first, behind = group_span(data, 0)
    assert len(data) > 5 * (behind - first) > 5_000_000

    uri = f"{URI}?config=default&split=train"
    got = answered(run, tmp_path, uri, "--limit", 10, "--parallel", parallel)
    assert got == [str(n) for n in range(1, 11)]
    asked = spans(hub)
    footers = [span for span in asked if span[0] >= len(data) - FOOTER]
    groups = [span for span in asked if span not in footers]
    assert footers
    assert groups
    assert all(first <= low < high <= behind for low, high in groups), groups
    assert sum(high - low for low, high in groups) <= behind - first
    assert sum(high - low for low, high in footers) <= 4 * FOOTER


def test_a_limit_reads_the_front_of_a_text_file(run: Run, hub: Hub, tmp_path: Path) -> None:
    data = jsonl(*(f"{n:04000d}" for n in range(6_000)))
    hub.add(REPO, {"a.jsonl": data})
    assert len(answered(run, tmp_path, f"{URI}/a.jsonl", "--limit", 10)) == 10
    assert sum(high - low for low, high in spans(hub)) < len(data) // 2


def test_every_row_group_is_read_once_where_all_rows_are_wanted(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    data = many_rows()
    hub.add(REPO, {"a.parquet": data})
    assert len(answered(run, tmp_path, f"{URI}/a.parquet")) == 20_000
    groups = [span for span in spans(hub) if span[0] < len(data) - FOOTER]
    assert sum(high - low for low, high in groups) <= len(data)


# Tokens


@pytest.mark.parametrize("right", ["private", "gated"])
@pytest.mark.parametrize("name", ["/a.jsonl", "/a.parquet", "?config=default"])
@pytest.mark.parametrize("token", ["", OTHER_TOKEN], ids=["no-token", "token-without-rights"])
def test_what_is_not_for_everybody_names_the_token(
    run: Run, hub: Hub, right: str, name: str, token: str
) -> None:
    files = {"a.jsonl": jsonl("secret"), "a.parquet": parquet("secret")}
    tables = {"default/train/0.parquet": parquet("secret")}
    hub.add(REPO, files, tables, readers=(TOKEN,), **{right: True})
    said = refused(run, URI + name, **({"HF_TOKEN": token} if token else {}))
    assert "HF_TOKEN" in said
    assert REPO in said
    assert right in said
    assert OTHER_TOKEN not in said


def test_a_dataset_whose_very_names_are_gated_names_the_token(run: Run, hub: Hub) -> None:
    hub.add(REPO, {"a.jsonl": jsonl(1)})
    hub.script = lambda asked: Refusal(403, "GatedRepo", "Access is restricted")
    said = refused(run, f"{URI}/a.jsonl", HF_TOKEN=OTHER_TOKEN)
    assert "gated" in said
    assert "HF_TOKEN" in said


def test_a_missing_dataset_is_named(run: Run, hub: Hub) -> None:
    said = refused(run, "hf://datasets/owner/nowhere/a.jsonl")
    assert "owner/nowhere" in said
    assert "no such dataset" in said


def test_a_token_that_is_nobodys_names_the_token(run: Run, hub: Hub) -> None:
    hub.add(REPO, {"a.jsonl": jsonl(1)})
    said = refused(run, f"{URI}/a.jsonl", HF_TOKEN="hf_expired")
    assert "HF_TOKEN" in said
    assert "hf_expired" not in said


@pytest.mark.parametrize("name", ["/a.jsonl", "?config=default&split=train"])
@pytest.mark.parametrize("right", ["private", "gated"])
def test_the_token_goes_to_the_hub_and_nowhere_else(
    run: Run, hub: Hub, tmp_path: Path, right: str, name: str
) -> None:
    tables = {"default/train/0.parquet": parquet("yes")}
    hub.add(REPO, {"a.jsonl": jsonl("yes")}, tables, readers=(TOKEN,), **{right: True})

    def tell_nothing(*args: object) -> int:
        done = run(URI + name, *args, HF_TOKEN=TOKEN)
        assert TOKEN not in done.stderr + done.stdout
        found = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert found
        assert [path for path in found if TOKEN.encode() in path.read_bytes()] == []
        return done.returncode

    assert tell_nothing("--max-errors", 0) == 3
    hub.script = lambda asked: 503 if asked.is_bytes else 0
    assert tell_nothing("--overwrite") in (1, 2)
    hub.script = lambda asked: 0
    files = ("--summary-output", "summary.json", "--telemetry-output", "telemetry.jsonl")
    assert tell_nothing("--overwrite", "--keep-temp", *files) == 0
    assert results(tmp_path) == ["yes"]
    assert {asked.authorization for asked in hub.log} == {f"Bearer {TOKEN}"}


def test_the_login_of_the_user_is_used(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.add(REPO, {"a.jsonl": jsonl("yes")}, private=True, readers=(TOKEN,))
    (tmp_path / "hf-home").mkdir()
    (tmp_path / "hf-home/token").write_text(TOKEN)
    assert answered(run, tmp_path, URI) == ["yes"]


# Faults


def failing(times: int, verdict: Verdict, chosen: Callable[[Asked], bool]) -> Script:
    """Return a script by which the first requests of a kind fail."""
    left = [times]

    def script(asked: Asked) -> Verdict:
        if not left[0] or not chosen(asked):
            return 0
        left[0] -= 1
        return verdict

    return script


@pytest.mark.parametrize("verdict", [429, CUT], ids=["429", "cut"])
@pytest.mark.parametrize("place", ["/api/datasets/owner/name", "/tree/", "a.jsonl"])
def test_a_hub_that_fails_a_few_times_while_it_is_planned_is_asked_again(
    run: Run, hub: Hub, tmp_path: Path, place: str, verdict: int
) -> None:
    hub.add(REPO, {"a.jsonl": jsonl(1, 2, 3)})
    hub.script = failing(3, verdict, lambda asked: place in asked.path)
    assert answered(run, tmp_path, f"{URI}/a.jsonl") == ["1", "2", "3"]


@pytest.mark.parametrize("verdict", [429, CUT], ids=["429", "cut"])
def test_a_hub_that_fails_in_mid_run_is_asked_again(
    run: Run, hub: Hub, tmp_path: Path, verdict: int
) -> None:
    data = many_rows()
    hub.add(REPO, {"a.parquet": data})
    low, high = group_span(data, 2)
    faults = 8
    """More than the Hub's own client bears."""
    hub.script = failing(
        faults, verdict, lambda asked: asked.is_bytes and low <= asked.span[0] < high
    )
    assert answered(run, tmp_path, f"{URI}/a.parquet") == [str(n) for n in range(1, 20_001)]
    assert len([span for span in spans(hub) if low <= span[0] < high]) > faults


def lost_from(hub: Hub, data: bytes, group: int, verdict: Verdict) -> None:
    """Let every request fail from the first one for a row group on."""
    low, high = group_span(data, group)
    gone: list[bool] = []

    def script(asked: Asked) -> Verdict:
        if asked.is_bytes and low <= asked.span[0] < high:
            gone.append(True)
        return verdict if gone else 0

    hub.script = script


@pytest.mark.parametrize("verdict", [DROP, 503], ids=["dropped", "503"])
def test_a_hub_that_is_gone_in_mid_run_ends_it_and_resume_finishes_it(
    run: Run, hub: Hub, tmp_path: Path, verdict: int
) -> None:
    data = many_rows()
    hub.add(REPO, {"a.parquet": data})
    lost_from(hub, data, 2, verdict)
    done = run(f"{URI}/a.parquet")
    assert done.returncode == 1, done.stderr
    assert f"{REPO}@" in done.stderr
    assert "cannot be read" in done.stderr
    assert "--resume" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()

    still = run(f"{URI}/a.parquet", "--resume")
    assert still.returncode == 1, still.stderr
    assert "cannot be read" in still.stderr

    hub.script = lambda asked: 0
    hub.commit(REPO, {"a.parquet": parquet("new")})
    expected = [str(n) for n in range(1, 20_001)]
    assert answered(run, tmp_path, f"{URI}/a.parquet", "--resume") == expected


@pytest.mark.parametrize("verdict", [DROP, 503], ids=["dropped", "503"])
@pytest.mark.parametrize("place", ["/api/", "/tree/", "/resolve/"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_hub_that_cannot_be_reached_is_said_in_one_line_and_leaves_nothing(
    run: Run, hub: Hub, tmp_path: Path, name: str, place: str, verdict: int
) -> None:
    hub.add(REPO, {"a.jsonl": jsonl(1), "a.parquet": parquet(1)})
    hub.script = lambda asked: verdict if place in asked.path else 0
    done = run(f"{URI}/{name}")
    assert done.returncode in (1, 2), done.stderr
    assert REPO in done.stderr.splitlines()[-1], done.stderr
    assert not list(tmp_path.glob(".out*"))
    assert not (tmp_path / "out.jsonl").exists()


def test_text_of_a_dataset_that_was_deleted_is_read_from_its_copy(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    hub.add(REPO, {"a.jsonl": jsonl(*range(1, 101))})
    assert run(f"{URI}/a.jsonl", "--max-errors", 0).returncode == 3
    hub.remove(REPO)
    hub.log.clear()
    assert answered(run, tmp_path, f"{URI}/a.jsonl", "--resume") == [str(n) for n in range(1, 101)]
    assert hub.log == []


def test_parquet_of_a_dataset_that_was_deleted_is_missed_until_it_is_back(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    hub.add(REPO, {"a.parquet": parquet(1, 2)})
    assert run(f"{URI}/a.parquet", "--max-errors", 0).returncode == 3
    dataset = hub.remove(REPO)
    missed = run(f"{URI}/a.parquet", "--resume")
    assert missed.returncode == 1, missed.stderr
    assert REPO in missed.stderr
    assert "--resume" in missed.stderr
    assert not (tmp_path / "out.jsonl").exists()
    hub.restore(REPO, dataset)
    assert answered(run, tmp_path, f"{URI}/a.parquet", "--resume") == ["1", "2"]


@pytest.mark.parametrize(
    ("status", "code"), [(401, "RepoNotFound"), (403, "GatedRepo"), (404, "EntryNotFound")]
)
def test_a_dataset_that_is_withdrawn_in_mid_run_fails_no_row(
    run: Run, hub: Hub, tmp_path: Path, status: int, code: str
) -> None:
    data = many_rows()
    hub.add(REPO, {"a.parquet": data})
    lost_from(hub, data, 2, Refusal(status, code, "withdrawn"))
    done = run(f"{URI}/a.parquet")
    assert done.returncode == 1, done.stderr
    assert "--resume" in done.stderr
    hub.script = lambda asked: 0
    expected = [str(n) for n in range(1, 20_001)]
    assert answered(run, tmp_path, f"{URI}/a.parquet", "--resume") == expected
