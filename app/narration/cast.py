"""Resolves a manuscript's cast: its characters and the voices it names, checked against the voices that exist.

All errors are reported in one, each with its place; what is merely surprising becomes a finding.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Self

from app.errors import CarillonError, InvalidRequest, UnknownVoice
from app.narration.models import NARRATOR, Manuscript, Paragraph, TextFinding
from app.speech.voices import Voice

FindVoice = Callable[[str, str | None], Awaitable[Voice]]
"""`find(name, model)`: the voice of that name. Raises UnknownModel, UnknownVoice, or Overloaded without a worker."""

MAX_TOLD = 8
"""Errors listed in one response; a text can have thousands."""

MAX_FINDINGS = 20


@dataclass(frozen=True)
class Casting:
    """The voices of a narration by every name that is used for one; all are voices of `model`."""

    voice: str
    cast: Mapping[str, str]
    voices: Mapping[str, Voice]
    model: str
    findings: tuple[TextFinding, ...]


async def casting(
    find: FindVoice,
    manuscript: Manuscript,
    *,
    voice: str,
    cast: Mapping[str, str],
    model: str | None,
    language: str | None,
) -> Casting:
    """Find a voice for every line of `manuscript`, which is in `language` if that is known.

    `cast` has no narrator. Raises UnknownModel, Overloaded while there is no worker, and UnknownVoice or InvalidRequest
    for all that is wrong with the voices.
    """
    search, text = _Search(find, model), await asyncio.to_thread(_Roles.of, manuscript, cast)
    narrator = await search.find(voice, "voice")
    search.errors += [_no_such_character(name, text.characters) for name in cast if name not in text.characters]
    named = ((name, f"cast.{character}") for character, name in cast.items())
    for name, place in chain(named, text.voices):
        if len(search.errors) > MAX_TOLD:
            break
        await search.find(name, place)
    if search.errors or narrator is None:
        raise _all_told(search.errors)
    return Casting(
        voice=voice,
        cast=cast,
        voices=search.found,
        model=narrator.model,
        findings=(*text.findings, *_of_another_language(narrator, language)),
    )


@dataclass(frozen=True)
class _Roles:
    """What a text asks of its voices: who speaks, which voices it names and where, and what is surprising in it."""

    characters: frozenset[str]
    voices: tuple[tuple[str, str], ...]
    findings: tuple[TextFinding, ...]

    @classmethod
    def of(cls, manuscript: Manuscript, cast: Mapping[str, str]) -> Self:
        """Walks through the whole text."""
        return cls(
            characters=manuscript.characters,
            voices=tuple(_voices_of_text(manuscript)),
            findings=tuple(_without_voice(manuscript, cast)),
        )


class _Search:
    """Finds voices of one model: the one asked for, or else the first voice's."""

    def __init__(self, find: FindVoice, model: str | None) -> None:
        self.found: dict[str, Voice] = {}
        self.errors: list[CarillonError] = []
        self._find_voice = find
        self._model = model

    async def find(self, name: str, place: str) -> Voice | None:
        if name in self.found:
            return self.found[name]
        try:
            voice = await self._find_voice(name, self._model)
        except UnknownVoice as error:
            self.errors.append(UnknownVoice(f"{place}: {await self._elsewhere(name) or error.message}", param=place))
            return None
        self._model = voice.model
        self.found[name] = voice
        return voice

    async def _elsewhere(self, name: str) -> str | None:
        try:
            other = await self._find_voice(name, None)
        except UnknownVoice:
            return None
        return f"{name!r} is a voice of {other.model!r}, and a narration has the voices of one model: {self._model!r}"


def _lines(manuscript: Manuscript) -> Iterator[tuple[int, int, Paragraph]]:
    """Each paragraph with the numbers of its chapter and itself, from 1."""
    for chapter_number, chapter in enumerate(manuscript.chapters, start=1):
        for number, paragraph in enumerate(chapter.paragraphs, start=1):
            yield chapter_number, number, paragraph


def _voices_of_text(manuscript: Manuscript) -> Iterator[tuple[str, str]]:
    """The voices that the text names, each with the place where it does first."""
    seen: set[str] = set()
    for chapter, number, paragraph in _lines(manuscript):
        if paragraph.voice and paragraph.voice not in seen:
            seen.add(paragraph.voice)
            yield paragraph.voice, f"chapter {chapter}, paragraph {number}, [voice: {paragraph.voice[:64]}]"


def _without_voice(manuscript: Manuscript, cast: Mapping[str, str]) -> Iterator[TextFinding]:
    first_in: dict[str, int] = {}
    for chapter, _, paragraph in _lines(manuscript):
        if paragraph.voice is None and paragraph.character != NARRATOR and paragraph.character not in cast:
            first_in.setdefault(paragraph.character, chapter)
    for character, chapter in islice(first_in.items(), MAX_FINDINGS):
        message = f"{character!r} has no voice in the cast, and is read by the narrator"
        yield TextFinding(severity="check", code="uncast_character", message=message, chapter=chapter)
    if len(first_in) > MAX_FINDINGS:
        message = f"{len(first_in) - MAX_FINDINGS} more characters have no voice in the cast"
        yield TextFinding(severity="check", code="uncast_character", message=message)


def _of_another_language(narrator: Voice, language: str | None) -> Iterator[TextFinding]:
    if language and _primary(language) != _primary(narrator.language):
        yield TextFinding(
            severity="check",
            code="language",
            message=f"the text is in {language!r}, and {narrator.name!r} is a voice of {narrator.language!r}",
        )


def _primary(language: str) -> str:
    return language.replace("_", "-").partition("-")[0].lower()


def _no_such_character(character: str, characters: Collection[str]) -> CarillonError:
    there = _some(sorted({*characters} - {NARRATOR})) or "none but the narrator"
    return InvalidRequest(
        f"cast.{character}: no character of that name speaks in this text; its characters are: {there}",
        param=f"cast.{character}",
    )


def _all_told(errors: list[CarillonError]) -> CarillonError:
    if len(errors) == 1:
        return errors[0]
    kind = UnknownVoice if all(isinstance(error, UnknownVoice) for error in errors) else InvalidRequest
    return kind(_some([error.message for error in errors], "; "), param=errors[0].param)


def _some(words: Sequence[str], separator: str = ", ") -> str:
    return separator.join([*words[:MAX_TOLD], *(["and more"] if len(words) > MAX_TOLD else [])])
