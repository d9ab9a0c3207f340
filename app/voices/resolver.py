"""The voices that can be asked for: the clones of the catalogue and the built-in voices of the models being served.

It holds a second's copy of the catalogue's clones, so that a session start costs no query.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable, Mapping
from time import monotonic

from app.errors import NotFound, Overloaded, UnknownModel, UnknownVoice
from app.platform.projects import EVERYONE, Tenant
from app.realtime.router import SessionRouter
from app.speech.voices import ModelCard, Voice
from app.voices.aliases import ANY_MODEL, stand_in_for
from app.voices.store import VoiceStore

MAX_AGE_S = 1.0
"""How long a front door may go on speaking with the version before the current one. A new voice is found at once."""

NO_WORKER_RETRY_S = 5.0


class PublishedVoices:
    """A copy of the catalogue's clones, and the rosters made of it. Two callers at one moment may both ask for one."""

    def __init__(
        self, voices: VoiceStore, *, aliases: Mapping[str, str] | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self._store = voices
        self._aliases = aliases or {}
        self._clock = clock
        self._clones: Mapping[str, list[Voice]] = {}
        self._read_at = float("-inf")
        self._rosters: dict[Tenant, Roster] = {}
        self._made_of: tuple[object, object] = (None, None)

    async def read(self, max_age_s: float = MAX_AGE_S) -> None:
        """Look at the catalogue, unless that was done so lately."""
        if self._clock() - self._read_at >= max_age_s:
            clones = await self._store.published_by_project()
            if clones != self._clones:
                self._clones = clones
            self._read_at = self._clock()

    def of(self, tenant: Tenant) -> list[Voice]:
        """The clones that a tenant has, its own project's first."""
        own = self._clones.get(tenant.project, [])
        if not tenant.sees_all:
            return own
        return own + [
            voice for project, voices in self._clones.items() if project != tenant.project for voice in voices
        ]

    def roster(self, cards: tuple[ModelCard, ...], tenant: Tenant) -> Roster:
        """Made again when the fleet's models or the catalogue's voices have changed."""
        if self._made_of[0] is not cards or self._made_of[1] is not self._clones:
            self._made_of = cards, self._clones
            self._rosters.clear()
        if tenant not in self._rosters:
            self._rosters[tenant] = Roster(cards, self.of(tenant), self._aliases)
        return self._rosters[tenant]


class VoiceResolver:
    """Finds voices by name, among those that a tenant has and the models' own."""

    def __init__(
        self, published: PublishedVoices, voices: VoiceStore, upstream: SessionRouter, tenant: Tenant = EVERYONE
    ) -> None:
        self._published = published
        self._store = voices
        self._upstream = upstream
        self._tenant = tenant

    def seen_by(self, tenant: Tenant) -> VoiceResolver:
        return VoiceResolver(self._published, self._store.seen_by(tenant), self._upstream, tenant)

    async def find(self, name: str, model: str | None) -> Voice:
        """The voice a request means.

        Raises UnknownModel or UnknownVoice with what there is to choose from, Overloaded while there is no worker.
        """
        cards = self._upstream.models
        if not cards:
            raise Overloaded("no worker is ready yet; try again in a moment", retry_after_s=NO_WORKER_RETRY_S)
        await self._published.read()
        try:
            return self._published.roster(cards, self._tenant).find(name, model)
        except UnknownVoice:
            await self._published.read(max_age_s=0)  # it may have been published a moment ago
            try:
                return self._published.roster(cards, self._tenant).find(name, model)
            except UnknownVoice as unknown:
                raise await self._untrained(name) or unknown from None

    async def _untrained(self, name: str) -> UnknownVoice | None:
        """What is missing of a voice that exists and cannot speak yet."""
        try:
            record = await self._store.get(name)
        except NotFound:
            return None
        return UnknownVoice(
            f"voice {record.name!r} ({record.id}) is not trained yet; POST /v1/clones with its id trains it, and "
            "`carillon jobs` shows how far that is",
            param="voice",
        )

    def card(self, model: str) -> ModelCard:
        """The model a name means, for a lookup; an alias means the first. Raises UnknownModel."""
        cards = self._upstream.models
        named = [card for card in cards if card.name == model] or (list(cards) if model in ANY_MODEL else [])
        if not named:
            raise unknown_model(model, (card.name for card in cards))
        return named[0]

    async def still_has(self, voice: Voice) -> bool:
        """Whether a voice that was found before has not been deleted since."""
        if voice.adapter is None:
            return True
        await self._published.read()
        return any(clone.id == voice.id for clone in self._published.of(self._tenant))

    async def all(self) -> list[Voice]:
        """Every voice that can be spoken with now, built-in ones first."""
        cards = self._upstream.models
        built_in = [voice for card in cards for voice in built_in_voices(card)]
        served = {card.name for card in cards}
        await self._published.read(max_age_s=0)
        return built_in + [voice for voice in self._published.of(self._tenant) if voice.model in served]


class Roster:
    """The voices that can be asked for: clones by id or name, then the built-in voices of the models that are served.

    Made once, so that each of many starts costs a look and no more, however many voices there are.
    """

    def __init__(
        self, cards: Iterable[ModelCard], clones: Iterable[Voice], aliases: Mapping[str, str] | None = None
    ) -> None:
        self._aliases = aliases or {}
        self._models = {card.name: card for card in cards}
        self._voices = [voice for voice in clones if voice.model in self._models]
        self._voices += [built_in for card in self._models.values() for built_in in built_in_voices(card)]
        self._found: dict[tuple[str | None, str], Voice] = {}
        for voice in self._voices:
            for key in itertools.product((None, voice.model), (voice.id, voice.name)):
                self._found.setdefault(key, voice)

    def find(self, name: str, model: str | None) -> Voice:
        """The voice a request means; `model` None, or one of OpenAI's own names, means any.

        Raises UnknownModel or UnknownVoice, each with what there is to choose from.
        """
        if model is not None and model not in self._models:
            if model not in ANY_MODEL:
                raise unknown_model(model, self._models)
            model = None
        voice = self._found.get((model, name)) or self._found.get((model, self._alias(name, model)))
        if voice is not None:
            return voice
        known = sorted({voice.name for voice in self._voices if model in (None, voice.model)})
        nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:8]
        raise UnknownVoice(f"voice {name[:64]!r} does not exist; the nearest are: {', '.join(nearest)}", param="voice")

    def _alias(self, name: str, model: str | None) -> str:
        cards = [card for card in self._models.values() if model in (None, card.name)]
        built_in = [voice for card in cards for voice in card.voices]
        return stand_in_for(name, built_in, self._aliases) or name


def unknown_model(name: str, served: Iterable[str]) -> UnknownModel:
    """The error for a model that no worker holds."""
    names = ", ".join(sorted(served)) or "none"
    return UnknownModel(f"model {name[:64]!r} is not served here; served are: {names}", param="model")


def built_in_voices(card: ModelCard) -> list[Voice]:
    """The voices that a model learnt by name."""
    return [Voice(id=name, name=name, model=card.name, language=card.languages[0]) for name in card.voices]
