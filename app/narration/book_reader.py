"""Reads untrusted texts, books and covers, in a sandbox only.

`read_manuscript` reads plain text, Markdown, HTML, DOCX or EPUB from a file, `check_cover` looks whether a picture is
one by really decoding it. The scripts are `app.narration.epub_child` (books), `app.narration.text_blocks_child` (which
runs pandoc) and `app.narration.cover_child`. Chapters, characters and pauses are then found here, by
`app.narration.manuscript`.
"""

from __future__ import annotations

import asyncio
import base64
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pypandoc

from app.errors import ManuscriptUnfit
from app.narration.manuscript import Block, compose
from app.narration.models import MAX_TEXT_BYTES, Manuscript, SourceKind, TextFinding
from app.platform import sandbox
from app.platform.sandbox import Limits
from app.platform.settings import NarrationSettings
from app.speech.text.options import CodeReading

LIMITS = Limits(memory_bytes=2 * 2**30, cpu_s=15, wall_s=60.0, answer_bytes=128 * 2**20)
"""What reading the shortest text may take, but for the memory and the answer, which are of the longest: JSON, which
takes 30 MB at most, and a cover 11 MB."""

CPU_S_PER_MB = 30.0
"""5 MB of Markdown took 6 s of CPU on one machine, and slow ones take ten times as long."""

WALL_S_PER_CPU_S = 4

HEAP_BYTES, HEAP_BYTES_PER_MB = 256 * 2**20, 160 * 2**20
"""Pandoc's own bound, told as what it is; the kernel's bound on memory stands behind. 5 MB of Markdown took 0.7 GB in
pandoc, and 0.6 GB in Python."""

MARKUP_PER_TEXT = 4
"""A book's files are some times as large as what is read of them; beyond that, size brings no more time."""

_READING = Path(__file__).with_name("text_blocks_child.py")
_UNPACKING = Path(__file__).with_name("epub_child.py")
_COVERS = Path(__file__).with_name("cover_child.py")
_WORDING = sandbox.Wording(
    verb="read",
    script="its reader",
    remedy="split it, or hand it in as plain text",
    crash_remedy="export it again",
    work="reading a manuscript",
)


@dataclass(frozen=True)
class BookLimits:
    """How large a book may be, and what reading it may take."""

    max_text_bytes: int = MAX_TEXT_BYTES
    max_unpacked_bytes: int = 512 * 2**20
    max_cover_bytes: int = 8 * 2**20
    heap_bytes: int = 2**30
    """The most for pandoc: a short text has less."""
    cpu_s_per_mb: float = CPU_S_PER_MB
    reading: Limits = LIMITS
    """Of the shortest text, and of a cover."""

    def reading_of(self, size_bytes: int) -> Limits:
        """For a file of this size, which may write a copy of the text on its way: a large one has more time."""
        size_mb = min(size_bytes, MARKUP_PER_TEXT * self.max_text_bytes) / 2**20
        cpu_s = self.reading.cpu_s + math.ceil(size_mb * self.cpu_s_per_mb)
        wall_s = self.reading.wall_s + WALL_S_PER_CPU_S * (cpu_s - self.reading.cpu_s)
        return replace(self.reading, cpu_s=cpu_s, wall_s=wall_s, file_bytes=self.max_unpacked_bytes)

    @classmethod
    def of(cls, settings: NarrationSettings) -> Self:
        return cls(
            max_text_bytes=settings.max_text_bytes,
            max_unpacked_bytes=8 * settings.max_file_bytes,
            max_cover_bytes=settings.max_cover_bytes,
            cpu_s_per_mb=settings.reading_s_per_mb,
        )


@dataclass(frozen=True)
class Cover:
    content: bytes
    content_type: str


@dataclass(frozen=True)
class Book:
    """What was read. The cover is a book's own: a JPEG or PNG that decodes, or None."""

    manuscript: Manuscript
    cover: Cover | None = None


async def read_manuscript(
    path: Path,
    kind: SourceKind,
    *,
    name: str,
    limits: BookLimits | None = None,
    code: CodeReading = CodeReading.SKIP,
) -> Book:
    """The manuscript in a file; `name` is what messages call it, `code` what becomes of listings.

    Raises ManuscriptUnfit with the value, the place and the remedy: no UTF-8, no EPUB, a damaged, protected or
    exploding one, too much text, nothing to speak, and what used up its limits. Cancelled, it kills the subprocess.
    """
    limits = limits or BookLimits()
    if kind is SourceKind.EPUB:
        said = await _read_book(path, name, limits, code)
    else:
        said = await _read(path, kind, name, limits, code)
    manuscript = await asyncio.to_thread(_composed, said, name)
    cover = await _cover(said, manuscript, limits)
    if said.get("cover") and cover is None:
        found = TextFinding(
            severity="left_out", code="cover", message="the book's cover is no JPEG or PNG and left out"
        )
        manuscript = manuscript.model_copy(update={"findings": (*manuscript.findings, found)})
    return Book(manuscript, cover)


async def check_cover(path: Path, *, name: str, limits: BookLimits | None = None) -> str:
    """The content type of a picture: `image/jpeg` or `image/png`.

    Raises ManuscriptUnfit for anything else, for one too large or damaged; it is decoded, not believed. Cancelled, it
    kills the subprocess.
    """
    limits = limits or BookLimits()
    if (size := path.stat().st_size) > limits.max_cover_bytes:
        most = limits.max_cover_bytes / 2**20
        message = f"{name} is {size / 2**20:.1f} MB; a cover may have {most:.1f} MB: make it smaller."
        raise ManuscriptUnfit(message, param="cover")
    said = await _run(_COVERS, {"source": str(path.absolute())}, name=name, param="cover", limits=limits.reading)
    return said["content_type"]


async def _read(path: Path, kind: SourceKind, name: str, limits: BookLimits, code: CodeReading) -> dict[str, Any]:
    size = path.stat().st_size
    request = {
        "source": str(path.absolute()),
        "kind": kind.value,
        "code": code.value,
        "pandoc": pypandoc.get_pandoc_path(),
        "max_text_bytes": limits.max_text_bytes,
        "heap_bytes": min(limits.heap_bytes, HEAP_BYTES + size * HEAP_BYTES_PER_MB // 2**20),
    }
    return await _run(_READING, request, name=name, param="file", limits=limits.reading_of(size))


async def _read_book(path: Path, name: str, limits: BookLimits, code: CodeReading) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="carillon-") as directory:
        slim = Path(directory) / "book.epub"
        request = {
            "source": str(path.absolute()),
            "target": str(slim),
            "max_unpacked_bytes": limits.max_unpacked_bytes,
            "max_cover_bytes": limits.max_cover_bytes,
        }
        unpacking = limits.reading_of(path.stat().st_size)
        unpacked = await _run(_UNPACKING, request, name=name, param="file", limits=unpacking)
        return await _read(slim, SourceKind.EPUB, name, limits, code) | unpacked


def _composed(said: dict[str, Any], name: str) -> Manuscript:
    return compose(
        [*(Block(*block) for block in said["blocks"]), *(Block("dropped", what) for what in said.get("dropped", ()))],
        name=name,
        title=said.get("title", ""),
        author=said.get("author", ""),
        language=said.get("language", ""),
        contents=said.get("contents"),
    )


async def _cover(said: dict[str, Any], manuscript: Manuscript, limits: BookLimits) -> Cover | None:
    """The book's cover if it is a picture; a book can be narrated without."""
    if not said.get("cover"):
        return None
    content = await asyncio.to_thread(base64.b64decode, said["cover"])
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            return Cover(content, await check_cover(Path(file.name), name="the cover", limits=limits))
        except ManuscriptUnfit:
            return None


async def _run(script: Path, request: dict[str, Any], *, name: str, param: str, limits: Limits) -> dict[str, Any]:
    """The script's answer. Raises ManuscriptUnfit where it found a fault or broke its limits."""
    try:
        return await sandbox.run(script, request, limits=limits, wording=_WORDING)
    except sandbox.Fault as fault:
        raise ManuscriptUnfit(f"{name} {fault}.", param=param) from None
