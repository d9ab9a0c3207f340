"""A wall clock that a test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class WallClock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
