"""What is wrong with a value, in words for its author: the place of a field, and what it must be.

The checks are pydantic's; its own words ("Value error, …", "Input should be a valid dictionary") are for Python
programmers and are not passed on. Nothing here repeats the value itself, which may be private text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from pydantic import ValidationError

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_ESCAPED_UNSTORABLE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")

MAX_PLACE_CHARS = 200
"""Of a field's place in a message: a name may be as long as a client likes."""

WORDS = {
    "missing": "it is missing",
    "extra_forbidden": "there is no such field",
    "json_invalid": "this is no JSON: {error}",
    "value_error": "{error}",
    "model_type": "it must be an object, with its fields in braces",
    "model_attributes_type": "it must be an object, with its fields in braces",
    "dict_type": "it must be an object, with its fields in braces",
    "mapping_type": "it must be an object, with its fields in braces",
    "list_type": "it must be a list",
    "tuple_type": "it must be a list",
    "set_type": "it must be a list",
    "frozen_set_type": "it must be a list",
    "string_type": "it must be a text, in quotes",
    "string_too_short": "it must have at least {min_length} characters",
    "string_too_long": "it has more than {max_length} characters, the most it may have",
    "string_pattern_mismatch": "it must be written like {pattern}",
    "string_unicode": "it is no UTF-8",
    "too_short": "it must have at least {min_length} entries",
    "too_long": "it has more than {max_length} entries, the most it may have",
    "int_type": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "int_parsing_size": "it is too large a number",
    "float_type": "it must be a number",
    "float_parsing": "it must be a number",
    "finite_number": "it must be a finite number",
    "bool_type": "it must be true or false",
    "bool_parsing": "it must be true or false",
    "greater_than": "it must be more than {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be less than {lt}",
    "less_than_equal": "it must be at most {le}",
    "literal_error": "it must be {expected}",
    "enum": "it must be {expected}",
    "union_tag_not_found": "its {discriminator} is missing",
    "union_tag_invalid": "its {discriminator} must be one of {expected_tags}",
    "recursion_depth_exceeded": "it is nested too deep",
    "path_type": "it must be the path of a file or directory",
}


class Faulty(Protocol):
    """FastAPI's validation error, which is none of pydantic's."""

    def errors(self) -> Any: ...


def first_fault(error: ValidationError | Faulty, *, without: frozenset[str] = frozenset()) -> tuple[str, str]:
    """The first thing that is wrong: its place, as `train.epochs` (empty: the whole), and what it must be instead.

    Parts of the place that are in `without` are left out.
    """
    problems = error.errors(include_input=False) if isinstance(error, ValidationError) else error.errors()
    problem = problems[0]
    place = ".".join(str(part) for part in problem["loc"] if part not in without)
    return place[:MAX_PLACE_CHARS], reason(problem)


def reason(problem: Mapping[str, Any]) -> str:
    """One entry of a validation error's list, as the end of the sentence "<field>: …"."""
    words = WORDS.get(problem["type"], "it is not of the kind that is due here")
    return words.format(**problem.get("ctx", {}))


def check_storable(raw: bytes) -> None:
    """Raises ValueError, "<field>: <why>", for JSON with a text that no database and no file takes: with a NUL, or with
    half of a surrogate pair. It costs a search where there is no such escape."""
    if not _ESCAPED_UNSTORABLE.search(raw):
        return
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return  # no JSON at all, as its parser says
    for place, text in _texts(value):
        if found := _UNSTORABLE.search(text):
            what = "a NUL character" if found[0] == "\0" else "half of a surrogate pair, which is no character"
            shown = _UNSTORABLE.sub("\ufffd", place)[:MAX_PLACE_CHARS]
            raise ValueError(f"{shown or 'body'}: it holds {what}; leave it out")


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    """Every text in a value of JSON's kinds, names of fields too, with its place."""
    waiting = [("", value)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, str):
            yield place, value
        elif isinstance(value, dict):
            for name, inner in value.items():
                below = f"{place}.{name}" if place else name
                yield below, name
                waiting.append((below, inner))
        elif isinstance(value, list):
            waiting += ((f"{place}.{number}", inner) for number, inner in enumerate(value))
