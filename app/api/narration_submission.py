"""What is handed in to be narrated: a text in JSON, or a form with a book and its cover; read, and brought into store.

A book is taken apart in a bounded subprocess before anything is promised for it, so that whoever sent it hears at once
what is wrong with it. The objects come before their row, as with recordings (`app.voices.ingest`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.api.bodies import (
    MAX_FIELD_BYTES,
    Form,
    FormFile,
    FormLimits,
    parse_json,
    read_json,
    received_form,
    workspace,
)
from app.api.services import Services
from app.errors import CarillonError, InvalidRequest, ManuscriptUnfit
from app.narration.book_reader import Book, Limits, check_cover_async, read_manuscript_async
from app.narration.cast import casting
from app.narration.models import (
    NARRATOR,
    CharacterName,
    Narration,
    NarrationOptions,
    NarrationSource,
    SourceKind,
    character_name,
)
from app.narration.rows import new_narration_id
from app.platform.object_keys import narration_prefix
from app.speech.choices import NarrationFormat
from app.voices.ingest import to_the_end
from app.voices.transcripts import shown_name

FIELDS = ("narration", "file", "cover")
JSON_BYTES_PER_TEXT_BYTE = 6
"""`\\u0041` for one byte of text."""
JSON_ROOM_BYTES = 4 * 2**20
"""For everything but the text: a thousand replacements, mostly."""

ZIP_MAGIC = b"PK\x03\x04"
ENDINGS = {SourceKind.TEXT: "txt", SourceKind.MARKDOWN: "md", SourceKind.EPUB: "epub"}
KINDS_BY_SUFFIX = {".md": SourceKind.MARKDOWN, ".markdown": SourceKind.MARKDOWN, ".epub": SourceKind.EPUB}
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
    kind: Literal["text", "markdown"] | None = Field(default=None, description="Default: by the file's name, or text.")
    format: NarrationFormat = NarrationFormat.M4B
    options: NarrationOptions = NarrationOptions()
    title: str | None = Field(default=None, max_length=300, description="Short for `options.title`.")
    webhook_url: str | None = Field(default=None, max_length=2000)

    @model_validator(mode="after")
    def _what_is_said_can_be_done(self) -> Self:
        if self.narrator is None:
            raise ValueError("voice: name the narrator's voice, here or as `narrator` of the cast")
        if self.voice and self.cast.get(NARRATOR, self.voice) != self.voice:
            raise ValueError(f"voice: it is {self.voice!r}, and the cast's narrator is {self.cast[NARRATOR]!r}")
        if any("\0" in text for text in _texts(self.model_dump(exclude={"text"}))):
            raise ValueError("one of the fields holds a NUL character; leave it out")
        if self.title and self.options.title and self.title != self.options.title:
            raise ValueError("title: there is another in options.title; give one")
        return self

    @property
    def narrator(self) -> str | None:
        return self.voice or self.cast.get(NARRATOR)

    @property
    def characters(self) -> dict[str, str]:
        """The cast without the narrator."""
        return {character: voice for character, voice in self.cast.items() if character != NARRATOR}

    @property
    def reading(self) -> NarrationOptions:
        """The options, with the title where it is given beside them."""
        return self.options.model_copy(update={"title": self.title}) if self.title else self.options


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value of JSON's kinds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from chain(value, *map(_texts, value.values()))


@dataclass(frozen=True)
class Submission:
    """What somebody wants narrated: the wish, and the files it came with, which go when the request ends."""

    wanted: NewNarration
    path: Path
    kind: SourceKind
    file_name: str
    cover: FormFile | None = None

    @property
    def file_title(self) -> str:
        """What the file is called, for a text without a title."""
        return "" if self.wanted.text is not None else Path(self.file_name).stem


@asynccontextmanager
async def received(request: Request, services: Services) -> AsyncIterator[Submission]:
    """The request's commission, of JSON or of a form.

    Raises InvalidRequest for fields that cannot be honoured, ManuscriptUnfit for files that are too large.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "multipart/form-data":
        narration = services.settings.narration
        limits = FormLimits(
            file_bytes=narration.max_file_bytes,
            total_bytes=narration.max_file_bytes + narration.max_cover_bytes + MAX_FIELD_BYTES,
            parts=2 * len(FIELDS),
        )
        async with received_form(request, services.uploads_directory, limits) as form:
            yield await asyncio.to_thread(_of_form, form, services)
        return
    directory = services.uploads_directory
    max_bytes = JSON_ROOM_BYTES + JSON_BYTES_PER_TEXT_BYTE * services.settings.narration.max_text_bytes
    wanted = await read_json(request, NewNarration, max_bytes=max_bytes)
    async with workspace(directory) as directory:
        yield await asyncio.to_thread(_of_text, wanted, directory / "text", services)


def _of_form(form: Form, services: Services) -> Submission:
    for name in [name for name, _ in form.fields] + [file.field for file in form.files]:
        if name not in FIELDS:
            raise InvalidRequest(f"{name[:64]!r} is no field of this form; it has: {', '.join(FIELDS)}", param="form")
    wanted = parse_json(form.value("narration").encode(), NewNarration)
    cover = _sent_file(form, "cover", services.settings.narration.max_cover_bytes)
    file = _sent_file(form, "file", services.settings.narration.max_file_bytes)
    if file is None:
        if wanted.text is None:
            raise InvalidRequest("file: the form has none; send a text, Markdown or EPUB file", param="file")
        if cover is None:
            raise InvalidRequest("text: a form is for files; send this as application/json", param="text")
        return _of_text(wanted, cover.path.with_name("text"), services, cover)
    if wanted.text is not None:
        raise InvalidRequest("text: the form has a file as well; send one of them", param="text")
    name = shown_name(file.name)
    return Submission(wanted, file.path, _kind_of(file.path, name, wanted), name, cover)


def _sent_file(form: Form, field: str, max_bytes: int) -> FormFile | None:
    """The one file of a field, if there is one. Raises InvalidRequest for several, ManuscriptUnfit above the limit."""
    files = [file for file in form.files if file.field == field]
    if len(files) > 1 or (not files and form.values(field)):
        raise InvalidRequest(f"{field}: the form has {len(files)} such files; send one", param=field)
    if not files:
        return None
    if not files[0].whole or files[0].size_bytes > max_bytes:
        raise ManuscriptUnfit(
            f"{field}: {shown_name(files[0].name)} has more than {max_bytes} bytes, the most it may have", param=field
        )
    return files[0]


def _of_text(wanted: NewNarration, path: Path, services: Services, cover: FormFile | None = None) -> Submission:
    if wanted.text is None:
        raise InvalidRequest("text: there is none; send it here, or a file in multipart/form-data", param="text")
    data, limit = wanted.text.encode(), services.settings.narration.max_text_bytes
    if len(data) > limit:
        raise ManuscriptUnfit(f"text: it has {len(data)} bytes; at most {limit}. Split it into parts", param="text")
    path.write_bytes(data)
    kind = SourceKind(wanted.kind or SourceKind.TEXT)
    return Submission(wanted, path, kind, f"text.{ENDINGS[kind]}", cover)


def _kind_of(path: Path, name: str, wanted: NewNarration) -> SourceKind:
    """By its first bytes, what was said of it, its name."""
    with path.open("rb") as file:
        by_bytes = SourceKind.EPUB if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC else None
    kind = by_bytes or KINDS_BY_SUFFIX.get(Path(name).suffix.lower(), SourceKind.TEXT)
    if wanted.kind and kind is SourceKind.EPUB:
        raise InvalidRequest(f"kind: {name} is no {wanted.kind}, but an EPUB or another archive", param="kind")
    return SourceKind(wanted.kind or kind)


async def read(services: Services, path: Path, kind: SourceKind, name: str) -> Book:
    """Take a book apart, few at once. Raises ManuscriptUnfit."""
    async with services.probes:
        return await read_manuscript_async(path, kind, name=name, limits=Limits.of(services.settings.narration))


async def _checked_cover(services: Services, cover: FormFile, format: NarrationFormat) -> str:
    """The content type of a cover that the finished file can have. Raises ManuscriptUnfit."""
    if format is NarrationFormat.WAV:
        raise ManuscriptUnfit("cover: a wav file has no place for one; choose another format", param="cover")
    async with services.probes:
        name = shown_name(cover.name)
        return await check_cover_async(cover.path, name=name, limits=Limits.of(services.settings.narration))


async def accepted(services: Services, commission: Submission) -> Narration:
    """Keep a commission that can be honoured: its files in the store, its row in the catalogue.

    Raises ManuscriptUnfit, and what `casting` raises.
    """
    wanted, options = commission.wanted, commission.wanted.reading
    cover_type = None if commission.cover is None else await _checked_cover(services, commission.cover, wanted.format)
    book = await read(services, commission.path, commission.kind, commission.file_name)
    assert wanted.narrator is not None
    cast = await casting(
        services.resolver.find,
        book.manuscript,
        voice=wanted.narrator,
        cast=wanted.characters,
        model=wanted.model,
        language=options.language or book.manuscript.language,
    )
    narration_id = new_narration_id()

    async def keep() -> Narration:
        source = await asyncio.to_thread(_store, services, narration_id, commission, book, cover_type)
        return await services.catalog.narrations.create(
            narration_id=narration_id,
            voice=cast.voice,
            cast=cast.cast,
            voices=cast.voices,
            model=cast.model,
            format=wanted.format,
            options=options,
            source=source,
            title=options.title or book.manuscript.title or commission.file_title,
            findings=(*book.manuscript.findings, *cast.findings),
            webhook_url=wanted.webhook_url,
        )

    try:
        return await to_the_end(keep())
    except Exception:
        await discard_all(services, narration_prefix(narration_id))
        raise


async def discard_all(services: Services, prefix: str) -> None:
    """Remove objects that no row speaks of; what an absent store keeps is logged, and left to maintenance."""
    try:
        await asyncio.to_thread(services.store.delete_prefix, prefix)
    except CarillonError as error:
        log.warning("objects left behind", extra={"prefix": prefix, "code": error.code})


def _store(
    services: Services, narration_id: str, commission: Submission, book: Book, cover_type: str | None
) -> NarrationSource:
    """Bring the files of a narration into the store: its text, and its cover or else the book's own. Blocks."""
    prefix = narration_prefix(narration_id)
    key = f"{prefix}source.{ENDINGS[commission.kind]}"
    services.store.upload(commission.path, key)
    cover_key = None
    if commission.cover is not None and cover_type is not None:
        cover_key = f"{prefix}cover.{COVER_ENDINGS[cover_type]}"
        services.store.upload(commission.cover.path, cover_key)
    elif book.cover is not None:
        cover_key = f"{prefix}cover.{COVER_ENDINGS[book.cover.content_type]}"
        services.store.put(cover_key, book.cover.content)
    return NarrationSource(
        kind=commission.kind,
        file_name=commission.file_name,
        key=key,
        size_bytes=commission.path.stat().st_size,
        cover_key=cover_key,
    )
