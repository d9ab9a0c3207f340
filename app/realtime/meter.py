"""A router that meters each session.

Accounting is the meter's own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from app.realtime.router import SessionRouter
from app.realtime.session import Meter, RoutedSession, Used
from app.speech.voices import Voice


class MeteredRouter:
    """A `SessionRouter` for one caller. `opened` gives a session's meter, or raises what keeps it from being opened."""

    def __init__(
        self, router: SessionRouter, opened: Callable[[Voice, Used], AbstractAsyncContextManager[Meter]]
    ) -> None:
        self._router = router
        self._opened = opened

    @asynccontextmanager
    async def open(self, voice: Voice, *, used: Used | None = None, **options: Any) -> AsyncIterator[RoutedSession]:
        """As `SessionRouter.open`, and raises what the meter does. `used` is of a session that is resumable."""
        async with (
            self._opened(voice, used or Used()) as meter,
            self._router.open(voice, meter=meter, **options) as session,
        ):
            yield session
