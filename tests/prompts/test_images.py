"""Images of rows: what counts as one, and what a row may not name."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_batch.errors import InvalidImage, MissingTemplateField
from beam_batch.prompts import images
from beam_batch.prompts.template import image_fields, render
from beam_batch.records import Image
from tests.fakes import Answer, ScriptedServer
from tests.support import beam_batch, environment, read_jsonl, write_jsonl

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
DATA = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
SEEN = Image(None, "image/png", base64.b64encode(PNG).decode())


def test_an_image_stands_where_its_placeholder_does() -> None:
    url = "https://example.org/a.png"
    found = render("See {{image:a}} and {{ image: b }}{{n}}", {"a": url, "b": DATA, "n": 1})
    assert found == ("See ", Image(url, None, None), " and ", SEEN, "1")
    assert image_fields("{{image:a}} {{a}} {{ image: b }}{{image:a}}") == ("a", "b")


def test_a_field_of_that_very_name_is_text() -> None:
    assert render("{{image:a}}", {"image:a": "words"}) == "words"


def test_a_row_without_the_field_is_named() -> None:
    with pytest.raises(MissingTemplateField, match="image:a"):
        render("{{image:a}}", {"b": 1})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "holds no image"),
        ("", "holds no image"),
        (7, "holds no image"),
        ("a.png", "only with --files-root"),
        ("/etc/passwd", "only with --files-root"),
        ("data:image/png,abc", "not base64"),
        ("data:image/png;base64,@@", "not base64"),
        ("data:image/png;base64,aGVsbG8=", "no PNG"),
        ({"bytes": None, "path": None}, "holds no image"),
    ],
)
def test_what_is_no_image_fails_the_row(value: Any, words: str) -> None:
    with pytest.raises(InvalidImage, match=words):
        render("{{image:a}}", {"a": value})


def test_files_count_below_their_root_only(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.png").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "text.png").write_text("no image")
    assert render("{{image:a}}", {"a": "a.png"}, str(root)) == (SEEN,)
    assert render("{{image:a}}", {"a": str(root / "a.png")}, str(root)) == (SEEN,)
    for name, words in (
        ("../secret.png", "outside"),
        (str(tmp_path / "secret.png"), "outside"),
        ("link.png", "outside"),
        ("gone.png", "no file"),
        ("text.png", "no PNG"),
        ("a.png\0", "cannot be read|no file"),
    ):
        with pytest.raises(InvalidImage, match=words):
            render("{{image:a}}", {"a": name}, str(root))


def test_an_image_has_a_largest_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "LARGEST", 10)
    (tmp_path / "a.png").write_bytes(PNG)
    for value in (DATA, "a.png"):
        with pytest.raises(InvalidImage, match="larger than"):
            render("{{image:a}}", {"a": value}, str(tmp_path))


@pytest.mark.parametrize("model", ["openai.m", "responses.m"])
def test_bytes_of_a_parquet_column_reach_the_provider(tmp_path: Path, model: str) -> None:
    table = pa.table(
        {
            "plain": pa.array([PNG, b"no image"], pa.binary()),
            "hub": pa.array([{"bytes": PNG, "path": "x.png"}] * 2),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    with ScriptedServer(lambda number, body: Answer(text="seen")) as server:
        done = beam_batch(
            "run", "-i", "rows.parquet", "-o", "out.jsonl", "-m", model,
            "-p", "Look: {{image:plain}}{{image:hub}}",
            env=environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="k"), cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (body,) = server.bodies
    message = body["messages"][1] if "messages" in body else body["input"][0]
    texts = [part["text"] for part in message["content"] if "text" in part]
    urls = [part.get("image_url") for part in message["content"] if "image_url" in part]
    assert texts == ["Look: "]
    assert [url if isinstance(url, str) else url["url"] for url in urls] == [DATA, DATA]
    first, second = read_jsonl(tmp_path / "out.jsonl")
    assert first["result"] == "seen"
    assert second["error"]["type"] == "InvalidImage"


def test_preview_shortens_images_and_the_command_line_takes_a_root(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(PNG)
    write_jsonl(tmp_path / "rows.jsonl", [{"a": "a.png"}, {"a": "../rows.jsonl"}])
    args = ("-i", "rows.jsonl", "-p", "What? {{image:a}}", "--files-root", "pictures")
    shown = beam_batch("preview", *args, "-m", "generic.m", cwd=tmp_path)
    assert "What? [image image/png]" in shown.stdout
    assert "characters)" in shown.stdout
    assert "not sent: InvalidImage" in shown.stdout
    done = beam_batch("run", *args, "-o", "out.jsonl", "-m", "echo", cwd=tmp_path)
    assert json.loads(done.stdout)["errors"] == {"InvalidImage": 1}
    assert read_jsonl(tmp_path / "out.jsonl")[0]["result"] == "What? [image/png]"
    wrong = beam_batch(
        "run", "-i", "rows.jsonl", "-o", "o.jsonl", "-m", "echo", "--files-root", "nowhere",
        cwd=tmp_path,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert "--files-root nowhere: no such folder" in wrong.stderr
