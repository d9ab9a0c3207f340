"""Decodes one picture that a stranger made; run as a script by `book_reader`, never imported into a server.

    cover_child.py '{"source": …, "limits": …}'

It binds itself to the limits it is given, decodes the picture whole, and prints one JSON object: its `content_type`,
`width` and `height`, or a `fault`, words that follow the file's name. ffmpeg gets to see the file alone, through the
one demuxer that its first bytes name. It imports nothing of ours, to start fast.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
from pathlib import Path
from typing import Any

import av
import av.error

MAX_SIDE_PX = 10_000
MAX_PIXELS = 36_000_000
_SIGNATURES = {b"\xff\xd8\xff": ("jpeg_pipe", "image/jpeg"), b"\x89PNG\r\n\x1a\n": ("png_pipe", "image/png")}
_FOURCC = {"mjpeg", "png"}


class Fault(Exception):
    """What is wrong with the picture, and the remedy, to be read after its name."""


def check(source: Path) -> dict[str, Any]:
    """The picture's content type and size. Raises Fault."""
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


def main() -> None:
    request: dict[str, Any] = json.loads(sys.argv[1])
    for limit in ("AS", "CPU"):
        bound = request["limits"][limit]
        resource.setrlimit(getattr(resource, f"RLIMIT_{limit}"), (bound, bound + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        answer = check(Path(request["source"]))
    except Fault as fault:
        answer = {"fault": str(fault)}
    except MemoryError:
        answer = {"fault": "needs more memory to decode than any cover does; make it smaller"}
    except (av.error.FFmpegError, ValueError, IndexError, NotImplementedError):
        answer = {"fault": "is damaged or cut off and does not decode; export it again"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
