"""Every route of a front door, for tests that ask all of them."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.api.dialects import SharedPathRoute

CONSOLE = {"/", "/voices", "/voices/{_:path}", "/narrations", "/narrations/{_:path}", "/fleet"}
"""The console's pages, which are files."""

SIGNING_IN = {"/console/session", "/console/invitations"}
"""For keys of any scope, and for who has none yet: tests/api/test_console.py."""

TALK = {"/talk", "/talk/static/{name}", "/talk/offer"}
"""A page, and a conversation that asks the session API about its key: tests/api/test_talk.py."""

APART = CONSOLE | SIGNING_IN | TALK


def routes(app: FastAPI) -> Iterator[tuple[str, APIRoute]]:
    """Each method of each route of the API; without those that a request finds by a dialect's own header alone."""
    for route in app.routes:
        if isinstance(route, SharedPathRoute):
            continue
        if isinstance(route, APIRoute) and route.path not in APART:
            yield from ((method, route) for method in sorted(route.methods))
