"""A dry run, before anything is spoken: `POST /v1/narrations/preview`. The scope is `narrate`.

The body is that of `POST /v1/narrations`. Nothing of it is kept.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from textwrap import shorten
from typing import Any

from fastapi import APIRouter, Request

from app.api.access import Narrator
from app.api.bodies import either_body, json_body
from app.api.forms import form_body
from app.api.narration_submission import received
from app.api.services import Services, TheServices
from app.narration.models import Manuscript, ManuscriptChapter
from app.narration.names import names_in
from app.narration.submission import NewNarration

CHARS_PER_S = 15.0
"""English read aloud: 150 to 160 words a minute of six characters each, as audiobooks are."""

FIRST_CHARS = 300
MOST_NAMES = 40

router = APIRouter(tags=["narrations"])


BODY = either_body(json_body(NewNarration), form_body(narration="text", file="file", cover="file"))


@router.post("/v1/narrations/preview", openapi_extra=BODY)
async def preview(request: Request, services: TheServices, _: Narrator) -> dict[str, Any]:
    """Chapters, characters, names and findings of a text or a book, how long it would be and what it would cost."""
    async with received(request, services) as submission:
        manuscript = await services.submissions.read(submission)
    names = await asyncio.to_thread(_names, manuscript)
    audio_s = sum(_chars(chapter) for chapter in manuscript.chapters) / CHARS_PER_S
    said = Counter[str]()
    for chapter in manuscript.chapters:
        for paragraph in chapter.paragraphs:
            said[paragraph.character] += len(paragraph.text)
    return {
        "object": "narration.preview",
        "title": manuscript.title or submission.file_title,
        "author": manuscript.author,
        "language": manuscript.language,
        "chapters": [_shown(number, chapter) for number, chapter in enumerate(manuscript.chapters, start=1)],
        "characters": [{"name": name, "chars": chars} for name, chars in said.most_common()],
        "voices": sorted(manuscript.voices),
        "names": [{"word": word, "count": count} for word, count in names],
        "findings": [finding.model_dump(mode="json") for finding in manuscript.findings],
        "audio_s": round(audio_s),
        "cost_usd": _most_usd(services, audio_s),
    }


def _names(manuscript: Manuscript) -> list[tuple[str, int]]:
    paragraphs = (paragraph.text for chapter in manuscript.chapters for paragraph in chapter.paragraphs)
    return names_in(paragraphs, most=MOST_NAMES)


def _shown(number: int, chapter: ManuscriptChapter) -> dict[str, Any]:
    first = next((paragraph for paragraph in chapter.paragraphs if paragraph.text.strip()), None)
    return {
        "number": number,
        "title": chapter.title,
        "paragraphs": len(chapter.paragraphs),
        "chars": _chars(chapter),
        "audio_s": round(_chars(chapter) / CHARS_PER_S),
        "first": shorten(first.text, FIRST_CHARS, placeholder=" …") if first else "",
        "first_character": first.character if first else None,
    }


def _most_usd(services: Services, audio_s: float) -> float | None:
    """The cost if a place took as long as the audio plays; narrations take less. None where no price is set."""
    price, workers = services.settings.narration.worker_usd_per_hour, services.router.workers
    places = sum(worker.capacity for worker in workers)
    return None if price is None or not places else audio_s / 3600 * price * len(workers) / places


def _chars(chapter: ManuscriptChapter) -> int:
    return sum(len(paragraph.text) for paragraph in chapter.paragraphs)
