"""The voices that can be asked for: the clones of the catalogue and the built-in voices of the models being served.

It holds a second's copy of the catalogue's clones, so that a session start costs no query.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from app.errors import Overloaded, UnknownVoice
from app.realtime.router import Upstream
from app.speech.voices import ModelCard, Roster, Voice, built_in_voices

if TYPE_CHECKING:
    from app.catalog import Catalog

MAX_AGE_S = 1.0
"""How long a front door may go on speaking with the version before the current one. A new voice is found at once."""

NO_WORKER_RETRY_S = 5.0


class Directory:
    """Finds voices by name. Two callers at one moment may both ask the catalogue; that is harmless."""

    def __init__(self, catalog: Catalog, upstream: Upstream, clock: Callable[[], float] = monotonic) -> None:
        self._catalog = catalog
        self._upstream = upstream
        self._clock = clock
        self._clones: tuple[Voice, ...] = ()
        self._read_at = float("-inf")
        self._roster: Roster | None = None
        self._cards: tuple[ModelCard, ...] = ()
        self._listed: tuple[Voice, ...] = ()
        """What the roster was made of."""

    async def find(self, name: str, model: str | None) -> Voice:
        """The voice a request means.

        Raises UnknownModel or UnknownVoice with what there is to choose from, Overloaded while there is no worker.
        """
        cards = self._upstream.models
        if not cards:
            raise Overloaded("no worker is ready yet; try again in a moment", retry_after_s=NO_WORKER_RETRY_S)
        try:
            return self._roster_of(cards, await self._published()).find(name, model)
        except UnknownVoice:
            clones = await self._published(max_age_s=0)  # it may have been published a moment ago
            return self._roster_of(cards, clones).find(name, model)

    def _roster_of(self, cards: tuple[ModelCard, ...], clones: tuple[Voice, ...]) -> Roster:
        """Made anew when the fleet's models or the catalogue's voices have been looked at anew."""
        if self._roster is None or cards is not self._cards or clones is not self._listed:
            self._cards, self._listed = cards, clones
            self._roster = Roster(cards, clones)
        return self._roster

    async def still_has(self, voice: Voice) -> bool:
        """Whether a voice that was found before has not been deleted since."""
        return voice.adapter is None or any(clone.id == voice.id for clone in await self._published())

    async def all(self) -> list[Voice]:
        """Every voice that can be spoken with now, built-in ones first."""
        cards = self._upstream.models
        built_in = [voice for card in cards for voice in built_in_voices(card)]
        served = {card.name for card in cards}
        return built_in + [voice for voice in await self._published(max_age_s=0) if voice.model in served]

    async def _published(self, max_age_s: float = MAX_AGE_S) -> tuple[Voice, ...]:
        if self._clock() - self._read_at >= max_age_s:
            clones = tuple(await self._catalog.voices.published())
            if clones != self._clones:
                self._clones = clones
            self._read_at = self._clock()
        return self._clones
