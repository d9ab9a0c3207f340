"""Options shared by several commands, and their parsing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

Url = Annotated[
    str | None, typer.Option(envvar="CARILLON_URL", help="The front door's. Default: the fleet of `carillon up` here.")
]
Key = Annotated[str | None, typer.Option(envvar="CARILLON_KEY", help="Default: the key of `carillon up` here.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def json_object(text: str, option: str) -> dict[str, Any]:
    """The value of an option that is JSON. Raises BadParameter."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{text!r} is no JSON object", param_hint=option)
    return value


def name_value_pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """The values of an option that is NAME=VALUE. Raises BadParameter."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name.strip()) or name.strip() in pairs:
            raise typer.BadParameter(f"{text!r} is no NAME=VALUE, or its name is there twice", param_hint=option)
        pairs[name.strip()] = value.strip()
    return pairs
