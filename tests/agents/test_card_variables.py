"""Variables from flags and files, and the environment in texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_batch.agents.cards.variables import (
    UnsetVariable,
    expand,
    fill,
    names_environment,
    read_variables,
)
from beam_batch.errors import OptionsError
from tests.agents.cards import write


def test_a_flag_comes_before_a_file_and_a_file_before_json(tmp_path: Path) -> None:
    path = write(tmp_path, "vars.json", '{"a": "json", "b": "json", "c": "json"}')
    file = write(tmp_path, "b.txt", "\ufefffile\n")
    pairs = ["c=flag", "d=x=y", "e="]
    assert read_variables(pairs, [f"b={file}", f"c={file}"], str(path)) == {
        "a": "json", "b": "file\n", "c": "flag", "d": "x=y", "e": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pairs", "files", "message"),
    [
        (["a"], [], "--var a: write it as NAME=VALUE."),
        (["=a"], [], "--var: '' is no name for a variable."),
        (["a}}=b"], [], "--var: 'a}}' is no name for a variable."),
        ([" a=b"], [], "--var: ' a' is no name for a variable."),
        ([], ["a"], "--var-file a: write it as NAME=PATH."),
        ([], ["a=no"], "--var-file a: no cannot be read (No such file or directory)."),
        ([], ["a=latin"], "--var-file a: latin is not UTF-8 (invalid continuation byte)."),
    ],
)
def test_variables_that_cannot_be_read_are_named(
    pairs: list[str], files: list[str], message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("latin").write_bytes(b"\xe9t")
    with pytest.raises(OptionsError) as caught:
        read_variables(pairs, files, None)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", " vars.json: not JSON ("),
        ("[]", " vars.json: wants an object of names and texts."),
        ('{"a": 3}', " vars.json: a wants text, got 3."),
        ('{"": "b"}', " vars.json: '' is no name for a variable."),
    ],
)
def test_a_file_of_variables_is_an_object_of_texts(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "vars.json", text)
    with pytest.raises(OptionsError) as caught:
        read_variables([], [], "vars.json")
    assert str(caught.value).startswith(f"--vars-json{message}")


def test_what_is_filled_in_is_not_filled_again() -> None:
    assert fill("{{a}}{{ b }}{{c}}", {"a": "{{b}}", "b": "$"}) == "{{b}}${{c}}"


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_a_text_without_placeholders_stays_as_it_is(text: str, values: dict[str, str]) -> None:
    plain = text.replace("{{", "").replace("${", "")
    assert fill(plain, values) == plain
    assert expand(plain, values) == plain
    assert not names_environment(plain)


@given(st.text(), st.text())
def test_values_are_put_in_as_they_are(before: str, value: str) -> None:
    before = before.replace("{", "").replace("$", "")
    assert fill(before + "{{x}}", {"x": value}) == before + value
    assert expand(before + "${X}", {"X": value}) == before + value


def test_the_environment_may_have_defaults_and_be_escaped() -> None:
    assert expand("${A:x:y} ${B:} $${C} ${not ours} $5", {}) == "x:y  ${C} ${not ours} $5"
    assert not names_environment("$${A}")
    with pytest.raises(UnsetVariable, match=r"^A$"):
        expand("${A}", {})
