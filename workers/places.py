"""Admission control of a worker: which session may begin, and which background sessions are dismissed for it.

It knows what sessions need, their pace and their adapter; it knows no socket, and not how a session is spoken.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from app.errors import InvalidRequest, Overloaded
from app.fleet.registry import LeaseRecord
from app.speech.protocol import Assign

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Place:
    """A session's place: `dismissed` for an interactive one, `free` once engine and decoder are rid of the session."""

    assign: Assign
    dismissed: asyncio.Event = field(default_factory=asyncio.Event)
    free: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def yields(self) -> bool:
        return self.assign.pace == "background"

    @property
    def adapter(self) -> str | None:
        return self.assign.voice.adapter.name if self.assign.voice.adapter else None


class Places:
    """The sessions at one worker: at most `capacity` of them, with at most `max_adapters` different adapters."""

    def __init__(self, worker_id: str, *, capacity: int, max_adapters: int) -> None:
        self.capacity = capacity
        self.max_adapters = max_adapters
        self._worker_id = worker_id
        self._places: dict[str, Place] = {}

    def __len__(self) -> int:
        return len(self._places)

    @property
    def sessions(self) -> tuple[str, ...]:
        return tuple(self._places)

    @property
    def leases(self) -> tuple[LeaseRecord, ...]:
        """What the sessions hold, as the registry has it."""
        return tuple(
            LeaseRecord(session, place.adapter or "", background=place.yields)
            for session, place in self._places.items()
        )

    @property
    def interactive(self) -> list[Place]:
        return [place for place in self._places.values() if not place.yields]

    @property
    def background(self) -> list[Place]:
        """In the order of their beginning."""
        return [place for place in self._places.values() if place.yields]

    def check_place(self, assign: Assign) -> None:
        """Raises InvalidRequest for a session that is here already, Overloaded when there is no place beside those
        that it must not hurt."""
        if assign.session in self._places:
            raise InvalidRequest(f"session {assign.session!r} is open here already", param="session")
        sessions = self._beside(assign)
        if len(sessions) >= self.capacity:
            raise Overloaded(f"worker {self._worker_id} speaks with {len(sessions)} already", retry_after_s=1)

    def check_adapter(self, assign: Assign) -> None:
        """Raises Overloaded when there is no slot for its adapter: without one it would wait behind those that have
        one, for ever if they stay busy (measured)."""
        active = adapters_of(self._beside(assign))
        adapter = assign.voice.adapter
        if adapter and adapter.name not in active and len(active) >= self.max_adapters:
            raise Overloaded(f"worker {self._worker_id} has all {len(active)} adapter slots in use", retry_after_s=1)

    def take(self, assign: Assign) -> tuple[Place, list[Place]]:
        """The place of an admitted session, and those that were dismissed for it: free a moment later."""
        place = self._places[assign.session] = Place(assign)
        dismissed: list[Place] = []
        while excess := self._excess():
            self._dismiss(excess)
            dismissed.append(excess)
        return place, dismissed

    def leave(self, place: Place) -> None:
        if self._places.get(place.assign.session) is place:
            del self._places[place.assign.session]

    def dismiss_background(self) -> None:
        for place in self.background:
            self._dismiss(place)

    def _beside(self, assign: Assign) -> list[Place]:
        return [*self.interactive, *(self.background if assign.pace == "background" else ())]

    def _excess(self) -> Place | None:
        """The background session that must go next, if any must: for its place the youngest; for a LoRA slot, of those
        that alone hold one, the youngest with the adapter that the fewest speak with.
        """
        background = self.background
        if len(adapters_of(self._places.values())) > self.max_adapters:
            needed = adapters_of(self.interactive)
            alone = [place for place in background if place.adapter and place.adapter not in needed]
            users = Counter(place.adapter for place in alone)
            return min(reversed(alone), key=lambda place: users[place.adapter])
        return background[-1] if len(self._places) > self.capacity else None

    def _dismiss(self, place: Place) -> None:
        del self._places[place.assign.session]
        place.dismissed.set()
        log.info("background session dismissed", extra={"session": place.assign.session})


def adapters_of(places: Iterable[Place]) -> frozenset[str]:
    """The distinct adapters that the sessions need."""
    return frozenset(place.adapter for place in places if place.adapter)
