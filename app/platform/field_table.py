"""A pydantic model's fields in words, for the reference pages: the type with its bounds, and the default.

It reads the JSON schema of a model. It does not know what the fields are for: PROTOCOL.md and SETTINGS.md use it alike.
"""

from __future__ import annotations

import json
from typing import Any

_BOUNDS = {
    "minimum": "≥ ",
    "exclusiveMinimum": "> ",
    "maximum": "≤ ",
    "exclusiveMaximum": "< ",
    "minLength": "≥ ",
    "maxLength": "≤ ",
}


def type_of(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """The type of `field`, which is a property of `schema`."""
    if "$ref" in field:
        return type_of(schema["$defs"][field["$ref"].rsplit("/", 1)[-1]], schema)
    if "anyOf" in field:
        return " or ".join(type_of(choice, schema) for choice in field["anyOf"])
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "prefixItems" in field:
        return "array: " + ", ".join(type_of(item, schema) for item in field["prefixItems"])
    if "items" in field:
        return f"array of {type_of(field['items'], schema)}"
    limits = [f"{sign}{_number(field[bound])}" for bound, sign in _BOUNDS.items() if bound in field]
    unit = " characters" if "maxLength" in field else ""
    pattern = f", `{field['pattern']}`" if "pattern" in field else ""
    return str(field.get("type", "any")) + (f" ({', '.join(limits)}{unit})" if limits else "") + pattern


def default_of(field: dict[str, Any]) -> str:
    """The default of `field` as JSON; text without its quotes."""
    value = field.get("default")
    if value is None:
        return "none"
    if value == "":
        return "empty"
    return f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
