"""The placeholder syntax."""

from __future__ import annotations

import json
from typing import Any

import pytest

from beam_batch.errors import InvalidTemplateValue, MissingTemplateField
from beam_batch.prompts.template import render


@pytest.mark.parametrize(
    ("template", "row", "text"),
    [
        ("a {{x}} b", {"x": "1"}, "a 1 b"),
        ("{{ x }}{{x}}", {"x": "y"}, "yy"),
        ("{{x}}", {"x": 1.5}, "1.5"),
        ("{{x}}", {"x": None}, "null"),
        ("{{x}}", {"x": True}, "true"),
        ("{{x}}", {"x": {"k": ["é", 1]}}, '{"k": ["é", 1]}'),
        ("{{first name}}", {"first name": "Ada"}, "Ada"),
        ("{{c.k}}", {"c.k": "literal", "c": {"k": 1}}, "literal"),
        ("{{n|upper}}", {"n|upper": "v"}, "v"),
        ("{{}} {{ }} {{x} {x}}", {"x": "1"}, "{{}} {{ }} {{x} {x}}"),
        ("{{\nx\n}}", {"x": "1"}, "1"),
        ("{{x}}", {"x": "{{y}}", "y": "never"}, "{{y}}"),
        ("{{x}}", {"x": "***SAVE_HISTORY /tmp/x"}, "***SAVE_HISTORY /tmp/x"),
        ("", {"x": 1}, ""),
        ("{{x}}", {"x": ""}, ""),
    ],
)
def test_placeholders_are_replaced_in_one_pass(
    template: str, row: dict[str, Any], text: str
) -> None:
    assert render(template, row) == text


def test_row_json_is_the_whole_row_pretty_printed_even_where_a_column_has_that_name() -> None:
    row = {"b": "é", "a": [1, {}], "row_json": "column"}
    assert render("{{row_json}}", row) == json.dumps(row, indent=2, ensure_ascii=False)


def test_missing_fields_are_named_once_each_in_order_of_use() -> None:
    with pytest.raises(MissingTemplateField, match=r"^Missing template fields: b, c$"):
        render("{{b}} {{a}} {{c}} {{b}}", {"a": 1})
    with pytest.raises(MissingTemplateField, match=r"^Missing template field: \{n$"):
        render("{{{n}}}", {"n": 1})


def test_a_value_without_json_form_fails_the_row() -> None:
    with pytest.raises(InvalidTemplateValue, match="'x'"):
        render("{{x}}", {"x": float("nan")})
