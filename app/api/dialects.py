"""What the HTTP edges of all dialects share: routes that fail in their dialect's words, texts that are not too long,
and the header that names what was ignored.

It knows no dialect.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from app.api.errors import BODY, error_body
from app.errors import InvalidRequest, TextTooLong

MAX_BODY_BYTES_PER_CHAR = 12
"""A character beyond the BMP, escaped in JSON, takes twelve bytes."""

MAX_IGNORED = 20


class DialectRoute(APIRoute):
    """A route of a dialect; a subclass names the function that writes its errors."""

    body_of: ClassVar[Callable[..., dict[str, Any]]] = staticmethod(error_body)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        if match is not Match.NONE:
            found[BODY] = self.body_of
        return match, found


class SharedPathRoute(DialectRoute):
    """A route whose path is another edge's too: it is this dialect's for a request with its `header`."""

    header: ClassVar[str]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        named = self.header.encode()
        if scope["type"] != "http" or all(name != named for name, _ in scope["headers"]):
            return Match.NONE, {}
        return super().matches(scope)


def check_text(text: str, *, at_most: int, param: str) -> None:
    """Raises InvalidRequest where there is no text, and TextTooLong for one beyond what a single call may have."""
    if not text:
        raise InvalidRequest(f"{param} is empty; there is nothing to speak", param=param)
    if len(text) > at_most:
        raise TextTooLong(
            f"{param} has {len(text)} characters; at most {at_most}. Split it, or use WS /v1/sessions, "
            "which takes any amount of text",
            param=param,
        )


def ignored_header(names: Iterable[str]) -> dict[str, str]:
    """`X-Carillon-Ignored`, of at most MAX_IGNORED names; each as a JSON string where it is no plain word."""
    shown = [name if _is_plain(name) else json.dumps(name) for name in list(names)[:MAX_IGNORED]]
    return {"x-carillon-ignored": ", ".join(name[:64] for name in shown)} if shown else {}


def _is_plain(name: str) -> bool:
    return name.isascii() and all(part.isidentifier() for part in name.split("."))
