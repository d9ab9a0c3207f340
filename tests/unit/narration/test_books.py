"""EPUBs on their way to manuscripts, through the real pandoc: chapters, contents, covers, and hostile archives."""

from __future__ import annotations

import asyncio
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from app.narration.book_reader import read_manuscript
from app.narration.models import SourceKind
from tests.support.books import CONTAINER, ENCRYPTION, chapters, epub, found, picture, read_epub, refusal, xhtml


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
    story = Path(__file__).parents[2] / "books" / "the-bell-on-owl-island.epub"
    book = read_epub(story)
    text = asyncio.run(read_manuscript(story.with_suffix(".md"), SourceKind.MARKDOWN, name="story"))
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


def test_three_places_within_one_document_are_three_chapters(tmp_path: Path) -> None:
    body = "<p>Before.</p><a id='c1'></a><p>First.</p><div id='c2'><p>Second.</p></div><p id='c3'>Third.</p>"
    contents = "".join(
        f'<li><a href="a.xhtml#c{n}">{name}</a></li>' for n, name in enumerate(("One", "Two", "Three"), 1)
    )
    book = read_epub(epub(tmp_path / "b.epub", {"a.xhtml": body}, contents=contents))
    assert chapters(book.manuscript) == {"": ["Before."], "One": ["First."], "Two": ["Second."], "Three": ["Third."]}


def test_what_a_reader_would_not_see_is_not_read(tmp_path: Path) -> None:
    body = (
        "<p>A <ruby>word<rt>gloss</rt></ruby>.</p><p hidden='hidden'>No</p><p style='display: none'>No</p>"
        "<svg xmlns='http://www.w3.org/2000/svg'><title>No</title></svg>"
        "<nav epub:type='page-list' hidden='hidden'><ol><li>No</li></ol></nav><p>H<sub>2</sub>O, x<sup>2</sup>.</p>"
    )
    book = read_epub(epub(tmp_path / "b.epub", {"a.xhtml": body}))
    assert chapters(book.manuscript) == {"": ["A word.", "H2O, x²."]}


def test_a_document_that_is_missing_costs_itself_alone_and_is_named(tmp_path: Path) -> None:
    whole = epub(tmp_path / "b.epub", {"a.xhtml": "<p>Here.</p>", "gone.xhtml": "<p>x</p>"})
    with zipfile.ZipFile(whole) as book, zipfile.ZipFile(tmp_path / "c.epub", "w") as part:
        for name in book.namelist():
            if "gone" not in name:
                content = book.read(name).replace(b"</spine>", b'<itemref idref="nobody"/></spine>')
                part.writestr(name, content)
    manuscript = read_epub(tmp_path / "c.epub").manuscript
    assert chapters(manuscript) == {"": ["Here."]}
    assert [found.code for found in manuscript.findings] == ["missing", "missing"]
    assert "gone.xhtml" in manuscript.findings[0].message
