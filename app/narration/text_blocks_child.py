"""Parses one untrusted text into blocks; run by `book_reader` in a sandbox, never imported into a server.

    {"source": …, "kind": "text" | "markdown" | "ssml" | "epub" | "html" | "docx", …} -> {"blocks": …, "title": …, …}

It answers with the text's blocks with all formatting but lines gone (`app.narration.manuscript.Block` says what they
are), its title, author and language. Markdown and books go through pandoc, which sees no file but the one it is given
(`--sandbox`); a book has been through `epub_child.py` before.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, field
from itertools import dropwhile, groupby
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from app.narration.markdown_source import prepared
from app.narration.plain_blocks import Block, decoded, ssml_blocks, text_blocks
from app.platform.sandbox_child import Fault, main

MAX_DEPTH = 200  # of blocks in blocks
MAX_BLOCKS = 100_000  # a long novel has 10,000
MAX_DOCX_ENTRIES, MAX_DOCX_XML_BYTES = 10_000, 64 * 2**20  # a long novel has 20 MB of XML
MAX_TITLE_CHARS = 300
MAX_LANGUAGE_CHARS = 35  # RFC 5646, section 4.4.1

_MARKDOWN = "commonmark+footnotes+pipe_tables+strikeout+definition_lists"
_PANDOC_HEAP_EXHAUSTED = 251


def read(request: dict[str, Any]) -> dict[str, Any]:
    """The text's blocks and what else is known of it."""
    source, kind = Path(request["source"]), request["kind"]
    if source.stat().st_size == 0:
        raise Fault("is empty (0 bytes); hand in a text")
    if kind == "epub":
        answer = walked(pandoc(source, "epub+raw_html", request), request["code"])
        answer["blocks"] = [*dropwhile(lambda block: block[0] != "document", answer["blocks"])]  # the cover's page
    elif kind == "docx":
        check_docx(source)
        answer = walked(pandoc(source, "docx", request), request["code"])
    else:
        if source.stat().st_size > 2 * request["max_text_bytes"]:
            raise Fault(too_long(source.stat().st_size, request["max_text_bytes"]))
        text, thoughts = without_thoughts(decoded(source.read_bytes()))
        if kind == "markdown":
            answer = read_markdown(text, request)
        elif kind == "ssml":
            answer = {"blocks": ssml_blocks(text)}
        else:
            answer = read_html(text, request) if kind == "html" else {"blocks": list(text_blocks(text))}
        answer["blocks"] += [("dropped", "thought", 0)] * thoughts
    if len(answer["blocks"]) > MAX_BLOCKS:
        raise Fault(f"holds {len(answer['blocks'])} paragraphs; at most {MAX_BLOCKS} are accepted: split it")
    size = sum(
        len(text.encode("utf-8", "replace")) for kind, text, _ in answer["blocks"] if kind in ("heading", "text")
    )
    if size > request["max_text_bytes"]:
        raise Fault(too_long(size, request["max_text_bytes"]))
    return answer


def without_thoughts(text: str) -> tuple[str, int]:
    """A text without what a language model thought, and how often it did."""
    if not any(sign in text for sign in ("</", "[/", "◁", "<|")):
        return text, 0
    from app.speech.text import thoughts

    return thoughts.without_thoughts(text)


def check_docx(source: Path) -> None:
    """Refuse what is no document of Word's, or would hurt, before pandoc unpacks it."""
    try:
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError):
        raise Fault("is no DOCX, or a damaged one; save it again") from None
    if "word/document.xml" not in {entry.filename for entry in entries}:
        raise Fault("is no DOCX: it has no word/document.xml; save it again")
    texts = sum(entry.file_size for entry in entries if entry.filename.endswith((".xml", ".rels")))
    if texts > MAX_DOCX_XML_BYTES or len(entries) > MAX_DOCX_ENTRIES:
        raise Fault(f"unpacks to {texts / 2**20:.0f} MB of XML; at most {MAX_DOCX_XML_BYTES >> 20} MB are accepted")


_HIDDEN_HTML = re.compile(
    r"<(?P<name>[a-zA-Z][\w-]*)(?=[\s>])[^>]*(?:\shidden(?=[\s>=])|display\s*:\s*none|aria-hidden\s*=\s*[\"']?true)"
    r"[^>]*(?<!/)>.*?</(?P=name)\s*>|<(?P<aside>rt|rp|nav|svg|script|style|template)(?=[\s>]).*?</(?P=aside)\s*>",
    re.S | re.I,
)

_LISTED = re.compile(r"<pre>(?=\s*<code\b)", re.I)


def read_html(text: str, request: dict[str, Any]) -> dict[str, Any]:
    """A page: its title, and its text without what is hidden, navigates or glosses."""
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "text.html"
        source.write_text(_LISTED.sub('<pre class="code">', _HIDDEN_HTML.sub("", text)), "utf-8")
        return walked(pandoc(source, "html", request), request["code"])


def too_long(size: int, most: int) -> str:
    return f"holds {size / 2**20:.1f} MB of text; at most {most / 2**20:.1f} MB are accepted: split it"


# Pandoc.


def read_markdown(text: str, request: dict[str, Any]) -> dict[str, Any]:
    text, marks = prepared(text)
    form = _MARKDOWN + ("+yaml_metadata_block" if re.match(r"---\n\w[\w -]*:.*\n", text) else "")
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "text.md"
        source.write_text(text, "utf-8")
        answer = walked(pandoc(source, form, request), request["code"])
    answer["blocks"] += [("dropped", "note", 0)] * bool(marks)
    return answer


def pandoc(source: Path, form: str, request: dict[str, Any]) -> dict[str, Any]:
    """Its syntax tree, in which text is strings already."""
    heap = ["+RTS", f"-M{request['heap_bytes'] // 2**20}m", "-RTS"]
    command = [request["pandoc"], *heap, "--sandbox", "-f", form, "-t", "json", str(source)]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if run.returncode == _PANDOC_HEAP_EXHAUSTED or run.returncode < 0:
        raise Fault("needs more memory or time to be read than any text does; hand it in as plain text")
    if run.returncode:
        said = " ".join(run.stderr.decode("utf-8", "replace").split())[-200:]
        raise Fault(f"cannot be read: {said or 'pandoc gave up'}; export it again")
    return json.loads(run.stdout, object_hook=_inline)


def _inline(node: dict[str, Any]) -> Any:
    """The commonest inlines as strings, from the leaves up: a tree of a long book would not fit into memory else."""
    match node.get("t"):
        case "Str":
            return node["c"]
        case "Space":
            return " "
        case "SoftBreak" | "LineBreak":
            return "\n"
        case "Emph" | "Strong" | "Underline" | "SmallCaps" | "Strikeout" | "Subscript" if all(
            isinstance(child, str) for child in node["c"]
        ):
            return "".join(node["c"])
    return node


def walked(tree: dict[str, Any], code: str) -> dict[str, Any]:
    walk = _Walk(code)
    walk.blocks(tree["blocks"])
    blocks = _without_contents_pages(walk.found)
    meta = tree.get("meta", {})
    return {
        "blocks": blocks,
        "title": _meta(meta.get("title"))[:MAX_TITLE_CHARS],
        "author": _meta(meta.get("author"))[:MAX_TITLE_CHARS],
        "language": _meta(meta.get("lang") or meta.get("language"))[:MAX_LANGUAGE_CHARS],
    }


def _is_link(inlines: list[Any]) -> bool:
    """Whether it is one link, as the entries of a table of contents are."""
    kept = [child for child in inlines if not (isinstance(child, str) and child.isspace())]
    return len(kept) == 1 and isinstance(kept[0], dict) and kept[0]["t"] == "Link"


def _without_contents_pages(found: list[Block]) -> list[Block]:
    """Without the documents of a book that hold three links or more and hardly anything else."""
    kept: list[Block] = []
    for is_document, group in groupby(found, key=lambda block: block[0] == "document"):
        blocks = list(group)
        links = sum(kind == "link" for kind, _, _ in blocks)
        others = sum(kind == "text" for kind, _, _ in blocks)
        if kept and not is_document and links >= 3 and links >= 4 * others:
            blocks = [("dropped", "contents", 0)]
        kept += (("text" if kind == "link" else kind, text, level) for kind, text, level in blocks)
    return kept


def _meta(value: Any) -> str:
    if isinstance(value, dict):
        parts = [_meta(part) for part in value["c"]] if isinstance(value.get("c"), list) else [_meta(value.get("c"))]
        return (", " if value.get("t") == "MetaList" else "").join(part for part in parts if part).strip()
    return value if isinstance(value, str) else ""


_SKIPPED = {
    "footnote": "note", "footnotes": "note", "endnote": "note", "endnotes": "note", "rearnote": "note",
    "rearnotes": "note", "toc": "contents", "landmarks": "contents", "page-list": "contents", "loi": "contents",
    "lot": "contents", "pagebreak": "", "page-number": "", "pagenum": "",
}  # fmt: skip
_POWERS = {"2": "²", "3": "³"}
_NOTE_MARK = re.compile(r"\s*[\[(]?(?:\d{1,4}|[*†‡§]{1,3})[\])]?\s*")
_HTML = re.compile(
    "a|abbr|acronym|address|area|article|aside|audio|b|base|bdi|bdo|big|blockquote|body|br|button|canvas|caption|"
    "center|cite|code|col|colgroup|data|dd|del|details|dfn|dialog|div|dl|dt|em|embed|fieldset|figcaption|figure|font|"
    "footer|form|frame|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|kbd|label|legend|li|link|main|map|mark|meta|"
    "meter|nav|noscript|object|ol|optgroup|option|output|p|param|picture|pre|progress|q|rp|rt|ruby|s|samp|script|"
    "section|select|slot|small|source|span|strike|strong|style|sub|summary|sup|svg|table|tbody|td|template|textarea|"
    "tfoot|th|thead|time|title|tr|track|tt|u|ul|var|video|wbr"
)
_TAG = re.compile(r"<(/?)([A-Za-z][\w-]*)([^<>]*)>")
_UNHEARD = re.compile(r"<(script|style|svg)\b", re.I)
_UNHEARD_END = {name: re.compile(rf"</{name}\s*>", re.I) for name in ("script", "style", "svg")}


def spoken_html(html: str) -> str:
    """What is to be heard of raw HTML: its text, pauses and speech tags, which have no attributes.

    In time that grows with the text: what has no end from one place on has none from a later one, and is sought once.
    """
    heard: list[str] = []
    endless: set[str] = set()

    def end_of(what: str, pattern: re.Pattern[str], start: int) -> int:
        if what in endless:
            return 0
        if match := pattern.search(html, start):
            return match.end()
        endless.add(what)
        return 0

    at = 0
    while (start := html.find("<", at)) >= 0:
        heard.append(html[at:start])
        at = 0
        if html.startswith("<!--", start):
            at = end_of("comment", _COMMENT_END, start + 4)
        elif block := _UNHEARD.match(html, start):
            at = end_of(block[1].lower(), _UNHEARD_END[block[1].lower()], block.end())
        if not at and html.startswith(("<!", "<?"), start):
            at = end_of("declaration", _DECLARATION_END, start + 2)
        if not at and (tag := _TAG.match(html, start)):
            heard.append(_spoken_tag(tag))
            at = tag.end()
        if not at:
            heard.append("<")
            at = start + 1
    return "".join((*heard, html[at:]))


_COMMENT_END = re.compile("-->")
_DECLARATION_END = re.compile(">")


def _spoken_tag(tag: re.Match[str]) -> str:
    closing, name, attributes = tag[1], tag[2].lower(), tag[3]
    if closing or _HTML.fullmatch(name):
        return "\n" if name in ("p", "br", "div", "li") else ""
    if name == "break":
        return tag[0]
    return "" if attributes.strip(" /") else f"<{tag[2]}>"


@dataclass
class _Walk:
    """Walks pandoc's blocks and keeps what a reader aloud would say."""

    code: str = "skip"
    found: list[Block] = field(default_factory=list)
    depth: int = 0

    def drop(self, what: str) -> None:
        if what:
            self.found.append(("dropped", what, 0))

    def text(self, inlines: list[Any], prefix: str = "") -> None:
        text = self.inlines(inlines).strip()
        if text:
            self.found.append(("link" if _is_link(inlines) else "text", prefix + text, 0))

    def blocks(self, blocks: list[Any], prefix: str = "") -> None:
        """`prefix`, a list's number, goes before the first paragraph."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Fault(f"nests its blocks more than {MAX_DEPTH} deep, as no text does; hand it in as plain text")
        for block in blocks:
            before = len(self.found)
            self.block(block, prefix)
            prefix = "" if len(self.found) > before else prefix
        self.depth -= 1

    def block(self, block: dict[str, Any], prefix: str) -> None:
        visit = getattr(self, f"block_{block['t'].lower()}", None)
        if visit:
            visit(block.get("c"), prefix)

    def block_para(self, content: list[Any], prefix: str) -> None:
        if not self._document(content):
            self.text(content, prefix)

    block_plain = block_para

    def block_header(self, content: list[Any], _: str) -> None:
        if title := self.inlines(content[2]).strip():
            self.found.append(("heading", title, content[0]))

    def block_lineblock(self, content: list[Any], _: str) -> None:
        self.found.append(("text", "\n".join(self.inlines(line) for line in content), 0))

    def block_blockquote(self, content: list[Any], prefix: str) -> None:
        self.blocks(content, prefix)

    def block_div(self, content: list[Any], prefix: str) -> None:
        skipped = next((_SKIPPED[name] for name in content[0][1] if name in _SKIPPED), None)
        if skipped is None:
            self.blocks(content[1], prefix)
        else:
            self.drop(skipped)

    def block_figure(self, content: list[Any], prefix: str) -> None:
        self.blocks(content[2], prefix)  # without its caption, which speaks of a picture

    def block_bulletlist(self, content: list[Any], _: str) -> None:
        for item in content:
            self.blocks(item)

    def block_orderedlist(self, content: list[Any], _: str) -> None:
        for number, item in enumerate(content[1], start=content[0][0]):
            self.blocks(item, f"{number}. ")

    def block_definitionlist(self, content: list[Any], _: str) -> None:
        for term, definitions in content:
            self.text(term)
            for definition in definitions:
                self.blocks(definition)

    def block_codeblock(self, content: list[Any], _: str) -> None:
        """Indented prose looks like code to Markdown; what names its language is code."""
        if content[0][1] and self.code == "skip":
            self.drop("code")
        elif content[0][1] and self.code == "announce":
            self.found.append(("text", "Code block.", 0))
        else:
            self.found += (("text", part.strip(), 0) for part in re.split(r"\n\s*\n", content[1]) if part.strip())

    def block_rawblock(self, content: list[Any], prefix: str) -> None:
        text = spoken_html(content[1]).strip() if content[0].startswith("html") else ""
        if text:
            self.found.append(("text", prefix + text, 0))

    def block_table(self, content: list[Any], _: str) -> None:
        """A table of one column only lays text out."""
        if len(content[2]) != 1:
            self.drop("table")
            return
        rows = [*content[3][1], *(row for body in content[4] for part in body[2:] for row in part), *content[5][1]]
        for _attributes, cells in rows:
            for cell in cells:
                self.blocks(cell[4])

    def _document(self, inlines: list[Any]) -> bool:
        """Pandoc says where a book's next file begins with an empty span that has its name."""
        if len(inlines) == 1 and isinstance(inlines[0], dict) and inlines[0]["t"] == "Span":
            (name, _, _), inside = inlines[0]["c"]
            if name and not inside:
                self.found.append(("document", unquote(name), 0))
                return True
        return False

    def inlines(self, inlines: list[Any]) -> str:
        return "".join(child if isinstance(child, str) else self.inline(child) for child in inlines)

    def inline(self, node: dict[str, Any]) -> str:
        content = node.get("c")
        if visit := getattr(self, f"inline_{node['t'].lower()}", None):
            return visit(content)
        return self.inlines(content) if isinstance(content, list) else ""

    def inline_quoted(self, content: list[Any]) -> str:
        opening, closing = "‘’" if content[0]["t"] == "SingleQuote" else "“”"
        return opening + self.inlines(content[1]) + closing

    def inline_code(self, content: list[Any]) -> str:
        return content[1]

    inline_math = inline_code

    def inline_rawinline(self, content: list[Any]) -> str:
        return spoken_html(content[1]) if content[0].startswith("html") else ""

    def inline_link(self, content: list[Any]) -> str:
        text = self.inlines(content[1])
        if "noteref" in content[0][1] or (_NOTE_MARK.fullmatch(text) and "#" in content[2][0]):
            self.drop("note")
            return ""
        return text

    def inline_span(self, content: list[Any]) -> str:
        skipped = next((_SKIPPED[name] for name in content[0][1] if name in _SKIPPED), None)
        self.drop(skipped or "")
        return self.inlines(content[1]) if skipped is None else ""

    def inline_superscript(self, content: list[Any]) -> str:
        """A power, which pandoc's text would run into what it is of; a note's mark is a link."""
        text = self.inlines(content)
        return _POWERS.get(text, text)

    def inline_cite(self, content: list[Any]) -> str:
        return self.inlines(content[1])

    def inline_image(self, _: list[Any]) -> str:
        self.drop("picture")
        return ""

    def inline_note(self, _: list[Any]) -> str:
        self.drop("note")
        return ""


if __name__ == "__main__":
    main(read, out_of_memory="needs more memory to be read than any text does; hand it in as plain text")
