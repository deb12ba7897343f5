"""JSON Schemas and Pydantic models: read, check, rewrite for OpenAI, validate replies."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs

from beam_batch import jsonio
from beam_batch.errors import InvalidJSON, OptionsError, StructuredOutputError, first_line
from beam_batch.options import SchemaSpec

WRAPPED = "value"
"""Key of the object that carries a result whose schema is not an object."""

_NOT_STRICT = frozenset(
    (
        "allOf", "oneOf", "not", "if", "then", "else", "patternProperties", "dependentRequired",
        "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems",
        "propertyNames", "prefixItems", "additionalItems", "contains", "minContains",
        "maxContains", "uniqueItems", "minProperties", "maxProperties", "$dynamicRef",
        "$recursiveRef",
    )
)  # fmt: skip
"""Keywords that OpenAI's strict mode does not take (platform docs, Structured Outputs)."""

_ANNOTATIONS = frozenset(("default", "$schema", "$id", "examples", "$comment", "title"))


def load_schema_file(path: str) -> SchemaSpec:
    """Read and check a JSON Schema file.

    Raises:
        OptionsError: unreadable, not JSON, not an object or not a valid schema.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise OptionsError(f"--schema {path}: cannot be read ({error.strerror}).") from None
    try:
        schema = jsonio.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except InvalidJSON as error:
        raise OptionsError(f"--schema {path}: not JSON ({error}).") from None
    if not isinstance(schema, dict):
        kind = type(schema).__name__
        raise OptionsError(f"--schema {path}: a JSON Schema is an object, this is a {kind}.")
    spec = SchemaSpec(json=json.dumps(schema), source=path)
    check_schema(spec)
    return spec


def load_schema_model(ref: str) -> SchemaSpec:
    """Import ``package.module:Class`` and take its JSON Schema.

    The current directory is searched as well.

    Raises:
        OptionsError: it cannot be imported, or is not a Pydantic model.
    """
    model = _import_model(ref)
    schema = model.model_json_schema()
    spec = SchemaSpec(json=json.dumps(schema), name=model.__name__[:64], model=ref, source=ref)
    check_schema(spec)
    return spec


def check_schema(spec: SchemaSpec) -> None:
    """Raise OptionsError where the schema itself is invalid."""
    try:
        _compile(spec)
    except Exception as error:  # jsonschema-rs raises several classes, all about the schema
        raise OptionsError(
            f"--schema {spec.source}: not a valid JSON Schema: {first_line(error)}"
        ) from None


def _import_model(ref: str) -> Any:
    module, _, name = ref.partition(":")
    if not module or not name:
        raise OptionsError(f"--schema-model {ref}: write it as package.module:Class.")
    try:
        from pydantic import BaseModel
    except ImportError:
        raise OptionsError(
            "--schema-model needs Pydantic: pip install 'beam-batch[pydantic]'."
        ) from None
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise OptionsError(f"--schema-model {ref}: cannot be imported ({error}).") from None
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise OptionsError(f"--schema-model {ref}: not a Pydantic model.")
    return found


def _no_retrieval(uri: str) -> Any:
    raise ValueError(f"$ref {uri!r} points outside the schema; put it under $defs")


def _compile(spec: SchemaSpec) -> Any:
    return jsonschema_rs.validator_for(json.loads(spec.json), retriever=_no_retrieval)


def make_validator(spec: SchemaSpec | None, wraps: bool = False) -> Callable[[str], Any]:
    """Return the function that turns a reply's text into a result.

    Without a schema the text itself is the result. `wraps` says that the provider was sent the
    schema as `openai_schema` writes it, so that a root which is no object comes back wrapped.

    The returned function raises StructuredOutputError, with the path and the reason, for text
    that is not JSON or does not satisfy the schema.
    """
    if spec is None:
        return lambda text: text
    wrapped = wraps and needs_wrapping(json.loads(spec.json))
    if spec.model is not None:
        return _pydantic_validator(spec.model, wrapped)
    validator = _compile(spec)

    def validate(text: str) -> Any:
        value = _parse(text, wrapped)
        error = next(validator.iter_errors(value), None)
        if error is not None:
            raise StructuredOutputError(_reason(error), reply=text)
        return value

    return validate


def _pydantic_validator(ref: str, wrapped: bool) -> Callable[[str], Any]:
    from pydantic import ValidationError

    model = _import_model(ref)

    def validate(text: str) -> Any:
        try:
            result = model.model_validate(_parse(text, wrapped)).model_dump(mode="json")
            if jsonio.has_nan(result):
                raise StructuredOutputError("a number is NaN or infinite", reply=text)
            return result
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            path = "/" + "/".join(str(part) for part in first["loc"])
            raise StructuredOutputError(f"at {path}: {first['msg']}", reply=text) from None
        except StructuredOutputError:
            raise
        except Exception as error:  # a validator of the user's own: whatever it raises, it refuses
            reason = f"{ref} refuses it: {type(error).__name__}: {first_line(error)}"
            raise StructuredOutputError(reason, reply=text) from None

    return validate


def _parse(text: str, wrapped: bool) -> Any:
    try:
        value = jsonio.loads(text)
    except InvalidJSON as error:
        raise StructuredOutputError(f"the reply is not JSON: {error}", reply=text) from None
    if wrapped and isinstance(value, dict) and list(value) == [WRAPPED]:
        return value[WRAPPED]
    return value


def _reason(error: Any) -> str:
    path = "/" + "/".join(str(part) for part in error.instance_path)
    return f"at {path}: {error.message}"


class WireSchema(NamedTuple):
    """A schema as it is sent: the body and whether strict mode is asked for."""

    schema: dict[str, Any]
    strict: bool


def needs_wrapping(schema: dict[str, Any]) -> bool:
    """Whether the schema's root is not a plain object, which OpenAI requires it to be."""
    if "$ref" in schema:
        schema = _resolve(schema, schema)
    return schema.get("type") != "object"


def openai_schema(spec: SchemaSpec) -> WireSchema:
    """Rewrite a schema for OpenAI's structured outputs.

    Strict mode wants an object at the root, every property required and no further properties;
    an answer that satisfies the rewritten schema satisfies the original. A root of another type
    is wrapped in an object. A schema that strict mode cannot express is sent as it is,
    ``strict: false`` (https://platform.openai.com/docs/guides/structured-outputs).
    """
    original = json.loads(spec.json)
    schema = _wrap(original) if needs_wrapping(original) else original
    if "$ref" in schema:
        target = _resolve(schema, schema)
        schema = {
            **target,
            **{key: schema[key] for key in ("$defs", "definitions") if key in schema},
        }
    try:
        return WireSchema(_strict(schema), True)
    except _NotStrict:
        return WireSchema(schema, False)


def _wrap(schema: dict[str, Any]) -> dict[str, Any]:
    inner = {k: v for k, v in schema.items() if k not in ("$defs", "definitions", "$schema", "$id")}
    inner = _moved(inner)
    schema = schema | {k: _moved(schema[k]) for k in ("$defs", "definitions") if k in schema}
    outer = {
        "type": "object",
        "properties": {WRAPPED: inner},
        "required": [WRAPPED],
        "additionalProperties": False,
    }
    return outer | {key: schema[key] for key in ("$defs", "definitions") if key in schema}


def _moved(node: Any) -> Any:
    """Let references to the old root follow it to its new place under the wrapper."""
    if isinstance(node, list):
        return [_moved(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: _moved(item) for key, item in node.items()}
    ref = out.get("$ref")
    if isinstance(ref, str) and re.match(r"#(?!/\$defs/|/definitions/)", ref):
        out["$ref"] = f"#/properties/{WRAPPED}{ref[1:]}"
    return out


def _resolve(node: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    target: Any = root
    for part in str(node["$ref"]).removeprefix("#").strip("/").split("/"):
        target = target.get(part, {}) if isinstance(target, dict) and part else target
    return target if isinstance(target, dict) and target is not node else {}


class _NotStrict(Exception):
    """Strict mode cannot express the schema."""


def _strict(node: Any) -> Any:
    """Rewrite one schema node; raise _NotStrict where that would change its meaning."""
    if not isinstance(node, dict):
        raise _NotStrict
    if not node or _NOT_STRICT & node.keys() or node.get("$ref") == "#":
        raise _NotStrict
    out = {key: value for key, value in node.items() if key not in _ANNOTATIONS}
    for key in ("$defs", "definitions"):
        if key in out:
            out[key] = {name: _strict(item) for name, item in out[key].items()}
    if "anyOf" in out:
        out["anyOf"] = [_strict(item) for item in out["anyOf"]]
    if "items" in out:
        out["items"] = _strict(out["items"])
    kinds = out.get("type", ())
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if "array" in kinds and "items" not in out:
        raise _NotStrict
    if "object" in kinds or "properties" in out:
        _strict_object(out)
    if not kinds and not ({"anyOf", "$ref", "enum", "const"} & out.keys()):
        raise _NotStrict
    return out


def _strict_object(out: dict[str, Any]) -> None:
    if out.get("additionalProperties", False) is not False or not out.get("properties"):
        raise _NotStrict
    out["properties"] = {name: _strict(item) for name, item in out["properties"].items()}
    out["required"] = list(out["properties"])
    out["additionalProperties"] = False
