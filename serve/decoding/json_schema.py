"""JSON schemas as llguidance takes them, with keywords that there are.

llguidance refuses standard keywords that it cannot follow, but passes over others: a misspelt
`propertys` would ask for nothing, which is refused here.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from serve.errors import InputError

# As json.dumps writes. Free whitespace is where a small model would stay for ever.
_JSON = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_OPTIONS = "x-guidance"

# The vocabularies of JSON Schema (https://json-schema.org/draft/2020-12, and those of draft 4 to
# 2019-09 before it), by what their values hold.
_SCHEMA = {
    "items", "additionalProperties", "additionalItems", "not", "if", "then", "else", "contains",
    "propertyNames", "unevaluatedItems", "unevaluatedProperties", "contentSchema",
}  # fmt: skip
_SCHEMAS = {"allOf", "anyOf", "oneOf", "prefixItems", "items"}
_NAMED_SCHEMAS = {"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"}
_ASSERTIONS = {
    "type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum",
    "exclusiveMinimum", "maxLength", "minLength", "pattern", "format", "maxItems", "minItems",
    "uniqueItems", "maxContains", "minContains", "maxProperties", "minProperties", "required",
    "dependentRequired", "dependencies",
}  # fmt: skip
_NOTES = {
    "$schema", "$id", "id", "$ref", "$anchor", "$comment", "$vocabulary", "$dynamicRef",
    "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "title", "description", "default",
    "examples", "deprecated", "readOnly", "writeOnly", "contentEncoding", "contentMediaType",
    "example", "discriminator",  # OpenAPI's, which say nothing of what is valid
}  # fmt: skip
_KNOWN = _SCHEMA | _SCHEMAS | _NAMED_SCHEMAS | _ASSERTIONS | _NOTES
_OVERLOOKED = {"additionalItems"}  # standard, yet neither followed nor refused by llguidance


def schema_text(given: Any) -> str:
    """A schema's text, with how JSON is to be written.

    Args:
        given: A dict, or its text in JSON.

    Raises:
        InputError: It is neither, or has a keyword that JSON Schema does not know; those that begin
            with "x-" are anybody's.
    """
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise InputError(f"json_schema={given!r:.200} is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise InputError(f"json_schema={given!r:.200}: expected a dict, or its text in JSON")
    wishes = given.get(_OPTIONS, {})
    if not isinstance(wishes, dict):
        raise InputError(f"json_schema has {_OPTIONS}={wishes!r:.80}: expected a dict of options")
    try:
        text = json.dumps({**given, _OPTIONS: {**_JSON, **wishes}}, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"json_schema cannot be written as JSON: {error}") from error
    _check_keywords(json.loads(text))
    return text


def _check_keywords(schema: Mapping[str, Any]) -> None:
    """Refuse a keyword that would be passed over, with its place."""
    waiting: list[tuple[str, Any]] = [("#", schema)]
    while waiting:
        place, part = waiting.pop()
        if not isinstance(part, dict):  # true and false are schemas; the rest llguidance refuses
            continue
        for name in part:
            if name in _OVERLOOKED:
                raise InputError(
                    f"json_schema has {name!r} at {place}, which is not supported: leave it out"
                )
            if name not in _KNOWN and not name.startswith("x-"):
                alike = difflib.get_close_matches(name, sorted(_KNOWN), 1)
                hint = f"did you mean {alike[0]!r}?" if alike else "leave it out, or begin it by x-"
                raise InputError(
                    f"json_schema has {name!r} at {place}, which is no keyword of JSON Schema: "
                    f"{hint}"
                )
        waiting += _within(place, part)


def _within(place: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas that a schema holds, with their places."""
    for name, value in schema.items():
        if name in _SCHEMAS and isinstance(value, list):
            yield from ((f"{place}/{name}/{at}", one) for at, one in enumerate(value))
        elif name in _NAMED_SCHEMAS and isinstance(value, dict):
            yield from ((f"{place}/{name}/{key}", one) for key, one in value.items())
        elif name in _SCHEMA:
            yield f"{place}/{name}", value
