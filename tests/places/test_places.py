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
