"""Decodes one untrusted picture; run by `book_reader` in a sandbox, never imported into a server.

    {"source": …} -> {"content_type": …, "width": …, "height": …}

It decodes the picture whole. ffmpeg gets to see the file alone, through the one demuxer that its first bytes name.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import av
import av.error

from app.platform.sandbox_child import Fault, main

MAX_SIDE_PX = 10_000
MAX_PIXELS = 36_000_000
_SIGNATURES = {b"\xff\xd8\xff": ("jpeg_pipe", "image/jpeg"), b"\x89PNG\r\n\x1a\n": ("png_pipe", "image/png")}
_FOURCC = {"mjpeg", "png"}


def check(request: dict[str, Any]) -> dict[str, Any]:
    """The picture's content type and size. Raises Fault."""
    source = Path(request["source"])
    with source.open("rb") as file:
        head = file.read(32)
    demuxer, content_type = next((kind for magic, kind in _SIGNATURES.items() if head.startswith(magic)), ("", ""))
    if not demuxer:
        raise Fault("is no picture: neither JPEG nor PNG by its first bytes; hand in one of them")
    if demuxer == "png_pipe" and len(head) >= 24:
        check_size(*struct.unpack(">II", head[16:24]))
    options = {"protocol_whitelist": "file", "err_detect": "explode"}
    with av.open(f"file:{source.absolute()}", format=demuxer, options=options) as container:
        stream = container.streams.video[0]
        if stream.codec_context.name not in _FOURCC:
            raise Fault(f"holds {stream.codec_context.name}, which is no cover; hand in a JPEG or PNG")
        check_size(stream.codec_context.width, stream.codec_context.height)
        frame = next(container.decode(stream), None)
    if frame is None:
        raise Fault("is damaged or cut off and does not decode; export it again")
    check_size(frame.width, frame.height)
    return {"content_type": content_type, "width": frame.width, "height": frame.height}


def check_size(width: int, height: int) -> None:
    if width > MAX_SIDE_PX or height > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise Fault(
            f"has {width} × {height} pixels; at most {MAX_SIDE_PX} a side and {MAX_PIXELS // 10**6} million in all "
            "are accepted: make it smaller"
        )


if __name__ == "__main__":
    main(
        check,
        out_of_memory="needs more memory to decode than any cover does; make it smaller",
        damaged="is damaged or cut off and does not decode; export it again",
        damage=(av.error.FFmpegError, ValueError, IndexError, NotImplementedError),
    )
