"""A folder and an object store are the same place to whoever uses them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_batch.errors import OptionsError
from beam_batch.places import Place, place_of
from tests.stores import make_bucket, reachable, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    with s3_server() as env, reachable(env):
        make_bucket(env)
        yield


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return place_of(str(tmp_path / "place"))
    request.getfixturevalue("s3")
    return place_of(f"s3://data/{uuid.uuid4().hex}/place")


def test_what_is_put_is_there_whole_and_replaced_whole(place: Place) -> None:
    assert place.get("a/b.json") is None
    place.put("a/b.json", b"one")
    place.put("a/b.json", b"other")
    assert place.get("a/b.json") == b"other"
    assert place.list("a/") == [("a/b.json", 5)]


def test_a_list_holds_one_folder_by_the_beginning_of_names(place: Place) -> None:
    assert place.list("parts/") == []
    for name in ("parts/ok-2.jsonl", "parts/ok-1.jsonl", "parts/failed-1.jsonl", "other/ok-1"):
        place.put(name, b"x")
    assert [item.name for item in place.list("parts/ok-")] == [
        "parts/ok-1.jsonl",
        "parts/ok-2.jsonl",
    ]
    assert len(place.list("parts/")) == 3
    place.put("parts/ok-3.jsonl", b"new")  # no list is remembered
    assert len(place.list("parts/ok-")) == 3


def test_a_list_holds_all_whose_names_begin_so_however_deep(place: Place) -> None:
    names = ["a/b", "a/b.json", "a/b/c", "a/d/e/f", "ab", "b"]
    if place.is_folder:  # where a name is a file or a folder
        names.remove("a/b")
    for name in names:
        place.put(name, b"x")
    for prefix in ("", "a", "a/", "a/b", "a/b/", "a/d", "a/d/", "a/d/e/f", "b", "b/", "c", "c/"):
        expected = [(name, 1) for name in names if name.startswith(prefix)]
        assert place.list(prefix) == expected, prefix


def test_a_file_in_the_making_is_no_object_and_a_link_out_of_a_folder_is_not_followed(
    tmp_path: Path,
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").touch()
    place = place_of(str(tmp_path / "place"))
    place.put("a/b", b"1")
    (tmp_path / "place" / "a" / "b.tmp").touch()
    (tmp_path / "place" / "link").symlink_to(tmp_path / "elsewhere")
    assert place.list("") == [("a/b", 1)]


def test_an_object_is_read_from_front_to_back_and_here_and_there(place: Place) -> None:
    lines = [b"%d\n" % n for n in range(1000)]
    place.put("data", b"".join(lines))
    with place.open("data") as file:
        assert list(file) == lines
    with place.open("data") as file:
        file.seek(len(lines[0]))
        assert file.read(len(lines[1])) == lines[1]
    with pytest.raises(FileNotFoundError):
        place.open("none")


def test_what_is_removed_while_it_is_open_for_reading_is_not_found(s3: None) -> None:
    place = place_of(f"s3://data/{uuid.uuid4().hex}")
    place.put("a", b"1")
    with place.open("a") as file:
        place.remove(["a"])
        with pytest.raises(FileNotFoundError) as raised:
            file.read()
    assert raised.value.filename == place.uri


def test_removing_what_is_gone_is_no_error(place: Place) -> None:
    place.put("a", b"1")
    place.put("b", b"2")
    place.remove(["a", "gone", "b"])
    assert place.list("") == []


def test_what_is_no_place_is_refused() -> None:
    for uri in ("https://example.org/work", "hf://datasets/a/b", "ftp://host/work"):
        with pytest.raises(OptionsError, match="://"):
            place_of(uri)


def test_a_store_that_cannot_be_used_raises_a_system_error(s3: None) -> None:
    with pytest.raises(OSError, match=r"bucket|exist"):
        place_of("s3://no-such-bucket/work").put("a", b"1")
