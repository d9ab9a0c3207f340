"""The reference page of the settings, written from the settings themselves.

`python -m app.platform.settings_page` writes SETTINGS.md beside this file; a test keeps the file current.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from app.platform.field_table import default_of, type_of
from app.platform.settings import PREFIX, Settings

PAGE = Path(__file__).with_name("SETTINGS.md")

_REPOSITORY = f"{Path(__file__).resolve().parents[2]}/"

_INTRODUCTION = """\
# Settings

Every setting is an environment variable. All processes of a fleet read the same ones, each uses what concerns it, and
a variable that is misspelt or out of bounds ends the start with an error that names it. An empty variable counts as
absent. A group's fields follow it after two underscores: `CARILLON_ENGINE__MAX_LORAS=16`. An array is written as JSON
(`[3, 15]`); one of words may have commas instead (`tara, leo`). A path without a leading `/` is relative to the
repository.

Three variables are not settings. `CARILLON_URL` and `CARILLON_KEY` tell the commands which front door to ask, and with
which key; `CARILLON_BUILD` (`cpu` or `gpu`) tells `compose/install.sh` which build of vLLM to install.

This page is generated from `app/platform/settings.py` by `python -m app.platform.settings_page`.
"""


def reference() -> str:
    """The page, in Markdown."""
    return "\n".join([_INTRODUCTION, *_sections(Settings, PREFIX, "Where everything is, and what a process is like.")])


def _sections(group: type[BaseModel], prefix: str, described: str | None = None) -> Iterator[str]:
    """The variables of `group`, and then those of the groups in it."""
    schema = group.model_json_schema()
    inner = {name: field for name, field in group.model_fields.items() if _is_group(field.annotation)}
    rows = [
        f"| `{prefix}{name.upper()}` | {_type(field, schema)} | {_default(field)} | {field.get('description', '')} |"
        for name, field in schema["properties"].items()
        if name not in inner
    ]
    if rows:
        about = described or inspect.cleandoc(group.__doc__ or "")
        yield "\n".join(
            [f"## `{prefix}…`\n", about, "", "| variable | type | default | |", "|---|---|---|---|", *rows, ""]
        )
    for name, field in inner.items():
        if isinstance(field.annotation, type):
            yield from _sections(field.annotation, f"{prefix}{name.upper()}__", field.description)


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _choices(field: dict[str, Any]) -> list[dict[str, Any]]:
    """What a variable can hold: one that is absent has no value, so that null is none of them."""
    return [choice for choice in field.get("anyOf", [field]) if choice.get("type") != "null"]


def _is_secret(field: dict[str, Any]) -> bool:
    return any(choice.get("writeOnly") for choice in _choices(field))


def _type(field: dict[str, Any], schema: dict[str, Any]) -> str:
    return "secret" if _is_secret(field) else " or ".join(type_of(choice, schema) for choice in _choices(field))


def _default(field: dict[str, Any]) -> str:
    return "not shown" if _is_secret(field) else default_of(field).replace(_REPOSITORY, "")


if __name__ == "__main__":
    PAGE.write_text(reference(), "utf-8")
