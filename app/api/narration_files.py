"""What a narration has become: its audio by stretches, captions, chapters; for a key with `narrate`, or a signed link.

Audio passes through piece by piece, from the store to the client, and answers what players and download managers ask
(RFC 9110): one range, whether it is still the same file, nothing but the head.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response

from app.api.access import admit, bearer_token
from app.api.services import TheServices
from app.api.stored_response import StoredResponse
from app.errors import Conflict
from app.narration.captions import srt, vtt
from app.narration.models import Narration, NarrationOutput
from app.narration.progress import doing
from app.platform.file_names import shown_name
from app.platform.projects import EVERYONE
from app.speech.choices import CaptionsBy
from app.speech.choices import Scope as KeyScope

RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")
RESERVED = re.compile(r'[<>:"/\\|?*%]+')
"""What one file system or another has no file names with."""

router = APIRouter(tags=["narrations"])


async def readable(narration_id: str, request: Request, services: TheServices, token: str | None = None) -> Narration:
    """The narration, if the caller may read its files. Raises AuthenticationFailed, PermissionDenied, NotFound."""
    if token is not None:
        services.links.check(token, narration_id)
        return await services.seen_by(EVERYONE).catalog.narrations.get(narration_id)
    await admit(services, bearer_token(request), KeyScope.NARRATE)
    return await services.catalog.narrations.get(narration_id)


Readable = Annotated[Narration, Depends(readable)]


@router.head("/v1/narrations/{narration_id}/audio", include_in_schema=False)
@router.get("/v1/narrations/{narration_id}/audio", response_class=Response)
async def audio(narration: Readable, request: Request, services: TheServices) -> Response:
    """The finished file, or a range of it. While a segment is rendered again, the file before it."""
    output = narration.output
    if output is None:
        raise Conflict(f"{doing(narration)}; its audio is there when it is completed", param="id")
    etag = _etag(output)
    headers = {
        "accept-ranges": "bytes",
        "etag": etag,
        "cache-control": "private, no-cache",
        "content-disposition": content_disposition(narration.title, output.format.value),
    }
    if status := _precondition(request, etag):
        return Response(status_code=status, headers=headers)
    span = _wanted(request, etag, output.size_bytes)
    if span is not None and not span:
        return Response(status_code=416, headers={**headers, "content-range": f"bytes */{output.size_bytes}"})
    status = 200 if span is None else 206
    span = range(output.size_bytes) if span is None else span
    headers |= {"content-type": output.content_type, "content-length": str(len(span))}
    if status == 206:
        headers["content-range"] = f"bytes {span.start}-{span.stop - 1}/{output.size_bytes}"
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    pieces = services.store.read_range(output.key, span.start, span.stop)
    first = await asyncio.to_thread(next, pieces, b"")  # a store that is away is reported as that
    return StoredResponse(first, pieces, status=status, headers=headers)


def _precondition(request: Request, etag: str) -> int | None:
    """412 where the precondition fails, 304 where the client has the file, None where it is sent (RFC 9110, 13.2.2)."""
    wanted, had = (_tags(request, name) for name in ("if-match", "if-none-match"))
    if wanted and not wanted & {"*", etag}:
        return 412
    if {tag.removeprefix("W/") for tag in had} & {"*", etag}:
        return 304
    return None


def _tags(request: Request, header: str) -> set[str]:
    return {tag.strip() for line in request.headers.getlist(header) for tag in line.split(",")}


def _wanted(request: Request, etag: str, size: int) -> range | None:
    """The stretch asked for of this very file, as `byte_range` has it; None for the whole. Only GET has stretches."""
    asked = request.headers.get("range")
    if request.method != "GET" or asked is None or request.headers.get("if-range", etag) != etag:
        return None
    return byte_range(asked, size)


def byte_range(header: str, size: int) -> range | None:
    """The bytes that a Range header asks for; an empty range when there are none such, None for what is not honoured.

    Several ranges at once are not, which a server may do (RFC 9110, 14.2): the client gets the whole.

    byte_range("bytes=0-99", 1000) -> range(0, 100)
    byte_range("bytes=-100", 1000) -> range(900, 1000)
    byte_range("bytes=1000-", 1000) -> range(0, 0)
    """
    match = RANGE.fullmatch(header.strip().lower())
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(0, size - int(suffix)), size
    else:
        start, stop = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < start:
            return None
    return range(start, stop) if start < stop else range(0)


def content_disposition(title: str, ending: str) -> str:
    """A download's name from a title: what every file system takes, and the letters of the title where they are known.

    content_disposition("Über/unter", "mp3") -> 'attachment; filename="ber unter.mp3"; filename*=UTF-8\\'\\'%C3%9Cber…'
    """
    name = shown_name(RESERVED.sub(" ", title)) if title.strip() else "narration"
    plain = " ".join(name.encode("ascii", "ignore").decode().split()).strip(". ") or "narration"
    return f"attachment; filename=\"{plain}.{ending}\"; filename*=UTF-8''{quote(f'{name}.{ending}', safe='')}"


def _etag(output: NarrationOutput) -> str:
    """Of the bytes: every file that was ever made has a key of its own."""
    digest = hashlib.sha256(f"{output.key} {output.size_bytes}".encode()).hexdigest()
    return f'"{digest[:32]}"'


@router.head("/v1/narrations/{narration_id}/captions.vtt", include_in_schema=False)
@router.get("/v1/narrations/{narration_id}/captions.vtt", response_class=Response)
async def captions_vtt(narration: Readable, services: TheServices, by: CaptionsBy = CaptionsBy.LINE) -> Response:
    """WebVTT, in cues of at most two lines; by word, each line says when each of its words begins."""
    timeline = await services.narrations.timeline(narration)
    return Response(await asyncio.to_thread(vtt, timeline, by), media_type="text/vtt")


@router.head("/v1/narrations/{narration_id}/captions.srt", include_in_schema=False)
@router.get("/v1/narrations/{narration_id}/captions.srt", response_class=Response)
async def captions_srt(narration: Readable, services: TheServices, by: CaptionsBy = CaptionsBy.LINE) -> Response:
    """SubRip, in cues of at most two lines; by word, in cues of one word."""
    timeline = await services.narrations.timeline(narration)
    return Response(await asyncio.to_thread(srt, timeline, by), media_type="application/x-subrip")


@router.head("/v1/narrations/{narration_id}/chapters", include_in_schema=False)
@router.get("/v1/narrations/{narration_id}/chapters")
async def chapters(narration: Readable, services: TheServices) -> dict[str, Any]:
    """Where each chapter lies in the file, in seconds; `chapters` as Podcasting 2.0 has it (JSON chapters 1.2)."""
    timeline = await services.narrations.timeline(narration)
    rate_hz = timeline.sample_rate_hz
    listed = [
        {
            "number": chapter.number,
            "title": chapter.title,
            "start_s": (start_s := chapter.start_sample / rate_hz),
            "end_s": (end_s := chapter.end_sample / rate_hz),
            "startTime": start_s,
            "endTime": end_s,
        }
        for chapter in timeline.chapters
    ]
    return {"version": "1.2.0", "title": narration.title, "chapters": listed}
