"""Resolves voice names: the clones of the catalogue and the built-in voices of the models being served.

A name is looked up by itself, however many clones there are, and what was found is good for a second: most session
starts cost no query.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import monotonic

from app.errors import NotFound, Overloaded, UnknownModel, UnknownVoice
from app.platform.projects import EVERYONE, Tenant
from app.realtime.router import SessionRouter
from app.speech.voices import ModelCard, Voice
from app.voices.aliases import ANY_MODEL, stand_in_for
from app.voices.store import VoiceStore

MAX_AGE_S = 1.0
"""How long a front door may go on speaking with the version before the current one. A new voice is found at once."""

MAX_NAMES, MAX_NAME_CHARS = 10_000, 200
"""That are remembered, and how long each may be: callers choose them."""

MAX_NEAREST_OF = 1_000
"""Clones among which the nearest names are looked for."""

NO_WORKER_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Found:
    """What a name was when it was looked up: itself, and what it stands for."""

    read_at: float
    cards: tuple[ModelCard, ...]
    roster: Roster


class PublishedVoices:
    """What names have been found to be. Two callers at one moment may both look one up."""

    def __init__(
        self, voices: VoiceStore, *, aliases: Mapping[str, str] | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self._store = voices
        self._aliases = aliases or {}
        self._clock = clock
        self._found: dict[tuple[Tenant, str], Found] = {}

    async def named(
        self, name: str, cards: tuple[ModelCard, ...], tenant: Tenant, *, max_age_s: float = MAX_AGE_S
    ) -> Roster:
        """The voices that a tenant may mean by a name, looked up unless that was done so lately."""
        found = self._found.get((tenant, name))
        if found is not None and found.cards is cards and self._clock() - found.read_at < max_age_s:
            return found.roster
        names = Roster(cards, (), self._aliases).meanings(name)
        clones = await self._store.seen_by(tenant).spoken_as(names, models=[card.name for card in cards])
        roster = Roster(cards, clones, self._aliases)
        self._found.pop((tenant, name), None)
        if len(name) <= MAX_NAME_CHARS:
            self._found[tenant, name] = Found(self._clock(), cards, roster)
        if len(self._found) > MAX_NAMES:
            del self._found[next(iter(self._found))]
        return roster

    async def some(self, cards: tuple[ModelCard, ...], tenant: Tenant) -> Roster:
        """Voices to suggest where the requested one does not exist."""
        clones = await self._store.seen_by(tenant).published(limit=MAX_NEAREST_OF)
        return Roster(cards, clones, self._aliases)


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
        for max_age_s in (MAX_AGE_S, 0.0):  # it may have been published a moment ago
            roster = await self._published.named(name, cards, self._tenant, max_age_s=max_age_s)
            if (voice := roster.voice(name, model)) is not None:
                return voice
        if untrained := await self._untrained(name):
            raise untrained
        raise (await self._published.some(cards, self._tenant)).unknown(name, model)

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
        return bool(await self._store.spoken_as({voice.id}, models=[voice.model]))

    async def all(self) -> list[Voice]:
        """Every voice that can be spoken with now, built-in ones first."""
        cards = self._upstream.models
        built_in = [voice for card in cards for voice in built_in_voices(card)]
        served = {card.name for card in cards}
        return built_in + [voice for voice in await self._store.published() if voice.model in served]


class Roster:
    """The voices that can be asked for: clones by id or name, then the built-in voices of the models that are served.

    Made once for a name, so that each of many starts costs a look and no more.
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
        voice = self.voice(name, model)
        if voice is None:
            raise self.unknown(name, model)
        return voice

    def voice(self, name: str, model: str | None) -> Voice | None:
        """The same, and None where there is no such voice. Raises UnknownModel."""
        model = self._model(model)
        return self._found.get((model, name)) or self._found.get((model, self._alias(name, model)))

    def unknown(self, name: str, model: str | None) -> UnknownVoice:
        """The error for a name that is not here, with the nearest that are. Raises UnknownModel."""
        model = self._model(model)
        known = sorted({voice.name for voice in self._voices if model in (None, voice.model)})
        nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:8]
        return UnknownVoice(f"voice {name[:64]!r} does not exist; the nearest are: {', '.join(nearest)}", param="voice")

    def meanings(self, name: str) -> set[str]:
        """The names under which a voice may be that is asked for by this one."""
        return {name, *(self._alias(name, model) for model in (None, *self._models))}

    def _model(self, model: str | None) -> str | None:
        if model is None or model in self._models:
            return model
        if model not in ANY_MODEL:
            raise unknown_model(model, self._models)
        return None

    def _alias(self, name: str, model: str | None) -> str:
        cards = [card for card in self._models.values() if model in (None, card.name)]
        built_in = [voice for card in cards for voice in card.voices]
        return stand_in_for(name, built_in, self._aliases) or name


def unknown_model(name: str, served: Iterable[str]) -> UnknownModel:
    """The error for a model that no worker holds."""
    names = ", ".join(sorted(served)) or "none"
    return UnknownModel(f"model {name[:64]!r} is not served here; served are: {names}", param="model")


def built_in_voices(card: ModelCard) -> tuple[Voice, ...]:
    """The voices that a model learnt by name."""
    return tuple(Voice(id=name, name=name, model=card.name, language=card.languages[0]) for name in card.voices)
