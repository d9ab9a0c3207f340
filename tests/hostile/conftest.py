"""A front door among strangers: the one of tests/api, on a real port, and a watch on its event loop."""

from __future__ import annotations

from tests.api.conftest import (
    client,
    empty_database,
    house,
    library,
    open_house,
    open_library,
    open_studio,
    studio,
    worker,
)

__all__ = [
    "client",
    "empty_database",
    "house",
    "library",
    "open_house",
    "open_library",
    "open_studio",
    "studio",
    "worker",
]
