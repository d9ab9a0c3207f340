"""The reference page of the errors, written from their classes and the map of their statuses.

`python -m app.api.errors_page` writes app/ERRORS.md; a test keeps the file current.
"""

from __future__ import annotations

import inspect
from pathlib import Path

from app import errors
from app.api.errors import HTTP_CODES, status_of
from app.errors import CarillonError

PAGE = Path(errors.__file__).with_name("ERRORS.md")

_INTRODUCTION = """\
# Errors

A request that fails is answered with the status below and OpenAI's body:

    {"error": {"message": "…", "type": "…", "param": null, "code": "unknown_voice"}}

`code` is stable and meant for programs; `message` names the value and the remedy. `Retry-After` is sent where a time is
known. In a session the same codes come in `error` messages ([PROTOCOL.md](api/native/PROTOCOL.md)), in jobs and
narrations in their `error`. *Retryable*: the same request can succeed later.

This page is generated from `app/errors.py` and `app/api/errors.py` by `python -m app.api.errors_page`.
"""

_OF_HTTP = """\
## Refused before a request reaches us

The HTTP layer itself refuses with these; any other status of it has the code `http_error`.
"""


def reference() -> str:
    """The page, in Markdown."""
    of_ours = ["| code | status | retryable | class | |", "|---|---|---|---|---|", *map(_row, error_kinds())]
    of_http = ["| code | status |", "|---|---|", *(f"| `{code}` | {status} |" for status, code in HTTP_CODES.items())]
    return "\n".join([_INTRODUCTION, *of_ours, "", _OF_HTTP, *of_http, ""])


def error_kinds() -> list[type[CarillonError]]:
    """Every class of error, by code."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CarillonError)]
    return sorted(kinds, key=lambda kind: kind.code)


def meaning(kind: type[CarillonError]) -> str:
    """The first line of an error's docstring."""
    return inspect.cleandoc(kind.__doc__ or "").splitlines()[0]


def _row(kind: type[CarillonError]) -> str:
    retryable = "yes" if kind.retryable else "no"
    return f"| `{kind.code}` | {status_of(kind(''))} | {retryable} | `{kind.__name__}` | {meaning(kind)} |"


if __name__ == "__main__":
    PAGE.write_text(reference(), "utf-8")
