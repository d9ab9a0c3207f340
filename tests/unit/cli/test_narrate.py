"""`carillon narrate` against a front door that answers as a test tells it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from rich.progress import Progress
from typer.testing import CliRunner

from app.cli.main import cli
from app.cli.narrate import NarrationRequest, narrate_book
from app.cli.narrate_progress import Bars
from app.client.connection import PATIENCE_S
from app.errors import CarillonError, ConfigurationError, Conflict, NotFound, UnknownVoice, WorkerLost
from app.speech.choices import CaptionsBy
from tests.support.scripted_front_door import ScriptedFrontDoor, events, refusal

Json = dict[str, Any]

ID = "nar-1"
AUDIO = bytes(range(250)) * 40
ETAG = '"0123456789abcdef0123"'


def chapter(number: int, **changes: Any) -> Json:
    fields = {"title": f"Part {number}", "segments": 10, "segments_done": 0, "audio_s": 0.0, "flagged": 0}
    return {"number": number, "finished": False, "error": None} | fields | changes


def narration(state: str, **changes: Any) -> Json:
    fields: Json = {"id": ID, "state": state, "over": state in ("completed", "failed", "cancelled"), "format": "m4b"}
    fields |= {"title": "A Book", "segments": 20, "segments_done": 0, "chapters": [chapter(1), chapter(2)]}
    fields |= {"real_time_factor": None, "eta_s": None, "cost_usd": None, "busy_s": 0.0, "flagged": 0}
    return fields | {"error": None, "output": None, "findings": []} | changes


DONE = [chapter(number, segments_done=10, audio_s=30.0, finished=True) for number in (1, 2)]
OUTPUT = {"duration_s": 65.0, "size_bytes": len(AUDIO), "loudness_lufs": -19.02, "true_peak_dbtp": -3.1}
COMPLETED = narration(
    "completed", segments_done=20, chapters=DONE, output=OUTPUT, real_time_factor=0.5, busy_s=30.0, flagged=1
)


FLAGGED = {"chapter": 2, "number": 17, "flags": ["too_long"], "written": "Nobody answered."}


def served(request: httpx.Request) -> httpx.Response:
    """The audio, as a front door serves ranges of it."""
    first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
    end = int(last) + 1 if last else len(AUDIO)
    headers = {"etag": ETAG, "content-range": f"bytes {first}-{end - 1}/{len(AUDIO)}"}
    return httpx.Response(206, content=AUDIO[int(first) : end], headers=headers)


class Broken(httpx.SyncByteStream):
    """A body that breaks off."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        yield self._data
        raise httpx.ReadError("broken")


class Unread(httpx.SyncByteStream):
    """A body that nobody may read."""

    def __iter__(self) -> Iterator[bytes]:
        raise AssertionError("it was read")


class House(ScriptedFrontDoor):
    """A front door with one narration, and the files of a command that talks to it."""

    def __init__(self, tmp_path: Path) -> None:
        super().__init__()
        self.output = tmp_path / "book.m4b"
        self.book = tmp_path / "book.epub"
        self.book.write_bytes(b"PK")
        self.out = io.StringIO()
        own = f"/v1/narrations/{ID}"
        self.answers = {
            "POST /v1/narrations": httpx.Response(202, json=narration("queued")),
            f"GET {own}": httpx.Response(200, json=COMPLETED),
            f"POST {own}/resume": httpx.Response(202, json=narration("queued")),
            f"GET {own}/events": events(COMPLETED),
            f"GET {own}/audio": served,
            f"GET {own}/segments": httpx.Response(200, json={"data": [FLAGGED]}),
            f"GET {own}/captions.vtt": httpx.Response(200, content=b"WEBVTT\n"),
            f"GET {own}/captions.srt": httpx.Response(200, content=b"1\n"),
        }

    def sets(self, path: str, *answers: Any) -> None:
        """What is answered at a path of the narration."""
        method = "POST" if path == "/resume" else "GET"
        self.answers[f"{method} /v1/narrations/{ID}{path}"] = list(answers)

    def run(self, book: Path | None = None, **options: Any) -> str:
        request = options.pop("request", NarrationRequest(voice="slt"))
        narrate_book(book, self.output, client=self.client, request=request, out=self.out, **options)
        return self.out.getvalue()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_book_becomes_a_file_with_a_report(house: House) -> None:
    told = house.run(house.book)
    assert house.output.read_bytes() == AUDIO
    assert "0:01:05 in 2 chapters" in told
    assert "-19.0 LUFS" in told
    assert "real-time factor 0.50: 0:00:30 of a worker's place\n" in told
    assert "20 segments, 1 flagged\n  chapter 2, segment 17: too_long: Nobody answered.\n" in told
    assert [path.name for path in house.output.parent.glob(".*")] == []


def test_what_was_asked_for_is_what_is_sent(house: House, tmp_path: Path) -> None:
    cover = tmp_path / "cover.png"
    cover.write_bytes(b"PNG")
    house.run(
        house.book,
        request=NarrationRequest(
            voice="slt",
            cast={"hero": "rms"},
            options={"replacements": {"a": "b"}, "retakes": 1},
            replacements={"Nginx": "engine x"},
            cover=cover,
        ),
    )
    [handed_in] = house.asked("POST", "/narrations")
    body = handed_in.read().decode()
    wanted = json.loads(body[body.index("{") : body.index("}\r\n") + 1])
    assert wanted == {
        "voice": "slt",
        "cast": {"hero": "rms"},
        "format": "m4b",
        "options": {"replacements": {"a": "b", "Nginx": "engine x"}, "retakes": 1},
    }
    assert 'filename="book.epub"' in body
    assert 'filename="cover.png"' in body


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("book.aac", "one of .m4b, .mp3"),
        ("no/book.mp3", "No such file or directory"),
        ("file/book.mp3", "Not a directory"),
        ("taken.mp3", "is a directory"),
        ("captions.mp3", r"captions\.srt is a directory"),
        (f"{'x' * 235}.mp3", "File name too long"),
    ],
    ids=["format", "nowhere", "in_a_file", "directory", "captions", "long_name"],
)
def test_a_file_that_could_not_be_written_in_the_end_is_told_before_the_beginning(
    house: House, tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken.mp3").mkdir()
    (tmp_path / "captions.srt").mkdir()
    house.output = tmp_path / name
    with pytest.raises(ConfigurationError, match=message):
        house.run(house.book, captions=CaptionsBy.WORD)
    assert house.requests == []


def test_a_book_that_is_not_there_is_named(house: House, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.epub cannot be read: No such file"):
        house.run(tmp_path / "none.epub")


def test_what_the_front_door_refuses_is_raised_as_it_is(house: House) -> None:
    house.answers["POST /v1/narrations"] = refusal(404, "unknown_voice", "cast.hero: voice 'x' does not exist")
    with pytest.raises(UnknownVoice, match=r"cast\.hero"):
        house.run(house.book)


@pytest.mark.parametrize(
    "words",
    [("--cast", "hero"), ("--cast", "=slt"), ("--replace", "a=b", "--replace", "a=c"), ("--options", "[]")],
)
def test_a_word_of_the_command_line_that_says_nothing_is_refused(house: House, words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, ["narrate", str(house.book), "-o", "book.m4b", *words])
    assert result.exit_code == 2
    assert words[-1] in result.output


# Progress.


def test_elsewhere_than_on_a_terminal_chapters_and_tenths_are_lines(house: House) -> None:
    half = narration("rendering", segments_done=11, chapters=[DONE[0], chapter(2, segments_done=1)], eta_s=61.0)
    house.sets("/events", events(narration("planning"), half, COMPLETED))
    told = house.run(house.book)
    assert "planning\nrendering\n" in told
    assert "  chapter 1 of 2, Part 1: 10 of 10 segments, 0:00:30\n" in told
    assert "  11 of 20 segments (0:01:01 left)\n" in told


def test_on_a_terminal_there_is_a_bar_for_each_chapter() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=30)
    with Progress(console=console, auto_refresh=False) as progress:
        bars = Bars(progress)
        bars.show(narration("planning", chapters=[], segments=0))
        bars.show(narration("rendering", segments_done=3, chapters=[chapter(1, segments_done=3), chapter(2)]))
        bars.fetched(7_000_000, 70_000_000)
    assert [(task.description.strip(), task.completed, task.total) for task in progress.tasks] == [
        ("rendering", 3, 20),
        ("1 Part 1", 3, 10),
        ("2 Part 2", 0, 10),
        ("fetching", 10, 100),
    ]
    assert progress.tasks[-1].fields["note"] == "7.0 of 70.0 MB"


def test_of_more_chapters_than_fit_those_being_read_are_shown() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=10)
    chapters = [chapter(number) for number in range(1, 21)]
    chapters[4] = chapter(5, segments_done=2)
    with Progress(console=console, auto_refresh=False) as progress:
        Bars(progress).show(narration("rendering", chapters=chapters))
    assert [task.description.strip() for task in progress.tasks if task.visible] == ["rendering", "5 Part 5"]


def test_findings_are_told_though_only_the_first_event_had_them(house: House) -> None:
    finding = {"chapter": 2, "segment": 14, "message": "too long for its words"}
    last = {name: value for name, value in COMPLETED.items() if name != "findings"}
    house.sets("/events", events(narration("planning", findings=[finding]), last))
    assert "  chapter 2, segment 14: too long for its words\n" in house.run(house.book)


def test_the_place_of_a_finding_is_told_once(house: House) -> None:
    findings = [
        {"chapter": 2, "segment": None, "message": "chapter 2, paragraph 1: a break was not understood"},
        {"chapter": 1, "segment": 3, "message": "chapter 12 is spoken as it is written"},
    ]
    house.sets("/events", events(COMPLETED | {"findings": findings}))
    told = house.run(house.book).splitlines()
    assert "  chapter 2, paragraph 1: a break was not understood" in told
    assert "  chapter 1, segment 3: chapter 12 is spoken as it is written" in told


# Ends.


def test_a_failure_is_raised_with_the_way_back(house: House) -> None:
    error = {"code": "unknown_voice", "message": "the voice 'Mary' has been deleted"}
    house.sets("/events", events(narration("failed", error=error)))
    with pytest.raises(UnknownVoice, match="Mary"):
        house.run(house.book)
    assert f"carillon narrate --resume {ID}" in house.out.getvalue()
    assert not house.output.exists()


def test_its_id_is_told_before_anything_can_go_wrong(house: House) -> None:
    said = io.BytesIO()
    terminal = io.TextIOWrapper(said, encoding="ascii")
    house.answers["POST /v1/narrations"] = httpx.Response(202, json=narration("queued", title="Zoë"))
    with pytest.raises(UnicodeEncodeError):
        narrate_book(house.book, house.output, client=house.client, request=NarrationRequest(), out=terminal)
    assert said.getvalue().startswith(ID.encode())


@pytest.mark.parametrize(
    ("status", "code"), [(503, "store_unavailable"), (409, "conflict"), (504, "deadline_exceeded")]
)
def test_whatever_goes_wrong_once_it_is_handed_in_the_way_back_is_told(house: House, status: int, code: str) -> None:
    house.sets("/audio", refusal(status, code))
    with pytest.raises(CarillonError) as caught:
        house.run(house.book)
    assert caught.value.code == code
    assert house.out.getvalue().endswith(f"carillon narrate --resume {ID} -o {house.output}\n")


def test_captions_that_cannot_be_written_are_told_with_the_way_back(house: House) -> None:
    def taken(request: httpx.Request) -> httpx.Response:
        house.output.with_suffix(".vtt").mkdir()
        return served(request)

    house.sets("/audio", taken, served)
    with pytest.raises(ConfigurationError, match=r"book\.vtt cannot be written: Is a directory"):
        house.run(house.book, captions=CaptionsBy.WORD)
    assert f"--resume {ID}" in house.out.getvalue()


def test_a_narration_that_somebody_cancelled_is_told(house: House) -> None:
    house.sets("/events", events(narration("cancelled")))
    with pytest.raises(Conflict, match="cancelled"):
        house.run(house.book)


def test_ctrl_c_leaves_the_narration_at_work_and_says_how_to_come_back(house: House) -> None:
    house.sets("/events", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        house.run(house.book)
    assert f"carillon narrate --resume {ID} -o {house.output}" in house.out.getvalue()
    assert not any(request.url.path.endswith("/cancel") for request in house.requests)


def test_a_watch_outlives_breaks_and_restarts(house: House) -> None:
    house.sets("/events", httpx.ConnectError("refused"), httpx.Response(502, text="<html>"), events(COMPLETED))
    house.run(house.book)
    assert house.time_s == 2.0


# Coming back.


def test_a_narration_that_stopped_is_set_going_again_with_other_voices(house: House) -> None:
    house.sets("", httpx.Response(200, json=narration("failed")))
    house.run(resume=ID, request=NarrationRequest(cast={"hero": "rms"}))
    [asked] = house.asked("POST", "/resume")
    assert json.loads(asked.read()) == {"cast": {"hero": "rms"}}
    assert house.output.read_bytes() == AUDIO


def test_one_that_is_done_is_only_fetched(house: House) -> None:
    house.run(resume=ID, request=NarrationRequest(), captions=CaptionsBy.WORD)
    assert house.asked("POST", "/resume") == []
    assert house.output.read_bytes() == AUDIO
    assert house.output.with_suffix(".vtt").read_bytes() == b"WEBVTT\n"
    assert house.output.with_suffix(".srt").read_bytes() == b"1\n"


def test_what_can_not_be_changed_any_more_is_refused(house: House) -> None:
    with pytest.raises(ConfigurationError, match="its voices can be changed once it has stopped"):
        house.run(resume=ID, request=NarrationRequest(voice="rms"))
    with pytest.raises(ConfigurationError, match="its voices"):
        house.run(resume=ID, request=NarrationRequest(options={"retakes": 1}))
    house.output = house.output.with_suffix(".mp3")
    with pytest.raises(ConfigurationError, match=r"becomes a \.m4b file"):
        house.run(resume=ID, request=NarrationRequest())


def test_neither_book_nor_narration_is_an_error_and_both_are(house: House) -> None:
    with pytest.raises(ConfigurationError, match="--resume"):
        house.run()
    with pytest.raises(ConfigurationError, match="--resume"):
        house.run(house.book, resume=ID)
    assert house.requests == []


# Fetching.


def breaks_off(at: int) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        whole = served(request)
        return httpx.Response(206, headers=whole.headers, stream=Broken(whole.content[:at]))

    return answer


def test_a_download_that_breaks_goes_on_where_it_was(house: House) -> None:
    house.sets("/audio", served, breaks_off(4000), served)
    house.run(house.book)
    assert house.output.read_bytes() == AUDIO
    assert [one.headers["range"] for one in house.asked("GET", "/audio")] == [
        "bytes=0-0", "bytes=0-", "bytes=0-0", "bytes=4000-",
    ]  # fmt: skip


def test_a_download_is_gone_on_with_by_the_next_command(house: House) -> None:
    house.sets("/audio", served, breaks_off(4000), refusal(500, "internal_error"))
    with pytest.raises(CarillonError):
        house.run(house.book)
    assert not house.output.exists()
    house.sets("/audio", served)
    house.run(resume=ID, request=NarrationRequest())
    assert house.output.read_bytes() == AUDIO
    assert house.asked("GET", "/audio")[-1].headers["range"] == "bytes=4000-"


def test_what_is_left_of_another_file_is_not_gone_on_with(house: House) -> None:
    other = house.output.parent / f".{house.output.name}.fedcba9876543210.part"
    other.write_bytes(b"other")
    house.run(house.book)
    assert house.output.read_bytes() == AUDIO
    assert not other.exists()


def test_a_file_that_is_made_again_meanwhile_is_fetched_anew(house: House) -> None:
    def changed(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"another", headers={"etag": '"another"'})

    house.sets("/audio", served, changed, served)
    house.run(house.book)
    assert house.output.read_bytes() == AUDIO


@pytest.mark.parametrize("stripped", ["etag", "content-range"])
def test_a_proxy_that_takes_ranges_out_is_told_and_the_book_not_read_into_memory(house: House, stripped: str) -> None:
    def through_proxy(request: httpx.Request) -> httpx.Response:
        headers = {name: value for name, value in served(request).headers.items() if name != stripped}
        return httpx.Response(206 if stripped == "etag" else 200, headers=headers, stream=Unread())

    house.sets("/audio", through_proxy)
    with pytest.raises(WorkerLost, match="does not serve ranges"):
        house.run(house.book)
    assert [path.name for path in house.output.parent.iterdir()] == [house.book.name]


def test_a_tag_is_no_path(house: House) -> None:
    def elsewhere(request: httpx.Request) -> httpx.Response:
        answer = served(request)
        return httpx.Response(206, content=answer.content, headers={**answer.headers, "etag": 'W/"/../../x'})

    house.sets("/audio", elsewhere)
    house.run(house.book)
    assert house.output.read_bytes() == AUDIO


def test_a_front_door_that_stays_away_ends_it_with_the_way_back(house: House) -> None:
    house.sets("/audio", httpx.ConnectError("refused"))
    with pytest.raises(WorkerLost, match="make up"):
        house.run(house.book)
    assert house.time_s == PATIENCE_S
    assert f"--resume {ID}" in house.out.getvalue()


def test_a_narration_that_is_not_there_is_told(house: House) -> None:
    house.sets("", refusal(404, "not_found"))
    with pytest.raises(NotFound):
        house.run(resume=ID, request=NarrationRequest())
