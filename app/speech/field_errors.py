"""What is wrong with a value, in words for its author: the place of a field, and what it must be.

The checks are pydantic's; its own words ("Value error, …", "Input should be a valid dictionary") are for Python
programmers and are not passed on. Nothing here repeats the value itself, which may be private text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import ValidationError

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
    return ".".join(str(part) for part in problem["loc"] if part not in without), reason(problem)


def reason(problem: Mapping[str, Any]) -> str:
    """One entry of a validation error's list, as the end of the sentence "<field>: …"."""
    words = WORDS.get(problem["type"], "it is not of the kind that is due here")
    return words.format(**problem.get("ctx", {}))
