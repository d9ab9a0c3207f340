"""What strangers hand in to be narrated: text, Markdown and EPUB are read, the rest is refused with its reason."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from app.core.errors import ManuscriptUnfit
from app.core.narration import Manuscript, SourceKind
from app.infra.manuscripts import Book, Limits, check_cover, check_cover_async, read_manuscript, read_manuscript_async

CONTAINER = """<?xml version="1.0"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
ENCRYPTION = """<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><EncryptedData>
<EncryptionMethod Algorithm="{}"/></EncryptedData></encryption>"""


def read(directory: Path, content: str | bytes, kind: SourceKind, limits: Limits | None = None) -> Manuscript:
    path = directory / "source"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_manuscript(path, kind, name="lantern", limits=limits).manuscript


def refusal(directory: Path, content: str | bytes, kind: SourceKind, limits: Limits | None = None) -> str:
    with pytest.raises(ManuscriptUnfit) as refused:
        read(directory, content, kind, limits)
    assert refused.value.message.startswith("lantern ")
    return refused.value.message


def chapters(manuscript: Manuscript) -> dict[str, list[str]]:
    return {chapter.title: [p.text for p in chapter.paragraphs] for chapter in manuscript.chapters}


def found(manuscript: Manuscript) -> set[str]:
    return {finding.code for finding in manuscript.findings}


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
    return read_manuscript(path, SourceKind.EPUB, name="lantern")


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


# Plain text


def test_a_plain_text_is_paragraphs_between_blank_lines(tmp_path: Path) -> None:
    manuscript = read(tmp_path, "\ufeffIt was\r\ndark.\r\n \r\n\r\nNobody came.\r\n", SourceKind.TEXT)
    assert chapters(manuscript) == {"": ["It was dark.", "Nobody came."]}


@pytest.mark.parametrize(
    "line",
    [
        "Chapter 1", "CHAPTER IV", "Chapter Twenty-One: The Storm", "chapter ii.", "CHAPTER I.\nDown the Well",
        "Chapter 3 The Storm", "Epilogue", "STAVE ONE",
    ],
)  # fmt: skip
def test_a_plain_texts_chapters_begin_at_lines_that_name_one(tmp_path: Path, line: str) -> None:
    manuscript = read(tmp_path, f"Chapter 0\n\nIt was dark.\n\n{line}\n\nIt was light.", SourceKind.TEXT)
    assert list(chapters(manuscript)) == ["Chapter 0", " ".join(line.split())]


@pytest.mark.parametrize(
    "line", ["Chapter one was dull.", "Chapters 1 and 2", "Chapter 1\nwas the last of them,\nhe said.", "Part of it"]
)
def test_a_sentence_that_begins_like_a_heading_is_none(tmp_path: Path, line: str) -> None:
    assert len(read(tmp_path, f"It was dark.\n\n{line}\n\nIt was light.", SourceKind.TEXT).chapters) == 1


def test_a_part_over_its_first_chapter_goes_into_its_title(tmp_path: Path) -> None:
    text = "PART ONE\n\nChapter 1\n\na\n\nChapter 2\n\nb\n\nPART TWO\n\nChapter 3\n\nc"
    assert list(chapters(read(tmp_path, text, SourceKind.TEXT))) == [
        "PART ONE: Chapter 1",
        "Chapter 2",
        "PART TWO: Chapter 3",
    ]


def test_long_lines_without_blank_ones_between_are_paragraphs(tmp_path: Path) -> None:
    line = "It was a long line. " * 20
    assert len(read(tmp_path, f"{line}\n{line}\n", SourceKind.TEXT).chapters[0].paragraphs) == 2


def test_markup_is_found_in_a_plain_text(tmp_path: Path) -> None:
    manuscript = read(tmp_path, '[hero]\nWait. <break time="1s"/> Now. <laugh>', SourceKind.TEXT)
    first, second = manuscript.chapters[0].paragraphs
    assert (first.character, first.pause_s, second.text) == ("hero", 1.0, "Now. <laugh>")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty (0 bytes)"),
        ("Was it?\ncaf\u00e9".encode("latin-1"), "byte 0xE9 at offset 11 (line 2); save it as UTF-8"),
        ("Dark.".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"Dark.\0", "character 5 is a zero byte"),
        (b"* * *\n\n---\n", "holds nothing to speak"),
    ],
)
def test_what_is_no_text_is_refused_by_what_it_is(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in refusal(tmp_path, content, SourceKind.TEXT)


@pytest.mark.parametrize("kind", [SourceKind.TEXT, SourceKind.MARKDOWN])
@pytest.mark.parametrize("times", [1.5, 10])
def test_too_much_text_is_refused_with_its_size(tmp_path: Path, kind: SourceKind, times: float) -> None:
    text = "It was dark.\n\n" * round(times * 2**17 / 12)
    reason = refusal(tmp_path, text, kind, Limits(max_text_bytes=2**17))
    assert "MB of text; at most 0.1 MB are accepted: split it" in reason


# Markdown


def test_markdown_loses_its_formatting_and_keeps_its_words(tmp_path: Path) -> None:
    text = """---
title: The Lantern
author: Ann Writer
lang: en
---

## One

It was *very* dark, "quite" **so**; see [the map](http://a.b/c) for $5 or $6.
The `lamp` burned.

> Who is there?

1. First.
2. Second.

## Two

    It was light.

* * *

It ended.
"""
    manuscript = read(tmp_path, text, SourceKind.MARKDOWN)
    assert (manuscript.title, manuscript.author, manuscript.language) == ("The Lantern", "Ann Writer", "en")
    assert chapters(manuscript) == {
        "One": [
            'It was very dark, "quite" so; see the map for $5 or $6. The lamp burned.',
            "Who is there?",
            "1. First.",
            "2. Second.",
        ],
        "Two": ["It was light.", "It ended."],
    }


def test_pictures_notes_tables_and_code_are_left_out_of_markdown_and_told(tmp_path: Path) -> None:
    text = (
        "It was dark[^1].\n\n[^1]: At night.\n\n![A map](map.png)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
        "```python\nprint()\n```\n"
    )
    manuscript = read(tmp_path, text, SourceKind.MARKDOWN)
    assert chapters(manuscript) == {"": ["It was dark."]}
    assert found(manuscript) == {"note", "picture", "table", "code"}


def test_markup_is_found_in_markdown(tmp_path: Path) -> None:
    text = (
        '[hero]: Yes.\n\n[hero] *Wait*. <break time="1s"/> Now <laugh> come.\n\n<laugh>\nIt is <b>dark</b>.\n\n'
        '<break time="2s"/>\n\n<!-- a secret --> The end.'
    )
    said = read(tmp_path, text, SourceKind.MARKDOWN).chapters[0].paragraphs
    assert [(p.character, p.text, p.pause_s) for p in said] == [
        ("hero", "Yes.", None),
        ("hero", "Wait.", 1.0),
        ("hero", "Now <laugh> come.", None),
        ("narrator", "<laugh> It is dark.", 2.0),
        ("narrator", "The end.", None),
    ]


def test_a_rule_at_the_start_of_markdown_is_no_metadata(tmp_path: Path) -> None:
    assert chapters(read(tmp_path, "---\nIt was dark.\n\n---\n\nIt ended.", SourceKind.MARKDOWN)) == {
        "": ["It was dark.", "It ended."]
    }


def test_blocks_nested_without_end_are_refused(tmp_path: Path) -> None:
    assert "nests its blocks" in refusal(tmp_path, "> " * 400 + "a", SourceKind.MARKDOWN)


def test_a_reading_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    text = "It was *dark*. " * 60_000
    assert "memory or time" in refusal(tmp_path, text, SourceKind.MARKDOWN, Limits(heap_bytes=48 * 2**20))
    assert "needs more memory" in refusal(tmp_path, text, SourceKind.TEXT, Limits(memory_bytes=2**20))


# EPUB


def test_a_book_is_read_with_its_title_chapters_and_cover(tmp_path: Path) -> None:
    cover = picture(tmp_path / "c.jpg", "mjpeg").read_bytes()
    path = epub(
        tmp_path / "book.epub",
        {
            "title.xhtml": '<section epub:type="titlepage"><h1>The Lantern</h1><p>Ann Writer</p></section>',
            "one 1.xhtml": "<h2>One</h2><p>It was <i>dark</i>.</p>",
            "two.xhtml": "<h2>Two</h2><p>It was light.</p>",
            "three.xhtml": "<p>It ended.</p>",
        },
        contents='<li><a href="one%201.xhtml">One</a></li><li><a href="three.xhtml#x">The End</a></li>',
        cover=cover,
    )
    book = read_epub(path)
    assert (book.manuscript.title, book.manuscript.author, book.manuscript.language) == (
        "The Lantern",
        "Ann Writer, Bob",
        "en-GB",
    )
    assert chapters(book.manuscript) == {"One": ["It was dark."], "Two": ["It was light."], "The End": ["It ended."]}
    assert book.cover and (book.cover.content, book.cover.content_type) == (cover, "image/jpeg")


def test_a_book_without_headings_and_contents_has_a_chapter_for_each_document(tmp_path: Path) -> None:
    book = read_epub(epub(tmp_path / "b.epub", {"a.xhtml": "<p>It was dark.</p>", "b.xhtml": "<p>It ended.</p>"}))
    assert [chapter.title for chapter in book.manuscript.chapters] == ["", ""]


@pytest.mark.parametrize("media_type", ["application/xhtml+xml", "text/html", "application/xml"])
def test_a_document_is_known_by_what_the_package_calls_it_not_by_its_name(tmp_path: Path, media_type: str) -> None:
    documents = {"one.xht": "<h1>One</h1><p>It was dark.</p>", "two": "<h1>Two</h1><p>It ended.</p>"}
    book = read_epub(epub(tmp_path / "b.epub", documents, media_type=media_type))
    assert chapters(book.manuscript) == {"One": ["It was dark."], "Two": ["It ended."]}


def test_documents_of_one_name_in_two_folders_have_their_own_entries_in_the_contents(tmp_path: Path) -> None:
    contents = '<li><a href="x/t.xhtml">First</a></li><li><a href="y/t.xhtml">Second</a></li>'
    documents = {"0.xhtml": "<p>Once.</p>", "y/t.xhtml": "<p>It ended.</p>", "x/t.xhtml": "<p>It was dark.</p>"}
    book = read_epub(epub(tmp_path / "b.epub", documents, contents=contents))
    assert chapters(book.manuscript) == {"": ["Once."], "Second": ["It ended."], "First": ["It was dark."]}


NCX = """<?xml version="1.0"?>
<!DOCTYPE ncx PUBLIC "-//NISO//DTD ncx 2005-1//EN" "http://www.daisy.org/z3986/2005/ncx-2005-1.dtd">
<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap><navPoint><navLabel><text>{}</text></navLabel>
<content src="a.xhtml#top"/></navPoint></navMap></ncx>"""


def test_older_contents_may_have_the_entities_of_html(tmp_path: Path) -> None:
    book = read_epub(epub(tmp_path / "b.epub", {"a.xhtml": "<p>Dark.</p>"}, ncx=NCX.format("Caf&eacute;&nbsp;1")))
    assert chapters(book.manuscript) == {"Café 1": ["Dark."]}
    assert not book.manuscript.findings


def test_contents_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    book = read_epub(epub(tmp_path / "b.epub", {"a.xhtml": "<p>Dark.</p>"}, ncx=NCX.format("<b>")))
    assert chapters(book.manuscript) == {"": ["Dark."]}
    assert found(book.manuscript) == {"broken_contents"}


def test_documents_outside_of_the_books_order_are_told_unless_they_are_empty(tmp_path: Path) -> None:
    documents = {"a.xhtml": "<p>Dark.</p>", "b.xhtml": "<p>An aside.</p>", "c.xhtml": "<p><img src='c.jpg'/></p>"}
    book = read_epub(epub(tmp_path / "b.epub", documents, asides=["b.xhtml", "c.xhtml"]))
    assert chapters(book.manuscript) == {"": ["Dark."]}
    (finding,) = book.manuscript.findings
    assert (finding.code, finding.severity) == ("aside", "left_out")
    assert finding.message.endswith("1 left out")


def test_a_cover_drawn_on_a_page_of_its_own_is_not_read(tmp_path: Path) -> None:
    drawn = '<div><svg viewBox="0 0 6 9"><image width="6" height="9" xlink:href="cover.png"/></svg></div>'
    book = read_epub(epub(tmp_path / "b.epub", {"cover.xhtml": drawn, "one.xhtml": "<h2>One</h2><p>It was dark.</p>"}))
    assert chapters(book.manuscript) == {"One": ["It was dark."]}


def test_the_bundled_story_is_the_same_as_markdown_and_as_a_book() -> None:
    story = Path(__file__).parents[1] / "books" / "the-bell-on-owl-island.epub"
    book = read_epub(story)
    text = read_manuscript(story.with_suffix(".md"), SourceKind.MARKDOWN, name="story")
    assert book.manuscript == text.manuscript
    assert [chapter.title[:11] for chapter in book.manuscript.chapters] == [
        "Chapter I: ",
        "Chapter II:",
        "Chapter III",
        "Chapter IV:",
    ]
    assert sum(len(p.text.split()) for chapter in book.manuscript.chapters for p in chapter.paragraphs) > 3_000
    assert book.cover


def test_markup_is_found_in_a_book_as_elements_and_as_text(tmp_path: Path) -> None:
    body = '<p>[hero] Wait.<break time="1s"/> Now <laugh/> come. &lt;break time="2s"/&gt; &lt;sigh&gt; So.</p>'
    said = read_epub(epub(tmp_path / "b.epub", {"a.xhtml": body})).manuscript.chapters[0].paragraphs
    assert [(p.character, p.text, p.pause_s) for p in said] == [
        ("hero", "Wait.", 1.0),
        ("hero", "Now <laugh> come.", 2.0),
        ("hero", "<sigh> So.", None),
    ]


def test_notes_their_marks_and_a_page_of_contents_are_not_read(tmp_path: Path) -> None:
    links = "".join(f'<p><a href="a.xhtml#{n}">Chapter {n}</a></p>' for n in range(4))
    body = (
        '<h1>One</h1><p>It was dark<a epub:type="noteref" href="#n">1</a>, at<sup><a href="#m">2</a></sup> the 1<sup>st'
        '</sup> hour.</p><aside epub:type="footnote" id="n"><p>At night.</p></aside>'
    )
    manuscript = read_epub(epub(tmp_path / "b.epub", {"toc.xhtml": links, "a.xhtml": body})).manuscript
    assert chapters(manuscript) == {"One": ["It was dark, at the 1st hour."]}
    assert {"note", "contents"} <= found(manuscript)


def test_a_cover_that_is_no_picture_is_left_out_of_a_book_and_told(tmp_path: Path) -> None:
    book = read_epub(epub(tmp_path / "b.epub", {"a.xhtml": "<p>Dark.</p>"}, cover=b"\xff\xd8\xff no picture"))
    assert book.cover is None
    assert found(book.manuscript) == {"cover"}


def test_fonts_that_are_only_obfuscated_are_no_protection(tmp_path: Path) -> None:
    obfuscated = {"META-INF/encryption.xml": ENCRYPTION.format("http://www.idpf.org/2008/embedding")}
    path = epub(tmp_path / "b.epub", {"a.xhtml": "<p>Dark.</p>"}, extra=obfuscated)
    assert chapters(read_epub(path).manuscript) == {"": ["Dark."]}


def test_a_protected_book_is_refused(tmp_path: Path) -> None:
    locked = {"META-INF/encryption.xml": ENCRYPTION.format("http://www.w3.org/2001/04/xmlenc#aes128-cbc")}
    content = epub(tmp_path / "b.epub", {"a.xhtml": "<p>Dark.</p>"}, extra=locked).read_bytes()
    assert "is protected against copying" in refusal(tmp_path, content, SourceKind.EPUB)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    content = epub(tmp_path / "b.epub", {"a.xhtml": "<p>" + "0" * 32 * 2**20 + "</p>"}).read_bytes()
    assert "unpacks to 32 MB, as no book does" in refusal(tmp_path, content, SourceKind.EPUB)


def test_a_zip_bomb_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    content = epub(tmp_path / "b.epub", {"a.xhtml": "<p>" + "0" * 32 * 2**20 + "</p>"}).read_bytes()
    true_size = struct.pack("<I", len(xhtml("<p></p>")) + 32 * 2**20)
    assert content.count(true_size) == 2
    assert "damaged" in refusal(tmp_path, content.replace(true_size, struct.pack("<I", 100)), SourceKind.EPUB)


def test_a_bomb_of_entities_is_refused(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "ha" * 10}">' for n in range(10))
    bomb = f"<?xml version='1.0'?><!DOCTYPE c [{entities}]><c>&e9;</c>"
    path = epub(tmp_path / "b.epub", {"a.xhtml": "<p>Dark.</p>"}, extra={"META-INF/container.xml": bomb})
    assert "container.xml" in refusal(tmp_path, path.read_bytes(), SourceKind.EPUB)


def test_what_is_no_book_is_refused(tmp_path: Path) -> None:
    whole = epub(tmp_path / "b.epub", {"a.xhtml": "<p>Dark.</p>"}).read_bytes()
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("notes.txt", "Dark.")
    damaged = whole.replace(zlib.crc32(xhtml("<p>Dark.</p>").encode()).to_bytes(4, "little"), b"\1\2\3\4")
    assert "is no EPUB, or a damaged one" in refusal(tmp_path, "It was dark.", SourceKind.EPUB)
    assert "is no EPUB, or a damaged one" in refusal(tmp_path, whole[:-200], SourceKind.EPUB)
    assert "is no EPUB, or a damaged one" in refusal(tmp_path, damaged, SourceKind.EPUB)
    assert "no META-INF/container.xml" in refusal(tmp_path, (tmp_path / "other.zip").read_bytes(), SourceKind.EPUB)


def test_a_book_whose_package_is_missing_or_broken_is_refused(tmp_path: Path) -> None:
    broken = epub(tmp_path / "b.epub", {"a.xhtml": "<p>Dark.</p>"}, extra={"OEBPS/content.opf": "<package"})
    assert "OEBPS/content.opf is no XML" in refusal(tmp_path, broken.read_bytes(), SourceKind.EPUB)
    elsewhere = CONTAINER.replace("OEBPS/content.opf", "../../etc/passwd")
    path = epub(tmp_path / "c.epub", {"a.xhtml": "<p>Dark.</p>"}, extra={"META-INF/container.xml": elsewhere})
    assert "it has no '../../etc/passwd'" in refusal(tmp_path, path.read_bytes(), SourceKind.EPUB)


# Sizes


def test_too_many_paragraphs_are_refused_with_their_number(tmp_path: Path) -> None:
    assert "holds 150000 paragraphs; at most 100000" in refusal(tmp_path, "a\n\n" * 150_000, SourceKind.TEXT)


def test_names_that_are_books_themselves_are_cut(tmp_path: Path) -> None:
    contents = f'<li><a href="a.xhtml">{"x" * 10_000}</a></li>'
    path = epub(tmp_path / "b.epub", {"a.xhtml": "<p>Dark.</p>"}, contents=contents, author="é" * 100_000)
    manuscript = read_epub(path).manuscript
    assert (manuscript.author, list(chapters(manuscript))) == ("é" * 300, ["x" * 300])
    text = f"---\ntitle: {'t' * 1000}\nlang: {'l' * 1000}\n---\n\nDark."
    manuscript = read(tmp_path, text, SourceKind.MARKDOWN)
    assert (manuscript.title, manuscript.language) == ("t" * 300, "l" * 35)


def test_a_reader_that_says_too_much_is_a_refusal_and_no_memory(tmp_path: Path) -> None:
    limits = Limits(answer_bytes=2**20)
    assert "reads as more than 1 MB; split it" in refusal(tmp_path, "It was dark.\n" * 2**18, SourceKind.TEXT, limits)


# Covers


@pytest.mark.parametrize(("name", "codec", "kind"), [("c.jpg", "mjpeg", "image/jpeg"), ("c.png", "png", "image/png")])
def test_a_cover_is_known_by_decoding_it(tmp_path: Path, name: str, codec: str, kind: str) -> None:
    assert check_cover(picture(tmp_path / name, codec).rename(tmp_path / "cover"), name="cover") == kind


def test_a_cover_that_is_none_is_refused_with_its_reason(tmp_path: Path) -> None:
    png = picture(tmp_path / "c.png", "png", side_px=256).read_bytes()
    huge = png[:16] + struct.pack(">II", 60_000, 60_000) + png[24:]
    for content, reason in [
        (b"GIF89a" + bytes(100), "is no picture: neither JPEG nor PNG"),
        (b"", "is no picture"),
        (png[: len(png) // 2], "is damaged or cut off"),
        (huge, "has 60000 × 60000 pixels"),
        (bytes(2 * 2**20), "is 2.0 MB; a cover may have 1.0 MB"),
    ]:
        (tmp_path / "cover").write_bytes(content)
        with pytest.raises(ManuscriptUnfit, match=reason) as refused:
            check_cover(tmp_path / "cover", name="cover.png", limits=Limits(max_cover_bytes=2**20))
        assert refused.value.param == "cover"


# Bounds


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A file that never says anything."""
    os.mkfifo(tmp_path / "endless.png")
    return tmp_path / "endless.png"


def readers() -> list[psutil.Process]:
    """This process's children that read; a test before may have left servers running."""
    return [child for child in psutil.Process().children() if "covers.py" in " ".join(child.cmdline())]


def test_a_reader_that_never_ends_is_killed(endless: Path) -> None:
    with pytest.raises(ManuscriptUnfit, match=r"took longer than 0\.2 s"):
        check_cover(endless, name="cover.png", limits=Limits(wall_s=0.2))
    assert not readers()


@pytest.mark.anyio
async def test_a_reader_that_crashes_is_a_refusal_with_the_signal(endless: Path) -> None:
    checking = asyncio.create_task(check_cover_async(endless, name="cover.png"))
    with await asyncio.to_thread(endless.open, "wb"):  # returns when the reader has opened its end
        for reader in readers():
            reader.send_signal(signal.SIGSEGV)
        with pytest.raises(ManuscriptUnfit, match=r"made its reader crash \(SIGSEGV\)"):
            await checking


@pytest.mark.anyio
async def test_a_cancelled_reading_leaves_no_process(endless: Path) -> None:
    checking = asyncio.create_task(check_cover_async(endless, name="cover.png"))
    with await asyncio.to_thread(endless.open, "wb"):  # returns when the reader has opened its end
        checking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checking
    assert not readers()


@pytest.mark.anyio
async def test_coroutines_read_too(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("It was dark.")
    book = await read_manuscript_async(tmp_path / "a.txt", SourceKind.TEXT, name="lantern")
    assert chapters(book.manuscript) == {"": ["It was dark."]}
