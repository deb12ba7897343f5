"""Where replies are kept: SQLite files that break or fill the disk, and object stores."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from beam_batch.errors import OptionsError
from beam_batch.options import ReuseSpec
from beam_batch.reuse.kept import ReplyStore
from beam_batch.reuse.local import LocalStore
from beam_batch.reuse.making import check_cache, make_once, open_cache
from beam_batch.reuse.objects import ObjectStore
from tests.reuse.support import MODEL, kept, key
from tests.support import environment

FILL = """
import resource, sys
from pathlib import Path
from beam_batch.reuse.local import LocalStore
from tests.reuse.support import key, kept
store = LocalStore(Path(sys.argv[1]), "the store", durable=False)
store.put(key(0), kept("first"))
store.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
for number in range(1, 1000):
    store.put(key(number), kept("x" * 500))
    if number % 10 == 0:
        store.flush()
print(store.get(key(0)).reply.text, store.get(key(999)))
store.close()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


def opened(folder: Path) -> LocalStore:
    return LocalStore(folder, "the store", durable=True)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, folder: Path) -> Iterator[ReplyStore]:
    place = str(folder) if request.param == "local" else f"memory://{folder.parent.name}"
    store = open_cache(place)
    yield store
    store.close()


def test_what_was_put_is_there_until_it_is_forgotten(store: ReplyStore) -> None:
    assert store.get(key(1)) is None
    store.put(key(1), kept("one"))
    store.put(key(2), kept("two"))
    store.flush()
    store.put(key(2), kept("newer"))
    for _ in range(2):
        assert store.get(key(1)) == kept("one")
        assert store.get(key(2)) == kept("newer")
        store.flush()
    store.forget(key(1))
    store.forget(key(3))
    assert store.get(key(1)) is None
    assert store.get(key(2)) == kept("newer")


def test_entries_are_listed_newest_first_and_removed(store: ReplyStore) -> None:
    for number in range(300):
        store.put(key(number), kept(f"{number}", made=number))
    store.flush()
    found = list(store.entries())
    assert [entry.key for entry in found] == [key(number) for number in reversed(range(300))]
    assert found[0][1:3] == ("openai.m", 299.0)
    assert found[0][4:] == (10, 5)
    assert found[0].size > len(kept("299").encode()) - 10
    store.remove(key(number) for number in range(299))
    assert [entry.key for entry in store.entries()] == [key(299)]


def test_two_users_of_a_folder_see_each_other(folder: Path) -> None:
    one, other = opened(folder), opened(folder)
    one.put(key(1), kept("one"))
    assert other.get(key(1)) is None
    one.flush()
    assert other.get(key(1)) == kept("one")
    other.forget(key(1))
    assert one.get(key(1)) is None
    one.close()
    other.close()


def test_what_others_keep_busy_is_written_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("beam_batch.reuse.database.BUSY_SECONDS", 0.01)
    store = opened(folder)
    with contextlib.closing(sqlite3.connect(folder / "replies.sqlite")) as other:
        other.execute("BEGIN IMMEDIATE")
        store.put(key(1), kept("one"))
        store.flush()
        assert store.get(key(1)) == kept("one")
        other.rollback()
    store.close()
    again = opened(folder)
    assert again.get(key(1)) == kept("one")
    again.close()
    assert capsys.readouterr().err == ""


# damage


def _filled(folder: Path) -> Path:
    store = opened(folder)
    for number in range(2000):
        store.put(key(number), kept("x" * 100))
    store.close()
    return folder / "replies.sqlite"


def test_a_file_that_is_no_database_is_set_aside(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir()
    (folder / "replies.sqlite").write_bytes(b"no database" * 1000)
    store = opened(folder)
    store.put(key(1), kept("one"))
    store.close()
    assert capsys.readouterr().err == (
        f"batch: {folder}/replies.sqlite is damaged: it is set aside, and a new one is begun\n"
    )
    assert (folder / "replies.sqlite").read_bytes().startswith(b"no database")
    again = opened(folder)
    assert again.get(key(1)) == kept("one")
    again.remove([])
    again.close()
    assert not (folder / "replies.sqlite").exists()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("by", ["reading", "writing"])
def test_damage_within_a_file_is_found_while_it_is_used(
    folder: Path, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _filled(folder)
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    one, other = opened(folder), opened(folder)
    for store in (one, other):
        if by == "reading":
            assert store.get(key(5)) is None
        else:
            store.put(key(5), kept("five"))
            store.flush()
    one.put(key(6), kept("six"))
    one.flush()
    assert other.get(key(6)) == kept("six")
    assert (other.get(key(5)) is not None) == (by == "writing")
    one.close()
    other.close()
    said = capsys.readouterr().err.splitlines()
    assert said == [f"batch: {path} is damaged: it is set aside, and a new one is begun"]


def test_a_file_of_another_program_is_left_alone(folder: Path) -> None:
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(folder / "replies.sqlite")) as db:
        db.execute("CREATE TABLE theirs (a)")
    before = (folder / "replies.sqlite").read_bytes()
    with pytest.raises(OptionsError, match=r"--cache .*of another program"):
        open_cache(str(folder))
    assert (folder / "replies.sqlite").read_bytes() == before


def test_a_file_whose_making_was_killed_is_made(folder: Path) -> None:
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(folder / "replies.sqlite")) as db:
        db.execute("PRAGMA journal_mode = WAL")
    store = opened(folder)
    store.put(key(1), kept("one"))
    store.flush()
    assert store.get(key(1)) == kept("one")
    store.close()


# what the system refuses


def test_a_full_disk_turns_writing_off_in_one_line(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(folder)],
        capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "first None\n"
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("batch: the store: nothing more is kept from here on (")


def test_a_cache_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    work = str(tmp_path / "work")
    for cache, reason in (
        (f"{tmp_path}/file", "cannot be used"),
        (f"{work}/cache", "inside --work-dir"),
        (work, "inside --work-dir"),
        ("hf://datasets/a/b", "name a folder"),
        ("https://example.org/c", "name a folder"),
        ("nowhere://c", "nowhere"),
        ("refusing://c", "no access"),
    ):
        fsspec.register_implementation("refusing", Refusing, clobber=True)
        with pytest.raises(OptionsError, match=f"^--cache {cache}.*{reason}"):
            check_cache(ReuseSpec(cache=cache), work)


def test_a_run_goes_on_without_a_cache_that_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert make_once(ReuseSpec(dedupe=True, cache=f"{tmp_path}/file"), MODEL, None) is not None
    assert capsys.readouterr().err.count("\n") == 1


# object stores


class Refusing(MemoryFileSystem):  # type: ignore[misc]
    """A store that lets nobody in."""

    protocol = ("refusing",)

    def exists(self, path: str, **kwargs: Any) -> bool:
        raise PermissionError("no access")


def test_an_object_store_has_one_small_object_a_reply(folder: Path) -> None:
    root = f"/{folder.parent.name}-objects"
    store = ObjectStore(f"memory:/{root}", "the store")
    store.put(key(1), kept("one"))
    files = fsspec.filesystem("memory")
    name = key(1).hex()
    assert sorted(files.find(root)) == [
        f"{root}/{name[:2]}/{name}.json", f"{root}/beam-batch-cache.json",
    ]  # fmt: skip
    files.pipe_file(f"{root}/{name[:2]}/{name}.json", b"torn")
    assert store.get(key(1)) is None


def test_an_object_store_that_fails_later_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ObjectStore("memory://failing", "the store")
    asked = []

    def refuse(path: str, *args: Any, **kwargs: Any) -> None:
        asked.append(path)
        raise PermissionError("the credentials have expired")

    for name in ("cat_file", "pipe_file", "rm_file"):
        monkeypatch.setattr(store._files, name, refuse)
    assert store.get(key(1)) is None
    store.put(key(1), kept("one"))
    store.forget(key(1))
    assert store.get(key(2)) is None
    assert len(asked) == 1
    assert capsys.readouterr().err == (
        "batch: the store: not used from here on (the credentials have expired)\n"
    )
