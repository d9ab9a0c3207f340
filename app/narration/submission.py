"""A text or a book that is submitted: read, cast, brought into the store, and queued.

A book is taken apart in a bounded subprocess before anything is promised for it, so that its sender learns at once what
is wrong with it. The objects come before their row: a row never speaks of bytes that are not there. The transport is
not known here, and voices are resolved by a callable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.errors import CarillonError, InvalidRequest, ManuscriptUnfit
from app.narration.book_reader import Book, BookLimits, check_cover, read_manuscript
from app.narration.cast import Casting, FindVoice, casting
from app.narration.models import (
    NARRATOR,
    CharacterName,
    Manuscript,
    Narration,
    NarrationOptions,
    NarrationSource,
    SourceKind,
    character_name,
)
from app.narration.rows import new_narration_id
from app.narration.store import NarrationStore
from app.platform import webhooks
from app.platform.broker import NARRATE, RENDER
from app.platform.cancellation import to_the_end
from app.platform.lanes import FairLanes
from app.platform.object_keys import narration_prefix
from app.platform.object_store import ObjectStore, configured
from app.platform.quota import Quota
from app.platform.settings import Settings
from app.platform.task_queue import TaskQueue
from app.platform.workspace import workspace
from app.speech.choices import NarrationFormat
from app.speech.text.respelling import merged
from app.speech.voices import Voice

ZIP_MAGIC = b"PK\x03\x04"
ENDINGS = {
    SourceKind.TEXT: "txt",
    SourceKind.MARKDOWN: "md",
    SourceKind.EPUB: "epub",
    SourceKind.HTML: "html",
    SourceKind.DOCX: "docx",
    SourceKind.SSML: "ssml",
}
KINDS_BY_SUFFIX = {
    ".md": SourceKind.MARKDOWN,
    ".markdown": SourceKind.MARKDOWN,
    ".epub": SourceKind.EPUB,
    ".html": SourceKind.HTML,
    ".htm": SourceKind.HTML,
    ".xhtml": SourceKind.HTML,
    ".docx": SourceKind.DOCX,
    ".ssml": SourceKind.SSML,
}
NOT_TAKEN = {
    ".pdf": b"%PDF",
    ".doc": b"\xd0\xcf\x11\xe0",
    ".rtf": b"{\\rtf",
    ".mobi": None,
    ".azw3": None,
    ".odt": None,
}
"""Unsupported book formats, by file extension and first bytes: they describe layout rather than text, or need a program
of their own."""
COVER_ENDINGS = {"image/jpeg": "jpg", "image/png": "png"}

log = logging.getLogger(__name__)

VoiceName = Annotated[str, Field(min_length=1, max_length=128)]


def _lowered(cast: Any) -> Any:
    """Characters as they are compared. Raises ValueError for two that are one."""
    if not isinstance(cast, dict):
        return cast
    lowered = {character_name(str(name)): voice for name, voice in cast.items()}
    if len(lowered) < len(cast):
        raise ValueError("two of its characters are one, but for capitals and spaces")
    return lowered


Cast = Annotated[dict[CharacterName, VoiceName], Field(max_length=256), BeforeValidator(_lowered)]


class NewNarration(BaseModel):
    """The body of `POST /v1/narrations`, or its form's field `narration`."""

    model_config = ConfigDict(extra="forbid")

    voice: VoiceName | None = Field(default=None, description="The narrator's; default: the cast's `narrator`.")
    cast: Cast = Field(default_factory=dict, description="Character -> voice; the others are read by the narrator.")
    model: str | None = Field(default=None, max_length=128, description="Default: the narrator's voice's.")
    text: str | None = Field(default=None, description="The text itself, where no file is sent.")
    kind: Literal["text", "markdown", "ssml"] | None = Field(
        default=None, description="Default: by the file's name, or text."
    )
    format: NarrationFormat = NarrationFormat.M4B
    options: NarrationOptions = NarrationOptions()
    title: str | None = Field(default=None, max_length=300, description="Short for `options.title`.")
    webhook_url: str | None = Field(default=None, max_length=2000)

    @model_validator(mode="after")
    def _what_is_said_can_be_done(self) -> Self:
        if self.voice is None and NARRATOR not in self.cast:
            raise ValueError("voice: name the narrator's voice, here or as `narrator` of the cast")
        if self.voice and self.cast.get(NARRATOR, self.voice) != self.voice:
            raise ValueError(f"voice: it is {self.voice!r}, and the cast's narrator is {self.cast[NARRATOR]!r}")
        if any("\0" in text for text in _texts(self.model_dump(exclude={"text"}))):
            raise ValueError("one of the fields holds a NUL character; leave it out")
        if self.kind and self.options.markup not in ("auto", {"text": "plain"}.get(self.kind, self.kind)):
            raise ValueError(f"kind: it is {self.kind}, and options.markup is {self.options.markup}; give one")
        if self.title and self.options.title and self.title != self.options.title:
            raise ValueError("title: there is another in options.title; give one")
        return self

    @property
    def narrator(self) -> str:
        return self.voice or self.cast[NARRATOR]

    @property
    def characters(self) -> dict[str, str]:
        """The cast without the narrator."""
        return {character: voice for character, voice in self.cast.items() if character != NARRATOR}

    @property
    def reading(self) -> NarrationOptions:
        """The options, with the title where it is given beside them."""
        return self.options.model_copy(update={"title": self.title}) if self.title else self.options


def _chosen(wanted: NewNarration) -> str | None:
    """The kind of text that its sender says it is."""
    return wanted.kind or {"markdown": "markdown", "ssml": "ssml", "plain": "text"}.get(wanted.options.markup)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value of JSON's kinds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from chain(value, *map(_texts, value.values()))


@dataclass(frozen=True)
class SentCover:
    """A picture as it arrived, named as it is shown."""

    path: Path
    name: str


@dataclass(frozen=True)
class Submission:
    """A submission: the request's fields, and its files. `file_title` is for a text without a title."""

    wanted: NewNarration
    path: Path
    kind: SourceKind
    file_name: str
    file_title: str = ""
    cover: SentCover | None = None

    @classmethod
    def of_text(cls, wanted: NewNarration, path: Path, cover: SentCover | None = None) -> Self:
        """Of the text in the UTF-8 file `path`."""
        kind = SourceKind(_chosen(wanted) or SourceKind.TEXT)
        return cls(wanted, path, kind, f"text.{ENDINGS[kind]}", cover=cover)

    @classmethod
    def of_file(cls, wanted: NewNarration, path: Path, name: str, cover: SentCover | None = None) -> Self:
        """Of a book, whose kind is found by its first bytes, what was said of it, its name.

        Raises InvalidRequest, and ManuscriptUnfit for what is known not to be read.
        """
        with path.open("rb") as file:
            head = file.read(8)
        suffix = Path(name).suffix.lower()
        for ending, magic in NOT_TAKEN.items():
            if (magic and head.startswith(magic)) or (suffix == ending and not wanted.kind):
                raise ManuscriptUnfit(
                    f"file: {name} is a {ending.removeprefix('.').upper()}, which is not read here; save it as EPUB, "
                    "DOCX, HTML, Markdown or plain text",
                    param="file",
                )
        kind = KINDS_BY_SUFFIX.get(suffix, SourceKind.TEXT)
        packed = head.startswith(ZIP_MAGIC)
        if packed and kind is not SourceKind.DOCX:
            kind = SourceKind.EPUB
        chosen = _chosen(wanted)
        if chosen and packed:
            raise InvalidRequest(f"kind: {name} is no {chosen}, but an EPUB or another archive", param="kind")
        return cls(wanted, path, SourceKind(chosen or kind), name, file_title=Path(name).stem, cover=cover)


@dataclass(frozen=True)
class Submissions:
    """Takes submissions in. `lanes` bounds how many books are read at once; `directory` is for files meanwhile.

    `key_id` is of the key that hands them in.
    """

    settings: Settings
    narrations: NarrationStore
    object_store: ObjectStore | None
    queue: TaskQueue
    find_voice: FindVoice
    pronunciations: Callable[[Voice], Awaitable[Mapping[str, str]]]
    """How words are said in a voice, for whom the task works."""
    lanes: FairLanes
    directory: Path
    quota: Quota
    key_id: str | None = None

    async def accept(self, submission: Submission) -> Narration:
        """Keep a submission that can be honoured, its files in the store and its row in the catalogue, and queue it.

        What a repeated request has made already is returned as it is.
        Raises ManuscriptUnfit, InvalidRequest for the webhook, RateLimited, QuotaExceeded, and what `casting` raises.
        """
        wanted, options = submission.wanted, submission.wanted.reading
        narration_id = new_narration_id()
        if made := await self.narrations.made(narration_id):
            return made
        await self.quota.check_jobs()
        await self.quota.check_bytes(submission.path.stat().st_size)
        if wanted.webhook_url is not None:
            await webhooks.check(wanted.webhook_url, self.settings.cloning)
        cover_type = await self._checked_cover(submission.cover, wanted.format) if submission.cover else None
        book = await self._read(submission.path, submission.kind, submission.file_name, options)
        book = replace(book, manuscript=book.manuscript.chosen(options.chapters))
        cast = await self._cast(book, options, voice=wanted.narrator, cast=wanted.characters, model=wanted.model)
        options = await self._with_pronunciations(options, cast)

        async def keep() -> Narration:
            source = await self._stored(narration_id, submission, book, cover_type)
            return await self.narrations.create(
                narration_id=narration_id,
                voice=cast.voice,
                cast=cast.cast,
                voices=cast.voices,
                model=cast.model,
                format=wanted.format,
                options=options,
                source=source,
                title=options.title or book.manuscript.title or submission.file_title,
                findings=(*book.manuscript.findings, *cast.findings),
                webhook_url=wanted.webhook_url,
                key_id=self.key_id,
            )

        narration = await to_the_end(keep())
        await self.queue.send(NARRATE, narration.id, queue=RENDER)
        return narration

    async def read(self, submission: Submission) -> Manuscript:
        """What a submission would be made of. Raises ManuscriptUnfit."""
        options = submission.wanted.reading
        return (await self._read(submission.path, submission.kind, submission.file_name, options)).manuscript

    async def recast(self, narration: Narration, *, voice: str, cast: Mapping[str, str]) -> Casting:
        """Other voices for a text that was submitted before. Raises what `casting` raises."""
        store, source = configured(self.object_store), narration.source
        async with workspace(self.directory) as directory:
            folder, _, name = source.key.rpartition("/")
            path = directory / "source"
            await to_the_end(asyncio.to_thread(store.fetch, store.uri(folder), name, path))
            book = await self._read(path, source.kind, source.file_name, narration.options)
            book = replace(book, manuscript=book.manuscript.chosen(narration.options.chapters))
        return await self._cast(book, narration.options, voice=voice, cast=cast, model=narration.model)

    async def _cast(
        self, book: Book, options: NarrationOptions, *, voice: str, cast: Mapping[str, str], model: str | None
    ) -> Casting:
        language = options.language or book.manuscript.language
        return await casting(self.find_voice, book.manuscript, voice=voice, cast=cast, model=model, language=language)

    async def _with_pronunciations(self, options: NarrationOptions, cast: Casting) -> NarrationOptions:
        """The options with the words that are kept for the key and for each voice of the cast."""
        words = {
            name: merged(
                await self.pronunciations(voice), options.replacements, options.voice_replacements.get(name, {})
            )
            for name, voice in cast.voices.items()
        }
        common = set.intersection(*(set(of_voice.items()) for of_voice in words.values()))
        own = {name: dict(set(of_voice.items()) - common) for name, of_voice in words.items()}
        others = {name: own_words for name, own_words in own.items() if own_words}
        return options.model_copy(update={"replacements": dict(sorted(common)), "voice_replacements": others})

    async def _read(self, path: Path, kind: SourceKind, name: str, options: NarrationOptions) -> Book:
        """Take a book apart, few at once. Raises ManuscriptUnfit."""
        async with self.lanes.place():
            limits = BookLimits.of(self.settings.narration)
            return await read_manuscript(path, kind, name=name, limits=limits, code=options.code)

    async def _checked_cover(self, cover: SentCover, format: NarrationFormat) -> str:
        """The content type of a cover that the finished file can have. Raises ManuscriptUnfit."""
        if format is NarrationFormat.WAV:
            raise ManuscriptUnfit("cover: a wav file has no place for one; choose another format", param="cover")
        async with self.lanes.place():
            return await check_cover(cover.path, name=cover.name, limits=BookLimits.of(self.settings.narration))

    async def _stored(
        self, narration_id: str, submission: Submission, book: Book, cover_type: str | None
    ) -> NarrationSource:
        """`_store`, and nothing is left where it fails.

        A row that could not be written may be there all the same: its objects stay, for maintenance to look at.
        """
        try:
            return await asyncio.to_thread(self._store, narration_id, submission, book, cover_type)
        except Exception:
            await discard_objects(self.object_store, narration_id)
            raise

    def _store(self, narration_id: str, submission: Submission, book: Book, cover_type: str | None) -> NarrationSource:
        """Bring the files of a narration into the store: its text, and its cover or else the book's own. Blocks."""
        store, prefix = configured(self.object_store), narration_prefix(narration_id)
        key = f"{prefix}source.{ENDINGS[submission.kind]}"
        store.upload(submission.path, key)
        cover_key = None
        if submission.cover is not None and cover_type is not None:
            cover_key = f"{prefix}cover.{COVER_ENDINGS[cover_type]}"
            store.upload(submission.cover.path, cover_key)
        elif book.cover is not None:
            cover_key = f"{prefix}cover.{COVER_ENDINGS[book.cover.content_type]}"
            store.put(cover_key, book.cover.content)
        return NarrationSource(
            kind=submission.kind,
            file_name=submission.file_name,
            key=key,
            size_bytes=submission.path.stat().st_size,
            cover_key=cover_key,
        )


async def discard_objects(store: ObjectStore | None, narration_id: str) -> None:
    """Remove objects without a row; where the store is unavailable that is logged, and left to maintenance."""
    prefix = narration_prefix(narration_id)
    try:
        await asyncio.to_thread(configured(store).delete_prefix, prefix)
    except CarillonError as error:
        log.warning("objects left behind", extra={"prefix": prefix, "code": error.code})
