"""Unpacks one untrusted EPUB; run by `book_reader` in a sandbox, never imported into a server.

    {"source": …, "target": …, "max_unpacked_bytes": …, "max_cover_bytes": …} -> {"author": …, "contents": …, …}

It refuses what would hurt (a zip bomb), what is locked or copy-protected, and what is no book or damaged; it writes a
copy whose texts are whole and whose pictures, fonts and sounds are empty. In it every document has a name of its own,
since pandoc tells but the last part of it. What a reader would not see goes from its documents: hidden elements,
glosses of ruby, drawings and lists of pages; where the contents name places within a document that has no heading, each
gets one. It answers with `author`, `contents`, the documents' entries in the table of
contents, `dropped`, the kinds of what is left out, and `cover`, in base64 and unseen.
"""

from __future__ import annotations

import base64
import errno
import html.entities
import posixpath
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from app.platform.sandbox_child import Fault, main

MAX_ENTRIES = 10_000
MAX_RATIO = 100
MAX_LABEL_CHARS = 300
BOMB_BYTES = 16 * 2**20  # unpacked, below which no book is a bomb


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


_DAMAGED = "is no EPUB, or a damaged one; export or download it again"
_NAMES = {
    "container": "{urn:oasis:names:tc:opendocument:xmlns:container}",
    "dc": "{http://purl.org/dc/elements/1.1/}",
    "opf": "{http://www.idpf.org/2007/opf}",
    "ncx": "{http://www.daisy.org/z3986/2005/ncx/}",
    "html": "{http://www.w3.org/1999/xhtml}",
}
_EPUB_TYPE = "{http://www.idpf.org/2007/ops}type"
_TEXTUAL = (".opf", ".ncx", ".xhtml", ".html", ".htm", ".xml")
_TOUCHED = re.compile(rb"hidden|display\s*:\s*none|<r[tp]\b|<svg|page-list|landmarks", re.I)
_HEADING = re.compile(rb"<h([1-6])[\s>]", re.I)
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
_UNREAD = frozenset({"rt", "rp", "rtc", "svg", "script", "style", "template"})
_LISTS = frozenset({"page-list", "landmarks", "loi", "lot"})
_BLOCKS = frozenset(_listed("p div section article blockquote ul ol dl table pre figure li aside header hr"))
_XHTML = "application/xhtml+xml"
_DOCUMENTS = (_XHTML, "text/html", "application/x-dtbook+xml", "text/x-oeb1-document", "application/xml", "text/xml")
_FONT_OBFUSCATION = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


def unpack(request: dict[str, Any]) -> dict[str, Any]:
    """Write the copy; returns the book's contents and cover. Raises Fault."""
    source = Path(request["source"])
    if source.stat().st_size == 0:
        raise Fault("is empty (0 bytes); upload it again")
    try:
        with zipfile.ZipFile(source) as book:
            check_zip(book, source.stat().st_size, request)
            package = _Package(book)
            contents, dropped = package.contents()
            cover = package.cover(request["max_cover_bytes"])
            dropped += package.asides()
            dropped += package.without_missing()
            write_slim(book, Path(request["target"]), package)
            return {"author": package.author(), "contents": contents, "dropped": dropped, "cover": cover}
    except OSError as error:
        if error.errno != errno.EINVAL:  # a damaged directory leads to before the beginning; all else is the disk's
            raise
        raise Fault(_DAMAGED) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError):
        raise Fault(_DAMAGED) from None


def check_zip(book: zipfile.ZipFile, size_bytes: int, request: dict[str, Any]) -> None:
    """Refuse what would hurt, cannot be opened, or is no book, before anything of it is unpacked."""
    entries = book.infolist()
    if len(entries) > MAX_ENTRIES:
        raise Fault(f"holds {len(entries)} files; no book has more than {MAX_ENTRIES}: export it again")
    unpacked = sum(entry.file_size for entry in entries)
    most = request["max_unpacked_bytes"]
    if unpacked > most or (unpacked > BOMB_BYTES and unpacked > MAX_RATIO * size_bytes):
        raise Fault(
            f"is {size_bytes / 2**20:.1f} MB and unpacks to {unpacked / 2**20:.0f} MB, as no book does (at most "
            f"{most // 2**20} MB, and {MAX_RATIO} times its size); export it again"
        )
    if any(entry.flag_bits & 1 for entry in entries):
        raise Fault("is locked with a password; hand in a copy without one")
    names = set(book.namelist())
    if "META-INF/container.xml" not in names:
        raise Fault("is no EPUB: it has no META-INF/container.xml; export it again")
    if "META-INF/encryption.xml" in names:
        algorithms = re.findall(rb"Algorithm\s*=\s*[\"']([^\"']*)", _limited(book, "META-INF/encryption.xml", 2**20))
        if locked := [found for found in algorithms if found.decode("utf-8", "replace") not in _FONT_OBFUSCATION]:
            said = locked[0].decode("utf-8", "replace")[:80]
            raise Fault(f"is protected against copying (META-INF/encryption.xml: {said}); hand in a copy that is not")


def write_slim(book: zipfile.ZipFile, target: Path, package: _Package) -> None:
    """A copy with pictures, fonts and sounds empty; every text is unpacked and held against its checksum."""
    renamed, name_and_package = package.renamed, package.rewritten()
    taken = {*renamed.values(), name_and_package[0]}
    level = package.heading_level()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as slim:
        slim.writestr(*name_and_package)
        for entry in {entry.filename: entry for entry in book.infolist()}.values():
            document = entry.filename in renamed
            if not document and entry.filename in taken:
                continue
            name = renamed[entry.filename] if document else entry.filename
            textual = document or name.lower().endswith(_TEXTUAL) or name == "mimetype"
            content = book.read(entry) if textual else b""
            if document:
                content = prepared(content, package.anchors.get(entry.filename, {}), level=level)
            slim.writestr(name, content)


def _limited(book: zipfile.ZipFile, name: str, most: int) -> bytes:
    with book.open(name) as file:
        return file.read(most)


class _Package:
    """A book's package document: what its files are, and where its contents and its cover lie."""

    def __init__(self, book: zipfile.ZipFile) -> None:
        self._book = book
        container = self._parsed("META-INF/container.xml")
        rootfile = container.find(f".//{_NAMES['container']}rootfile")
        if rootfile is None:
            raise Fault("is no EPUB: META-INF/container.xml names no package; export it again")
        self._name = unquote(rootfile.get("full-path", ""))
        self._folder = posixpath.dirname(self._name)
        self._package = self._parsed(self._name)
        self._items = list(self._package.iter(f"{_NAMES['opf']}item"))
        self.renamed = self._new_names()
        self.anchors: dict[str, dict[str, str]] = {}
        """Documents to the ids in them at which chapters begin, and those chapters' names; known with the contents."""

    def _parsed(self, name: str) -> ElementTree.Element:
        parser = ElementTree.XMLParser()
        parser.entity.update(html.entities.entitydefs)  # what the document type that it names would define
        try:
            return ElementTree.fromstring(self._book.read(name), parser)
        except KeyError:
            raise Fault(f"is damaged: it has no {name[:80]!r}; export it again") from None
        except ElementTree.ParseError as error:
            line, column = error.position
            place = f"line {line}, column {column + 1}"
            raise Fault(f"is damaged: {name[:80]} is no XML from {place} on; export it again") from None

    def _new_names(self) -> dict[str, str]:
        """Documents, by their paths in the book, to names of which no two are the same."""
        there = {*self._book.namelist()}
        paths = dict.fromkeys(self._path(item) for item in self._items if item.get("media-type") in _DOCUMENTS)
        return {
            path: posixpath.join(posixpath.dirname(path), f"{number}.xhtml")
            for number, path in enumerate(paths)
            if path in there
        }

    def rewritten(self) -> tuple[str, bytes]:
        """The package document of the copy, by its name: with the new names, and whatever is text as XHTML."""
        for item in self._items:
            if name := self.renamed.get(self._path(item)):
                folder = posixpath.dirname(item.get("href", ""))
                item.set("href", posixpath.join(folder, posixpath.basename(name)))
                item.set("media-type", _XHTML)
        return self._name, ElementTree.tostring(self._package, encoding="utf-8", xml_declaration=True)

    def heading_level(self) -> int:
        """The commonest level of headings in the book; 1 where there are none."""
        levels = Counter(level for path in self.renamed for level in heading_levels(self._book.read(path)))
        return levels.most_common(1)[0][0] if levels else 1

    def without_missing(self) -> list[str]:
        """Take out of the reading order what is not there: `missing: NAME` for each."""
        by_id = {item.get("id"): item for item in self._items}
        there, missing = {*self._book.namelist()}, list[str]()
        for spine in self._package.iter(f"{_NAMES['opf']}spine"):
            for reference in spine.findall(f"{_NAMES['opf']}itemref"):
                item = by_id.get(reference.get("idref"))
                if item is not None and self._path(item) in there:
                    continue
                spine.remove(reference)
                name = self._path(item) if item is not None else reference.get("idref", "")
                missing.append(f"missing: {name[:MAX_LABEL_CHARS]}")
        for manifest in self._package.iter(f"{_NAMES['opf']}manifest"):
            for item in manifest.findall(f"{_NAMES['opf']}item"):
                if item.get("media-type") in _DOCUMENTS and self._path(item) not in there:
                    manifest.remove(item)
        return missing

    def asides(self) -> list[str]:
        """`aside` for each document with text that pandoc passes over: one outside of the reading order."""
        by_id = {item.get("id"): item for item in self._items}
        found: list[str] = []
        for reference in self._package.iter(f"{_NAMES['opf']}itemref"):
            item = by_id.get(reference.get("idref"))
            if item is None or reference.get("linear") != "no" or "nav" in item.get("properties", "").split():
                continue
            path = self._path(item)
            if path in self.renamed and self._has_text(path):
                found.append("aside")
        return found

    def _has_text(self, path: str) -> bool:
        try:
            body = self._parsed(path).find(f"{_NAMES['html']}body")
        except Fault:
            return True
        return body is None or any(map(str.isalnum, "".join(body.itertext())))

    def _path(self, item: ElementTree.Element) -> str:
        return posixpath.normpath(posixpath.join(self._folder, unquote(item.get("href", ""))))

    def author(self) -> str:
        """All of them, in their order, which pandoc turns around."""
        creators = (" ".join("".join(c.itertext()).split()) for c in self._package.iter(f"{_NAMES['dc']}creator"))
        return ", ".join(filter(None, creators))[:MAX_LABEL_CHARS]

    def contents(self) -> tuple[dict[str, str], list[str]]:
        """Documents, by file name as pandoc tells them, to their first entry in the tables of contents.

        And `broken_contents` for each table that cannot be read: a book can be, without.
        """
        entries: dict[str, str] = {}
        broken: list[str] = []
        for item in self._items:
            is_nav = "nav" in item.get("properties", "").split()
            if not is_nav and item.get("media-type") != "application/x-dtbncx+xml":
                continue
            try:
                root = self._parsed(self._path(item))
            except Fault:
                broken.append("broken_contents")
                continue
            folder = posixpath.dirname(self._path(item))
            for href, label in _nav_entries(root) if is_nav else _ncx_entries(root):
                path = posixpath.normpath(posixpath.join(folder, unquote(href.partition("#")[0])))
                if path in self.renamed and label.strip():
                    if anchor := unquote(href.partition("#")[2]):
                        titles = self.anchors.setdefault(path, {})
                        titles.setdefault(anchor, " ".join(label.split())[:MAX_LABEL_CHARS])
                    name = posixpath.basename(self.renamed[path])
                    entries.setdefault(name, " ".join(label.split())[:MAX_LABEL_CHARS])
        return entries, broken

    def cover(self, most: int) -> str | None:
        """The cover's bytes in base64, unseen; None if there is none of a sensible size."""
        by_id = {item.get("id"): item for item in self._items}
        named = [
            meta.get("content") for meta in self._package.iter(f"{_NAMES['opf']}meta") if meta.get("name") == "cover"
        ]
        found = next((i for i in self._items if "cover-image" in i.get("properties", "").split()), None)
        if found is None:
            found = next((by_id[name] for name in named if name in by_id), None)
        if found is None or not found.get("media-type", "").startswith("image/"):
            return None
        try:
            content = _limited(self._book, self._path(found), most + 1)
        except (KeyError, zipfile.BadZipFile):
            return None
        return base64.b64encode(content).decode("ascii") if 0 < len(content) <= most else None


def _nav_entries(root: ElementTree.Element) -> Iterator[tuple[str, str]]:
    for nav in root.iter(f"{_NAMES['html']}nav"):
        if nav.get(_EPUB_TYPE) in ("toc", None):
            for link in nav.iter(f"{_NAMES['html']}a"):
                yield link.get("href", ""), "".join(link.itertext())


def _ncx_entries(root: ElementTree.Element) -> Iterator[tuple[str, str]]:
    for point in root.iter(f"{_NAMES['ncx']}navPoint"):
        content = point.find(f"{_NAMES['ncx']}content")
        label = point.find(f"{_NAMES['ncx']}navLabel/{_NAMES['ncx']}text")
        if content is not None and label is not None:
            yield content.get("src", ""), label.text or ""


# One document.


def heading_levels(content: bytes) -> list[int]:
    """The levels of a document's headings, in their order."""
    return [int(level) for level in _HEADING.findall(content)]


def prepared(content: bytes, anchors: Mapping[str, str], *, level: int) -> bytes:
    """The document as it is to be read; `anchors` maps ids in it to the chapters that begin there."""
    named = anchors if len(anchors) > 1 and not heading_levels(content) else {}
    if not named and not _TOUCHED.search(content):
        return content
    parser = ElementTree.XMLParser()
    parser.entity.update(html.entities.entitydefs)
    try:
        root = ElementTree.fromstring(content, parser)
    except (ElementTree.ParseError, ValueError):
        return content
    for parent, child in [*_unread(root)]:
        _remove(parent, child)
    for anchor, label in named.items():
        _insert_heading(root, anchor, label, level)
    ElementTree.register_namespace("", _NAMES["html"].strip("{}"))
    return ElementTree.tostring(root, encoding="utf-8", method="html")


def _unread(element: ElementTree.Element) -> Iterator[tuple[ElementTree.Element, ElementTree.Element]]:
    """Each element that is not to be read, with its parent."""
    for child in element:
        if _is_unread(child):
            yield element, child
        else:
            yield from _unread(child)


def _is_unread(element: ElementTree.Element) -> bool:
    if not isinstance(element.tag, str):
        return False
    name = element.tag.rpartition("}")[2].lower()
    listed = name == "nav" and not _LISTS.isdisjoint(element.get(_EPUB_TYPE, "").split())
    hidden = element.get("hidden") is not None or _HIDDEN_STYLE.search(element.get("style", "")) is not None
    return name in _UNREAD or listed or (hidden and name != "body")


def _remove(parent: ElementTree.Element, child: ElementTree.Element) -> None:
    """Take an element away, and leave the text behind it."""
    place = [*parent].index(child)
    if child.tail and place:
        parent[place - 1].tail = (parent[place - 1].tail or "") + child.tail
    elif child.tail:
        parent.text = (parent.text or "") + child.tail
    parent.remove(child)


def _insert_heading(root: ElementTree.Element, anchor: str, label: str, level: int) -> None:
    """Put a heading before the block that an id is of, or lies in."""
    parents = {child: parent for parent in root.iter() for child in parent}
    target = next((it for it in root.iter() if anchor in (it.get("id"), it.get("name"))), None)
    while target is not None and target.tag.rpartition("}")[2] not in _BLOCKS:
        parent = parents.get(target)
        if parent is None or parent.tag == f"{_NAMES['html']}body":
            break
        target = parent
    if target is None or target not in parents:
        return
    heading = ElementTree.Element(f"{_NAMES['html']}h{level}")
    heading.text = label
    parent = parents[target]
    parent.insert([*parent].index(target), heading)


if __name__ == "__main__":
    main(unpack, out_of_memory="needs more memory to be unpacked than any book does; export it again")
