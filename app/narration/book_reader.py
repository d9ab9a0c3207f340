"""A stranger's text or book is only ever read in a subprocess that cannot hurt: bounded in memory, time and disk.

`read_manuscript` reads plain text, Markdown or EPUB from a file, `check_cover` looks whether a picture is one by really
decoding it; both have a twin for coroutines. The subprocesses are `app.narration.epub_child` (books),
`app.narration.text_blocks_child` (which runs pandoc) and `app.narration.cover_child`, each in a session of its own,
killed whole when its time is up or its caller is cancelled. Chapters, characters and pauses are then found here, by
`app.narration.manuscript`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pypandoc

from app.errors import CarillonError, ManuscriptUnfit
from app.narration.manuscript import Block, compose
from app.narration.models import MAX_TEXT_BYTES, Manuscript, SourceKind, TextFinding
from app.platform.settings import NarrationSettings

_READING = Path(__file__).with_name("text_blocks_child.py")
_UNPACKING = Path(__file__).with_name("epub_child.py")
_COVERS = Path(__file__).with_name("cover_child.py")
_COMPLAINT_BYTES = 2**16
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}  # none of our secrets; pandoc reads UTF-8 by it


@dataclass(frozen=True)
class Limits:
    """What one reading may take. 5 MB of Markdown took 6 s of CPU, 0.7 GB in pandoc and 0.6 GB in Python."""

    max_text_bytes: int = MAX_TEXT_BYTES
    max_unpacked_bytes: int = 512 * 2**20
    max_cover_bytes: int = 8 * 2**20
    memory_bytes: int = 2 * 2**30
    heap_bytes: int = 2**30
    """Pandoc's own bound, told as what it is; the kernel's `memory_bytes` stands behind."""
    cpu_s: int = 60
    wall_s: float = 60.0
    answer_bytes: int = 128 * 2**20
    """What a reader may say: JSON of 5 MB of text takes 30 MB at most, a cover 11 MB."""

    @classmethod
    def of(cls, settings: NarrationSettings) -> Self:
        return cls(
            max_text_bytes=settings.max_text_bytes,
            max_unpacked_bytes=8 * settings.max_file_bytes,
            max_cover_bytes=settings.max_cover_bytes,
            cpu_s=max(1, round(settings.reading_timeout_s)),
            wall_s=settings.reading_timeout_s,
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


def read_manuscript(path: Path, kind: SourceKind, *, name: str, limits: Limits | None = None) -> Book:
    """The manuscript in a file; `name` is what messages call it.

    Raises ManuscriptUnfit with the value, the place and the remedy: no UTF-8, no EPUB, a damaged, protected or
    exploding one, too much text, nothing to speak, and what used up its limits.
    """
    return asyncio.run(read_manuscript_async(path, kind, name=name, limits=limits))


async def read_manuscript_async(path: Path, kind: SourceKind, *, name: str, limits: Limits | None = None) -> Book:
    """`read_manuscript` for coroutines; cancelled, it kills the subprocess."""
    limits = limits or Limits()
    if kind is SourceKind.EPUB:
        said = await _read_book(path, name, limits)
    else:
        said = await _read(path, kind, name, limits)
    manuscript = await asyncio.to_thread(_composed, said, name)
    cover = await _cover(said, manuscript, limits)
    if said.get("cover") and cover is None:
        found = TextFinding(
            severity="left_out", code="cover", message="the book's cover is no JPEG or PNG and left out"
        )
        manuscript = manuscript.model_copy(update={"findings": (*manuscript.findings, found)})
    return Book(manuscript, cover)


def check_cover(path: Path, *, name: str, limits: Limits | None = None) -> str:
    """The content type of a picture: `image/jpeg` or `image/png`.

    Raises ManuscriptUnfit for anything else, for one too large or damaged; it is decoded, not believed.
    """
    return asyncio.run(check_cover_async(path, name=name, limits=limits))


async def check_cover_async(path: Path, *, name: str, limits: Limits | None = None) -> str:
    """`check_cover` for coroutines; cancelled, it kills the subprocess."""
    limits = limits or Limits()
    if (size := path.stat().st_size) > limits.max_cover_bytes:
        most = limits.max_cover_bytes / 2**20
        message = f"{name} is {size / 2**20:.1f} MB; a cover may have {most:.1f} MB: make it smaller."
        raise ManuscriptUnfit(message, param="cover")
    said = await _run(_COVERS, {"source": str(path.absolute())}, name=name, param="cover", limits=limits)
    return said["content_type"]


async def _read(path: Path, kind: SourceKind, name: str, limits: Limits) -> dict[str, Any]:
    request = {
        "source": str(path.absolute()),
        "kind": kind.value,
        "pandoc": pypandoc.get_pandoc_path(),
        "max_text_bytes": limits.max_text_bytes,
    }
    return await _run(_READING, request, name=name, param="file", limits=limits)


async def _read_book(path: Path, name: str, limits: Limits) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="carillon-") as directory:
        slim = Path(directory) / "book.epub"
        request = {
            "source": str(path.absolute()),
            "target": str(slim),
            "max_unpacked_bytes": limits.max_unpacked_bytes,
            "max_cover_bytes": limits.max_cover_bytes,
        }
        unpacked = await _run(_UNPACKING, request, name=name, param="file", limits=limits)
        return await _read(slim, SourceKind.EPUB, name, limits) | unpacked


def _composed(said: dict[str, Any], name: str) -> Manuscript:
    return compose(
        [*(Block(*block) for block in said["blocks"]), *(Block("dropped", what) for what in said.get("dropped", ()))],
        name=name,
        title=said.get("title", ""),
        author=said.get("author", ""),
        language=said.get("language", ""),
        contents=said.get("contents"),
    )


async def _cover(said: dict[str, Any], manuscript: Manuscript, limits: Limits) -> Cover | None:
    """The book's cover if it is a picture; a book can be narrated without."""
    if not said.get("cover"):
        return None
    content = await asyncio.to_thread(base64.b64decode, said["cover"])
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            return Cover(content, await check_cover_async(Path(file.name), name="the cover", limits=limits))
        except ManuscriptUnfit:
            return None


async def _run(program: Path, request: dict[str, Any], *, name: str, param: str, limits: Limits) -> dict[str, Any]:
    """The program's answer. Raises ManuscriptUnfit where it found a fault or broke its bounds."""
    bounds = {
        "AS": limits.memory_bytes,
        "CPU": limits.cpu_s,
        "FSIZE": limits.max_unpacked_bytes,
        "HEAP": limits.heap_bytes,
    }
    command = [sys.executable, "-I", str(program), json.dumps({**request, "limits": bounds})]

    def refusal(fault: str) -> ManuscriptUnfit:
        return ManuscriptUnfit(f"{name} {fault}.", param=param)

    with tempfile.TemporaryDirectory(prefix="carillon-") as directory:  # what a killed program leaves goes with it
        code, answer, complaints = await _communicate(command, {**_ENVIRONMENT, "TMPDIR": directory}, limits)
    if len(answer) > limits.answer_bytes:
        raise refusal(f"reads as more than {limits.answer_bytes / 2**20:.0f} MB; split it")
    if code is None:
        raise refusal(f"took longer than {limits.wall_s:g} s to read; split it, or hand it in as plain text")
    if code == -signal.SIGXCPU:
        raise refusal(f"took more than {limits.cpu_s} s of CPU to read; split it, or hand it in as plain text")
    if code < 0:
        raise refusal(f"made its reader crash ({signal.Signals(-code).name}); it may be damaged: export it again")
    if code > 0:  # a defect of ours, or no room
        lines = complaints.decode("utf-8", "replace").strip().splitlines()
        raise CarillonError(
            f"reading a manuscript failed with status {code}: {lines[-1][:200] if lines else 'silence'}"
        )
    said: dict[str, Any] = await asyncio.to_thread(json.loads, answer)
    if fault := said.get("fault"):
        raise refusal(fault)
    return said


async def _communicate(
    command: list[str], environment: dict[str, str], limits: Limits
) -> tuple[int | None, bytes, bytes]:
    """(return code, its answer, its complaints), a byte more of them than is allowed; no code where time was up."""
    pipe = subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True, env=environment
    )
    assert process.stdout and process.stderr
    try:
        async with asyncio.timeout(limits.wall_s), asyncio.TaskGroup() as group:
            answer = group.create_task(_kept(process.stdout, limits.answer_bytes))
            complaints = group.create_task(_kept(process.stderr, _COMPLAINT_BYTES))
            code = await process.wait()
        return code, answer.result(), complaints.result()
    except TimeoutError:
        return None, b"", b""
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())


async def _kept(stream: asyncio.StreamReader, most: int) -> bytes:
    """What the stream says to its end, `most` bytes and one more of it: the rest is only read away."""
    kept = bytearray()
    while piece := await stream.read(2**16):
        kept += piece[: most + 1 - len(kept)]
    return bytes(kept)
