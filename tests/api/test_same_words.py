"""One text is spoken in the same words at every edge, whole or a character at a time, and in a narration."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.narration.book_reader import read_manuscript
from app.narration.models import NarrationOptions, SourceKind
from app.narration.normaliser import write_script
from app.speech.protocol import Done
from app.speech.text.options import CodeReading
from app.speech.token_layout import ORPHEUS_TAGS
from tests.api.conftest import House
from tests.support.dialect_client import dialect_client
from tests.support.fake_worker import FakeWorker
from tests.support.said import said
from tests.support.session_client import sessions_client

pytestmark = pytest.mark.anyio

MARKDOWN, SSML, HTML, TEXT = SourceKind.MARKDOWN, SourceKind.SSML, SourceKind.HTML, SourceKind.TEXT

TEXTS: dict[str, tuple[SourceKind, str, str]] = {
    "markdown": (
        MARKDOWN,
        "# Plan\n\nFirst **mix** the *flour*, see [the guide](https://example.org/guide?a=1).\n\n- two eggs\n"
        "- one pinch of salt\n\nThen bake it.",
        "Plan. First mix the flour, see the guide. two eggs. one pinch of salt. Then bake it.",
    ),
    "numbered": (MARKDOWN, "Steps:\n\n1. Open it.\n2. Read it.\n\nDone", "Steps: one. Open it. two. Read it. Done."),
    "heading": (MARKDOWN, "The Plan\n========\n\nWe go at 9.\n\n---\n\nOr not.", "The Plan. We go at nine. Or not."),
    "ssml": (
        SSML,
        '<speak><p>Wait. <break time="500ms"/> The <sub alias="World Wide Web">WWW</sub> has '
        '<say-as interpret-as="characters">ABC</say-as>.</p><p><s>One</s><s>Two</s></p></speak>',
        "Wait. The World Wide Web has A B C. One. Two.",
    ),
    "numbers": (
        TEXT,
        "Dr. King paid $3.50 at 7:30 p.m. on 3/5/2024, which is 12% of 1,234 km.",
        "Doctor King paid three dollars fifty cents at seven thirty P M on March fifth, twenty twenty four, which is "
        "twelve percent of one thousand two hundred thirty four kilometers.",
    ),
    "thought": (MARKDOWN, "<think>They ask the time.\n\nSay it.</think>It is noon.", "It is noon."),
    "thought of another family": (TEXT, "[THINK]Hm, 5?[/THINK]It is noon.", "It is noon."),
    "emoji": (TEXT, "Well done 🎉! See you👋🏽soon.", "Well done! See you soon."),
    "addresses": (
        TEXT,
        "Write to ada@example.com or see https://www.example.org/docs/a-b?x=1#top.",
        "Write to ada at example dot com or see example dot org.",
    ),
    "html": (HTML, "<p>One</p><p>Two &amp; three</p><ul><li>four</li></ul>", "One. Two and three. four."),
    "html listing": (HTML, "<h1>Head</h1><p>Go <a href='x'>on</a>.</p><pre><code>x=1</code></pre>", "Head. Go on."),
    "html in markdown": (
        MARKDOWN,
        "A <b>bold</b> move, H<sub>2</sub>O &lt; 3, and List<String>.",
        "A bold move, H two O is less than three, and List String.",
    ),
    "listing": (MARKDOWN, "Run:\n\n```py\nprint(1)\n```\n\nThen use `x = 1`.", "Run: Then use x equals one."),
    "listing without a name": (MARKDOWN, "Try:\n\n```\nls -la\n```\n\nDone.", "Try: Done."),
    "quoted": (MARKDOWN, "> She said\n> it was late.\n\nHe ***did not*** go.", "She said it was late. He did not go."),
    "formula": (
        MARKDOWN,
        "So $x^2 + 1 = 5$ and \\(a_1 * b * c\\) hold, and it cost $3 to $5.",
        "So x squared plus one equals five and a sub one times b times c hold, and it cost three dollars to five "
        "dollars.",
    ),
    "verse": (
        MARKDOWN,
        "The wind came in\nAcross the bay\nAnd went away.",
        "The wind came in, Across the bay, And went away.",
    ),
    "glued": (MARKDOWN, "It ended.Then it began.And so on.", "It ended. Then it began. And so on."),
    "escaped": (MARKDOWN, "Not \\*bold\\*, and 5 \\* 3.", "Not bold, and five times three."),
    "speech tags": (TEXT, "Oh no <laugh> that is odd.", "Oh no <laugh> that is odd."),
    "capitals": (
        MARKDOWN,
        "# CHAPTER ONE\n\nThe NASA man, i.e. me, left.",
        "Chapter one. The NASA man, that is me, left.",
    ),
}
"""What a narration would call its kind, the text, and its words."""

Speak = Callable[[House, Sequence[str], dict[str, Any]], Awaitable[None]]


async def by_openai(house: House, pieces: Sequence[str], options: dict[str, Any]) -> None:
    body = {"model": "tts-1", "voice": "slt", "input": "".join(pieces), "response_format": "pcm", **options}
    answer = await house.http.post("/v1/audio/speech", json=body)
    assert answer.status_code == 200, answer.text
    assert "x-carillon-ignored" not in answer.headers


async def by_session(house: House, pieces: Sequence[str], options: dict[str, Any]) -> None:
    async with sessions_client(house.sessions_url, house.key) as client:
        await client.send("start", "s", voice="slt", **options)
        for piece in pieces:
            await client.send("text", "s", text=piece)
        await client.send("eos", "s")
        await client.until(Done, "s")


async def by_elevenlabs(house: House, pieces: Sequence[str], options: dict[str, Any]) -> None:
    query = "&".join(f"{name}={value}" for name, value in options.items())
    url = f"{house.url.replace('http', 'ws')}/v1/text-to-speech/slt/stream-input?output_format=pcm_24000&{query}"
    async with dialect_client(url, xi_api_key=house.key) as client:
        for text in (" ", *pieces, ""):
            await client.send({"text": text})
        await client.until_closed()


async def by_cartesia(house: House, pieces: Sequence[str], options: dict[str, Any]) -> None:
    form = {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 24_000}
    asked = {"model_id": "sonic-3", "voice": {"mode": "id", "id": "slt"}, "output_format": form, "context_id": "c"}
    async with dialect_client(f"{house.url.replace('http', 'ws')}/tts/websocket", x_api_key=house.key) as client:
        for piece in pieces:
            await client.send({**asked, **options, "transcript": piece, "continue": True})
        await client.send({**asked, "transcript": "", "continue": False})
        await client.until(lambda message: message["type"] == "done")


async def by_baseten(house: House, pieces: Sequence[str], options: dict[str, Any]) -> None:
    url = f"{house.url.replace('http', 'ws')}/baseten"
    async with dialect_client(url, authorization=f"Api-Key {house.key}") as client:
        await client.send({"voice": "slt", **options})
        for piece in (*pieces, "__END__"):
            await client.send(piece)
        await client.until_closed()


EDGES: dict[str, Speak] = {
    "openai": by_openai,
    "session": by_session,
    "elevenlabs": by_elevenlabs,
    "cartesia": by_cartesia,
    "baseten": by_baseten,
}


async def heard(speak: Speak, house: House, worker: FakeWorker, pieces: Sequence[str], **options: Any) -> str:
    """The words of a text that was spoken at an edge."""
    worker.told.clear()
    worker.assigned.clear()
    await speak(house, pieces, options)
    [assigned] = worker.assigned
    return said(worker.told, assigned.text)


async def planned(tmp_path: Path, kind: SourceKind, text: str, **options: Any) -> str:
    """The words of a narration's script."""
    source = tmp_path / "source"
    source.write_text(text, "utf-8")
    chosen = NarrationOptions(**options)
    book = await read_manuscript(source, kind, name="source", code=chosen.code)
    script = await write_script(book.manuscript, chosen, tags=ORPHEUS_TAGS, language="en")
    return " ".join(segment.spoken for chapter in script.chapters for segment in chapter.segments)


@pytest.mark.parametrize("name", TEXTS)
async def test_a_text_is_spoken_in_the_same_words_everywhere(
    house: House, worker: FakeWorker, tmp_path: Path, name: str
) -> None:
    kind, text, words = TEXTS[name]
    for edge, speak in EDGES.items():
        assert await heard(speak, house, worker, [text]) == words, edge
        assert await heard(speak, house, worker, list(text)) == words, f"{edge}, a character at a time"
    told = await planned(tmp_path, kind, text)
    assert told.lower() == words.lower(), "but for the capitals of titles"


async def test_what_is_chosen_has_one_name_everywhere(house: House, worker: FakeWorker, tmp_path: Path) -> None:
    text = "Run:\n\n```py\nnow\n```\n\nDone at 9."
    for code, words in (("announce", "Run: Code block. Done at nine."), ("read", "Run: now. Done at nine.")):
        for edge, speak in EDGES.items():
            assert await heard(speak, house, worker, [text], code=code) == words, edge
        assert await planned(tmp_path, MARKDOWN, text, code=CodeReading(code)) == words
    for edge, speak in EDGES.items():
        assert await heard(speak, house, worker, ["It is **9** <i>now</i>."], normalise="false") == "It is 9 now.", edge
        link = ["See [it](https://example.org)."]
        assert await heard(speak, house, worker, link, markup="plain") == "See it (example dot org).", edge
        assert await heard(speak, house, worker, ["Hm.</think>Noon."], thought_open="true") == "Noon.", edge
        assert await heard(speak, house, worker, ["On 3/5."], language="en-GB") == "On May third.", edge
    assert await planned(tmp_path, MARKDOWN, "It is **9** <i>now</i>.", normalise=False) == "It is 9 now."


LEFT_OUT = {
    "table": ("| city | people |\n|---|---|\n| Rome | 3 |\n\nDone.", "city, people. Rome, three. Done.", "Done."),
    "picture": ("Look: ![a red barn](barn.png) there.", "Look: a red barn there.", "Look: there."),
    "note": ("He is late[^1].\n\n[^1]: As ever.", "He is late. As ever.", "He is late."),
}
"""What is spoken live, and in a narration, whose findings then name what it lacks."""


@pytest.mark.parametrize("code", LEFT_OUT)
async def test_a_narration_leaves_out_what_interrupts_a_book_and_says_so(
    house: House, worker: FakeWorker, tmp_path: Path, code: str
) -> None:
    text, live, narrated = LEFT_OUT[code]
    assert await heard(by_session, house, worker, [text]) == live
    assert await planned(tmp_path, MARKDOWN, text) == narrated
    book = await read_manuscript(tmp_path / "source", MARKDOWN, name="source")
    assert [finding.code for finding in book.manuscript.findings] == [code]


async def test_a_narration_says_that_thoughts_were_left_out_and_keeps_one_without_an_end(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("<think>Hm.</think>Noon. The tag <think> begins a thought.", "utf-8")
    manuscript = (await read_manuscript(source, TEXT, name="source")).manuscript
    assert [finding.code for finding in manuscript.findings] == ["thought"]
    assert "begins a thought" in manuscript.chapters[0].paragraphs[0].text
