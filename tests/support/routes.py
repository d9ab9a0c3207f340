"""Every route of a front door, for tests that ask all of them."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import FastAPI
from fastapi.routing import APIRoute


def routes(app: FastAPI) -> Iterator[tuple[str, APIRoute]]:
    """Each method of each route."""
    for route in app.routes:
        if isinstance(route, APIRoute):
            yield from ((method, route) for method in sorted(route.methods))
