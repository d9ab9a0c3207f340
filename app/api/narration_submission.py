"""The body of `POST /v1/narrations`: a text in JSON, or a form with a book and its cover.

What becomes of it is in `app.narration.submission`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Request

from app.api.bodies import media_type
from app.api.forms import MAX_FIELD_BYTES, Form, FormFile, FormLimits, received_form
from app.api.long_texts import parse_with_text, store_body
from app.api.services import Services
from app.errors import InvalidRequest, ManuscriptUnfit
from app.narration.submission import NewNarration, SentCover, Submission
from app.platform.file_names import shown_name
from app.platform.settings import NarrationSettings
from app.platform.workspace import workspace

FIELDS = ("narration", "file", "cover")
JSON_BYTES_PER_TEXT_BYTE = 6
"""`\\u0041` for one byte of text."""
MAX_VALUES = 2_000
"""A thousand replacements, and a cast."""
JSON_ROOM_BYTES = 4 * 2**20
"""For everything but the text: a thousand replacements, mostly."""


@asynccontextmanager
async def received(request: Request, services: Services) -> AsyncIterator[Submission]:
    """What a request submits, as JSON or as a form; its files go with the context.

    Raises InvalidRequest for fields that cannot be honoured, ManuscriptUnfit for files that are too large.
    """
    narration = services.settings.narration
    if media_type(request) == "multipart/form-data":
        limits = FormLimits(
            file_bytes=narration.max_file_bytes,
            total_bytes=narration.max_file_bytes + narration.max_cover_bytes + MAX_FIELD_BYTES,
            parts=2 * len(FIELDS),
        )
        async with (
            received_form(request, services.uploads_directory, limits) as form,
            workspace(services.uploads_directory) as directory,
        ):
            yield await _of_form(form, directory, narration)
        return
    max_bytes = JSON_ROOM_BYTES + JSON_BYTES_PER_TEXT_BYTE * narration.max_text_bytes
    async with workspace(services.uploads_directory) as directory:
        await store_body(request, directory / "body", max_bytes=max_bytes)
        yield await _of_text(directory, narration.max_text_bytes)


async def _of_form(form: Form, directory: Path, limits: NarrationSettings) -> Submission:
    for name in [name for name, _ in form.fields] + [file.field for file in form.files]:
        if name not in FIELDS:
            raise InvalidRequest(f"{name[:64]!r} is no field of this form; it has: {', '.join(FIELDS)}", param="form")
    await asyncio.to_thread((directory / "body").write_text, form.value("narration"), "utf-8")
    picture = _sent_file(form, "cover", limits.max_cover_bytes)
    cover = picture and SentCover(picture.path, shown_name(picture.name))
    file = _sent_file(form, "file", limits.max_file_bytes)
    wanted, text_bytes = await _parsed(directory)
    if file is None:
        if text_bytes is None:
            raise InvalidRequest("file: the form has none; send a text, Markdown or EPUB file", param="file")
        if cover is None:
            raise InvalidRequest("text: a form is for files; send this as application/json", param="text")
        return _checked_text(wanted, directory / "text", text_bytes, limits.max_text_bytes, cover)
    if text_bytes is not None:
        raise InvalidRequest("text: the form has a file as well; send one of them", param="text")
    return await asyncio.to_thread(Submission.of_file, wanted, file.path, shown_name(file.name), cover)


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


async def _parsed(directory: Path) -> tuple[NewNarration, int | None]:
    """What the file `body` wishes for, and how many bytes of text it had, which are in `text` now."""
    return await parse_with_text(
        directory / "body", NewNarration, field="text", target=directory / "text", max_values=MAX_VALUES
    )


async def _of_text(directory: Path, max_bytes: int) -> Submission:
    wanted, size = await _parsed(directory)
    if size is None:
        raise InvalidRequest("text: there is none; send it here, or a file in multipart/form-data", param="text")
    return _checked_text(wanted, directory / "text", size, max_bytes)


def _checked_text(
    wanted: NewNarration, path: Path, size: int, max_bytes: int, cover: SentCover | None = None
) -> Submission:
    if size > max_bytes:
        raise ManuscriptUnfit(f"text: it has {size} bytes; at most {max_bytes}. Split it into parts", param="text")
    return Submission.of_text(wanted, path, cover)
