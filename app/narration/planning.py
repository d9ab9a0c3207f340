"""The first step of a narration: the manuscript becomes a script, and the script's chapters become steps."""

from __future__ import annotations

import logging

from app.narration.book_reader import BookLimits, read_manuscript
from app.narration.models import ChapterProgress, Script
from app.narration.normaliser import write_script
from app.narration.step import CHAPTERS_AT_ONCE, Ended, StepContext
from app.platform.retry import retry_store
from app.speech.token_layout import ORPHEUS_TAGS

log = logging.getLogger(__name__)


async def plan(context: StepContext) -> Ended:
    """Raises ManuscriptUnfit, StageFailed, StoreUnavailable, JobLost."""
    narration, step = context.narration, context.step
    script = await _script(context)
    key = f"{context.prefix}script-{step.attempt}.json"
    await context.put(key, script.model_dump_json().encode())
    chapters = tuple(
        ChapterProgress(number=chapter.number, title=chapter.title, segments=len(chapter.segments))
        for chapter in script.chapters
    )
    findings = tuple(dict.fromkeys((*narration.findings, *script.findings)))
    planned = await retry_store(
        lambda: context.steps.planned(
            step, chapters, script_key=key, title=script.title or narration.title, findings=findings
        )
    )
    facts = {"narration": narration.id, "chapters": len(chapters), "segments": script.segments}
    log.info("narration planned", extra=facts)
    return Ended(planned, messages=min(len(chapters), CHAPTERS_AT_ONCE))


async def _script(context: StepContext) -> Script:
    narration, options = context.narration, context.narration.options
    path = context.directory / "source"
    await context.fetch(narration.source.key, path)
    limits = BookLimits.of(context.settings.narration)
    book = await read_manuscript(
        path, narration.source.kind, name=narration.source.file_name, limits=limits, code=options.code
    )
    language = options.language or book.manuscript.language or narration.voices[narration.voice].language
    manuscript = book.manuscript.chosen(options.chapters)
    script = await write_script(
        manuscript,
        options,
        tags=ORPHEUS_TAGS,
        language=language,
        voice_of=narration.who_speaks,
        operator=context.settings.session.text_options,
    )
    title = options.title or script.title or narration.title
    return script.model_copy(update={"title": title, "author": options.author or script.author})
