"""Books that were made to be expensive: each costs what its size may cost, and nobody waits behind them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.errors import ManuscriptUnfit
from app.narration.book_reader import BookLimits
from app.narration.models import MAX_TEXT_BYTES, SourceKind
from app.speech.choices import Scope
from tests.api.conftest import Library, Studio
from tests.support.books import chapters, found, read

CYCLE = "[^1]\n\n[^1]: x [^2]\n\n[^2]: y [^1]"


def test_footnotes_that_name_each_other_are_left_out_as_all_are(tmp_path: Path) -> None:
    manuscript = read(tmp_path, f"It was dark.\n\n{CYCLE}", SourceKind.MARKDOWN)
    assert chapters(manuscript) == {"": ["It was dark."]}
    assert found(manuscript) == {"note"}


def test_footnotes_that_double_from_one_to_the_next_are_left_out_too(tmp_path: Path) -> None:
    notes = "\n\n".join(f"[^{n}]: a [^{n + 1}] [^{n + 1}]" for n in range(40))
    manuscript = read(tmp_path, f"It was[^0] dark.\n\n{notes}\n\n[^40]: end", SourceKind.MARKDOWN)
    assert chapters(manuscript) == {"": ["It was dark."]}


def test_a_mark_that_names_no_note_is_text(tmp_path: Path) -> None:
    manuscript = read(tmp_path, "It was [^dark].", SourceKind.MARKDOWN)
    assert chapters(manuscript) == {"": ["It was [^dark]."]}


@pytest.mark.parametrize("piece", ["<!--a", "x <!--a", "<script>", "<style a ", "<?a ", "<![CDATA[a "])
def test_markup_that_never_ends_40000_times_is_read_within_what_its_size_may_take(tmp_path: Path, piece: str) -> None:
    """The reader's own process is held to it, and what takes longer is refused."""
    assert chapters(read(tmp_path, "It was dark.\n\n" + piece * 40_000, SourceKind.MARKDOWN))


def test_a_short_text_may_take_little_and_a_long_one_what_a_slow_machine_needs() -> None:
    limits = BookLimits()
    short, long = limits.reading_of(47), limits.reading_of(MAX_TEXT_BYTES)
    assert short.cpu_s < 20
    assert 150 < long.cpu_s < long.wall_s
    assert limits.reading_of(2**40) == limits.reading_of(2**41), "what a file unpacks to brings no time without end"


@pytest.mark.anyio
async def test_a_recording_does_not_wait_behind_books(studio: Studio) -> None:
    """Every lane for books is taken, and none for recordings."""
    lanes = studio.house.server.config.app.state.services.book_lanes  # type: ignore[union-attr]
    voice_id = await studio.voice()
    async with asyncio.TaskGroup() as group:
        over = asyncio.Event()

        async def hold() -> None:
            async with lanes.place():
                await over.wait()

        for _ in range(10):
            group.create_task(hold())
        await asyncio.sleep(0)
        refused = await studio.http.post(
            f"/v1/voices/{voice_id}/samples", files={"files": ("a.wav", b"RIFF, but no more", "audio/wav")}
        )
        assert refused.status_code == 400
        over.set()


@pytest.mark.anyio
async def test_another_keys_book_is_read_while_one_has_handed_in_many(library: Library) -> None:
    services = library.house.server.config.app.state.services  # type: ignore[union-attr]
    over = asyncio.Event()

    async def hold() -> None:
        async with services.book_lanes.place():  # as one caller, who has no name here
            await over.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(hold())
        await asyncio.sleep(0)
        async with library.house.holder_of(Scope.NARRATE) as other:
            answer = await other.post("/v1/narrations", json={"voice": "slt", "text": "It was dark."})
        assert answer.status_code == 202
        over.set()


def test_a_text_that_holds_nothing_but_notes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManuscriptUnfit, match="nothing to speak"):
        read(tmp_path, CYCLE, SourceKind.MARKDOWN)
