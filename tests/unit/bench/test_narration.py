"""The narration that is rendered beside a bench's sessions, against a front door that plays its part."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from app.bench.narration import CHAPTERS, PARAGRAPHS, Reading, book, table
from app.bench.sessions import summary
from app.client.http import ApiClient
from app.errors import DeadlineExceeded, WorkerLost


class PlayedFrontDoor:
    """Has one narration, a segment further at each poll while it is rendered; `ends_as` says how it ends of itself."""

    def __init__(self, *, segments: int = 1_000, ends_as: str = "completed") -> None:
        self.state = "planning"
        self.done = 0
        self.requests: list[str] = []
        self._segments = segments
        self._ends_as = ends_as

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(f"{request.method} {request.url.path}")
        match request.method, request.url.path.rpartition("/")[2]:
            case "POST", "narrations":
                self.wanted = json.loads(request.content)
            case "POST", "cancel":
                self.state = "cancelled"
            case "POST", "resume":
                self.state = "rendering"
            case "GET", _:
                self._look()
        return httpx.Response(200, json=self._narration())

    def _look(self) -> None:
        if self.state == "rendering":
            self.done += 1
            self.state = self._ends_as if self.done == self._segments else "rendering"
        elif self.state == "planning":
            self.state = "rendering"

    def _narration(self) -> dict[str, Any]:
        over = self.state not in ("planning", "rendering")
        return {"id": "n1", "state": self.state, "over": over, "segments_done": self.done, "audio_s": 4.0 * self.done}


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def reading(door: PlayedFrontDoor, clock: Clock) -> Reading:
    client = ApiClient("http://door", "key", transport=httpx.MockTransport(door))
    return Reading(client.narrations, clock=clock, sleep=clock.sleep)


def test_it_is_rendered_only_while_sessions_are_held_beside_it() -> None:
    door, states = PlayedFrontDoor(), []
    narration = reading(door, Clock())
    narration.begin("A text.", "wren", None)
    states.append(door.state)
    for _ in range(2):
        with narration.under_way():
            states.append(door.state)
        states.append(door.state)
    narration.delete()
    assert states == ["cancelled", "rendering", "cancelled", "rendering", "cancelled"]
    assert (door.wanted["text"], door.wanted["voice"]) == ("A text.", "wren")
    assert narration.audio_s == 4.0 * door.done > 0
    assert door.requests[-1] == "DELETE /v1/narrations/n1"


def test_one_that_fails_beside_sessions_says_so() -> None:
    narration = reading(PlayedFrontDoor(segments=3, ends_as="failed"), Clock())
    narration.begin("A text.", "wren", None)
    with pytest.raises(WorkerLost, match="failed"):
        for _ in range(3):
            with narration.under_way():
                pass


def test_one_that_is_not_rendered_is_not_waited_for_without_end() -> None:
    clock, door = Clock(), PlayedFrontDoor()
    narration = reading(door, clock)
    narration.begin("A text.", "wren", None)
    door._look = lambda: None
    with pytest.raises(DeadlineExceeded, match="carillon tasks"), narration.under_way():
        pass
    assert 170 < clock.now_s < 190


def test_no_two_books_share_a_paragraph_and_each_has_its_chapters() -> None:
    first, second = book(1), book(2)
    assert first.count("# Chapter") == CHAPTERS
    paragraphs = [{part for part in text.split("\n\n") if not part.startswith("#")} for text in (first, second)]
    assert [len(one) for one in paragraphs] == [CHAPTERS * PARAGRAPHS] * 2
    assert not paragraphs[0] & paragraphs[1]


def test_the_table_stands_side_by_side() -> None:
    empty = {"errors": {}, **summary([])}
    model = {"name": "standin", "stand_in": True}
    report = {"model": model, "concurrency": 2, "pace": "realtime", "rounds": 3, "narrated_s": 12.5}
    lines = table({**report, "alone": empty, "beside": empty}).splitlines()
    assert [line.split("  ")[0] for line in map(str.strip, lines[2:4])] == ["alone", "beside a narration"]
