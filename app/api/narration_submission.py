"""The body of `POST /v1/narrations`: a text in JSON, or a form with a book and its cover.

What becomes of it is in `app.narration.submission`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Request

from app.api.bodies import media_type, parse_json, read_json
from app.api.forms import MAX_FIELD_BYTES, Form, FormFile, FormLimits, received_form
from app.api.services import Services
from app.errors import InvalidRequest, ManuscriptUnfit
from app.narration.submission import NewNarration, SentCover, Submission
from app.platform.file_names import shown_name
from app.platform.settings import NarrationSettings
from app.platform.workspace import workspace

FIELDS = ("narration", "file", "cover")
JSON_BYTES_PER_TEXT_BYTE = 6
"""`\\u0041` for one byte of text."""
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
        async with received_form(request, services.uploads_directory, limits) as form:
            yield await asyncio.to_thread(_of_form, form, narration)
        return
    parent = services.uploads_directory
    max_bytes = JSON_ROOM_BYTES + JSON_BYTES_PER_TEXT_BYTE * narration.max_text_bytes
    wanted = await read_json(request, NewNarration, max_bytes=max_bytes)
    async with workspace(parent) as directory:
        yield await asyncio.to_thread(_of_text, wanted, directory / "text", narration.max_text_bytes)


def _of_form(form: Form, limits: NarrationSettings) -> Submission:
    for name in [name for name, _ in form.fields] + [file.field for file in form.files]:
        if name not in FIELDS:
            raise InvalidRequest(f"{name[:64]!r} is no field of this form; it has: {', '.join(FIELDS)}", param="form")
    wanted = parse_json(form.value("narration").encode(), NewNarration)
    picture = _sent_file(form, "cover", limits.max_cover_bytes)
    cover = picture and SentCover(picture.path, shown_name(picture.name))
    file = _sent_file(form, "file", limits.max_file_bytes)
    if file is None:
        if wanted.text is None:
            raise InvalidRequest("file: the form has none; send a text, Markdown or EPUB file", param="file")
        if cover is None:
            raise InvalidRequest("text: a form is for files; send this as application/json", param="text")
        return _of_text(wanted, cover.path.with_name("text"), limits.max_text_bytes, cover)
    if wanted.text is not None:
        raise InvalidRequest("text: the form has a file as well; send one of them", param="text")
    return Submission.of_file(wanted, file.path, shown_name(file.name), cover)


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


def _of_text(wanted: NewNarration, path: Path, max_bytes: int, cover: SentCover | None = None) -> Submission:
    if wanted.text is None:
        raise InvalidRequest("text: there is none; send it here, or a file in multipart/form-data", param="text")
    data = wanted.text.encode()
    if len(data) > max_bytes:
        raise ManuscriptUnfit(f"text: it has {len(data)} bytes; at most {max_bytes}. Split it into parts", param="text")
    path.write_bytes(data)
    return Submission.of_text(wanted, path, cover)
