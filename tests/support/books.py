"""Manuscripts for tests: texts read from a file, and EPUBs made of documents given as XHTML."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import av
import numpy as np
import pytest

from app.errors import ManuscriptUnfit
from app.narration.book_reader import Book, BookLimits, read_manuscript
from app.narration.models import Manuscript, SourceKind

CONTAINER = """<?xml version="1.0"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
ENCRYPTION = """<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><EncryptedData>
<EncryptionMethod Algorithm="{}"/></EncryptedData></encryption>"""


def xhtml(body: str) -> str:
    return (
        '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops">'
        f"<head><title>t</title></head><body>{body}</body></html>"
    )


def epub(
    path: Path,
    documents: dict[str, str],
    *,
    contents: str = "",
    ncx: str = "",
    cover: bytes | None = None,
    asides: Collection[str] = (),
    media_type: str = "application/xhtml+xml",
    author: str = "Ann Writer",
    extra: Mapping[str, str] | None = None,
) -> Path:
    """A book of documents (name -> body), in this order; `asides` stand outside of it."""
    items = [
        f'<item id="d{n}" href="{name.replace(" ", "%20")}" media-type="{media_type}"/>'
        for n, name in enumerate(documents)
    ]
    linear = ["no" if name in asides else "yes" for name in documents]
    spine = [f'<itemref idref="d{n}" linear="{answer}"/>' for n, answer in enumerate(linear)]
    files: dict[str, str | bytes] = {f"OEBPS/{name}": xhtml(body) for name, body in documents.items()}
    if contents:
        items.append('<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>')
        spine.insert(0, '<itemref idref="nav"/>')
        files["OEBPS/nav.xhtml"] = xhtml(f'<nav epub:type="toc"><ol>{contents}</ol></nav>')
    if ncx:
        items.append('<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>')
        files["OEBPS/toc.ncx"] = ncx
    if cover is not None:
        items.append('<item id="c" href="c.jpg" media-type="image/jpeg" properties="cover-image"/>')
        files["OEBPS/c.jpg"] = cover
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>The Lantern</dc:title>'
        f"<dc:creator>{author}</dc:creator><dc:creator>Bob</dc:creator><dc:language>en-GB</dc:language></metadata>"
        f"<manifest>{''.join(items)}</manifest>"
        f"<spine>{''.join(spine)}</spine></package>"
    )
    files = {"META-INF/container.xml": CONTAINER, "OEBPS/content.opf": package} | files | dict(extra or {})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        for name, content in files.items():
            book.writestr(name, content)
    return path


def read_epub(path: Path) -> Book:
    return asyncio.run(read_manuscript(path, SourceKind.EPUB, name="lantern"))


def picture(path: Path, codec: str, side_px: int = 32) -> Path:
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream(codec, rate=1)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = side_px
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "rgb24"
        frame = av.VideoFrame.from_ndarray(np.full((side_px, side_px, 3), 90, np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def chapters(manuscript: Manuscript) -> dict[str, list[str]]:
    return {chapter.title: [p.text for p in chapter.paragraphs] for chapter in manuscript.chapters}


def found(manuscript: Manuscript) -> set[str]:
    return {finding.code for finding in manuscript.findings}


def read(directory: Path, content: str | bytes, kind: SourceKind, limits: BookLimits | None = None) -> Manuscript:
    path = directory / "source"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return asyncio.run(read_manuscript(path, kind, name="lantern", limits=limits)).manuscript


def refusal(directory: Path, content: str | bytes, kind: SourceKind, limits: BookLimits | None = None) -> str:
    with pytest.raises(ManuscriptUnfit) as refused:
        read(directory, content, kind, limits)
    assert refused.value.message.startswith("lantern ")
    return refused.value.message
