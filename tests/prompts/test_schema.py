"""Schemas: how they are sent, and how replies are held to them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from beam_batch.errors import OptionsError, StructuredOutputError
from beam_batch.options import SchemaSpec
from beam_batch.prompts.schema import (
    check_schema,
    load_schema_model,
    make_validator,
    openai_schema,
)


class Sentiment(BaseModel):
    label: str
    score: int = 3


def _spec(schema: Any) -> SchemaSpec:
    return SchemaSpec(json=json.dumps(schema), source="s.json")


OBJECT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def test_a_valid_reply_is_the_result() -> None:
    assert make_validator(_spec(OBJECT))(' {"n": 3} ') == {"n": 3}


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("", "not JSON"),
        ("```json\n{}\n```", "not JSON"),
        ('{"n": 12', "not JSON"),
        ('{"n": 3} tail', "not JSON"),
        ('{"n": "x"}', "at /n"),
        ("{}", "at /: "),
        ("null", "at /: "),
    ],
)
def test_a_bad_reply_is_a_failure_that_says_where_and_keeps_the_text(
    reply: str, words: str
) -> None:
    with pytest.raises(StructuredOutputError) as caught:
        make_validator(_spec(OBJECT))(reply)
    assert words in str(caught.value)
    assert caught.value.reply == reply


def test_null_is_a_result_where_the_schema_allows_it() -> None:
    assert make_validator(_spec({"type": ["object", "null"]}))("null") is None
    assert make_validator(_spec({"type": "null"}), wraps=True)('{"value": null}') is None


def test_strict_mode_gets_every_property_required_and_no_others() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "default": "x"},
            "b": {
                "type": "array",
                "items": {"type": "object", "properties": {"c": {"type": "null"}}},
            },
        },
    }
    wire, strict = openai_schema(_spec(schema))
    assert strict is True
    assert wire == {
        "type": "object",
        "properties": {
            "a": {"type": "string"},
            "b": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"c": {"type": "null"}},
                    "required": ["c"],
                    "additionalProperties": False,
                },
            },
        },
        "required": ["a", "b"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": {}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"type": "array"}}},
        {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True},
        {"type": "object", "properties": {"a": {"oneOf": [{"type": "string"}]}}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
    ],
)
def test_what_strict_mode_cannot_say_is_sent_as_it_is(schema: dict[str, Any]) -> None:
    assert openai_schema(_spec(schema)) == (schema, False)


def test_a_root_that_is_no_object_is_wrapped_and_unwrapped() -> None:
    spec = _spec(
        {"type": "array", "items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "integer"}}}
    )
    wire, strict = openai_schema(spec)
    assert strict is True
    assert wire["type"] == "object"
    assert wire["required"] == ["value"]
    assert wire["$defs"] == {"n": {"type": "integer"}}
    validate = make_validator(spec, wraps=True)
    assert validate('{"value": [1, 2]}') == [1, 2]
    assert validate("[1, 2]") == [1, 2]


def test_a_root_reference_is_resolved() -> None:
    spec = _spec({"$ref": "#/$defs/o", "$defs": {"o": OBJECT}})
    wire, _ = openai_schema(spec)
    assert wire["type"] == "object"
    assert "$ref" not in wire
    assert make_validator(spec)('{"n": 1}') == {"n": 1}


def test_a_schema_may_not_fetch_anything() -> None:
    with pytest.raises(OptionsError, match="outside the schema"):
        check_schema(_spec({"$ref": "http://127.0.0.1:1/s.json"}))


def test_a_pydantic_model_is_sent_as_its_schema_and_validates() -> None:
    spec = load_schema_model("tests.prompts.test_schema:Sentiment")
    assert spec.name == "Sentiment"
    assert openai_schema(spec).strict is True
    validate = make_validator(spec)
    assert validate('{"label": "good"}') == {"label": "good", "score": 3}
    with pytest.raises(StructuredOutputError, match="at /score"):
        validate('{"label": "good", "score": "many"}')
    with pytest.raises(StructuredOutputError, match="not JSON"):
        validate('{"label": "go')


def test_an_object_that_looks_wrapped_stays_whole_where_nothing_was_wrapped() -> None:
    spec = _spec({"properties": {"value": {"type": "integer"}}, "required": ["value"]})
    assert make_validator(spec)('{"value": 3}') == {"value": 3}
    assert make_validator(_spec({"description": "any"}))('{"value": {"a": 1}}') == {
        "value": {"a": 1}
    }


def test_references_to_the_root_follow_it_under_the_wrapper() -> None:
    spec = _spec({"type": "array", "items": {"$ref": "#"}})
    wire = openai_schema(spec).schema
    assert wire["properties"]["value"]["items"] == {"$ref": "#/properties/value"}
    assert make_validator(spec, wraps=True)('{"value": [[], [[]]]}') == [[], [[]]]
