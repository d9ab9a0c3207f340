"""What the tests share. Everything here is real, started on a free port for the session; nothing is patched."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
