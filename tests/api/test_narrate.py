"""`carillon narrate` with a front door, a catalogue and a store that are real; the tasks' part is played."""

from __future__ import annotations

import asyncio
import io
from functools import partial
from pathlib import Path

import pytest

from app.cli.narrate import NarrationRequest, narrate_book
from app.client.http import ApiClient
from app.errors import StageFailed
from app.speech.choices import CaptionsBy
from tests.support.deadlines import HANG_S
from tests.support.library import AUDIO, TEXT, Library

pytestmark = pytest.mark.anyio


async def run(library: Library, output: Path, out: io.StringIO, **options: object) -> None:
    """The command, in a thread."""
    key = library.http.headers["authorization"].removeprefix("Bearer ")
    with ApiClient(library.house.url, key) as client:
        work = partial(narrate_book, output=output, client=client, out=out, **options)  # type: ignore[arg-type]
        await asyncio.to_thread(work)


async def newest(library: Library) -> str:
    """The id of the narration that the command hands in."""
    while not (narrations := await library.book.all()):
        await asyncio.sleep(0.02)
    return narrations[0].id


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.md"
    path.write_text(TEXT, "utf-8")
    return path


async def test_a_book_goes_in_and_a_file_comes_out(library: Library, book: Path, tmp_path: Path) -> None:
    out, request = io.StringIO(), NarrationRequest(voice="slt", cast={"Hero": "rms"}, replacements={"sea": "see"})
    async with asyncio.timeout(HANG_S), asyncio.TaskGroup() as group:
        group.create_task(
            run(library, tmp_path / "book.m4b", out, book=book, request=request, captions=CaptionsBy.LINE)
        )
        narration = await library.rendered(await newest(library))
        await library.mastered(narration, AUDIO)
    assert (narration.cast, narration.options.replacements) == ({"hero": "rms"}, {"sea": "see"})
    assert (tmp_path / "book.m4b").read_bytes() == AUDIO
    assert "Who is there?" in (tmp_path / "book.vtt").read_text("utf-8")
    assert "Who is there?" in (tmp_path / "book.srt").read_text("utf-8")
    assert "0:00:30 in 2 chapters" in out.getvalue()
    assert "real-time factor 0.50" in out.getvalue()


async def test_one_that_failed_is_come_back_to(library: Library, book: Path, tmp_path: Path) -> None:
    out, output = io.StringIO(), tmp_path / "book.mp3"
    handed_in = asyncio.ensure_future(run(library, output, out, book=book, request=NarrationRequest(voice="slt")))
    narration_id = await newest(library)
    await library.failed(narration_id)
    with pytest.raises(StageFailed, match="the normaliser was killed"):
        await handed_in
    async with asyncio.timeout(HANG_S), asyncio.TaskGroup() as group:
        group.create_task(
            run(library, output, out, book=None, resume=narration_id, request=NarrationRequest(voice="rms"))
        )
        while (await library.book.get(narration_id)).state.over:
            await asyncio.sleep(0.02)
        await library.mastered(await library.rendered(narration_id), AUDIO)
    assert output.read_bytes() == AUDIO
    assert (await library.book.get(narration_id)).voice == "rms"
