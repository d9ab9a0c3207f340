"""A front door without a server, for commands: it answers as a test says, in a time of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx

from app.client.http import ApiClient

Json = dict[str, Any]


class ScriptedFrontDoor:
    """What `client` talks to. `answers` has responses, errors or functions by method and path ("GET /v1/voices").

    Of a list, one answer is given after the other, and the last for good.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.requests: list[httpx.Request] = []
        self.time_s = 0.0
        self.client = ApiClient(
            "http://front.door",
            None,
            transport=httpx.MockTransport(self._answer),
            clock=lambda: self.time_s,
            sleep=self._sleep,
        )

    def asked(self, method: str, path: str) -> list[httpx.Request]:
        """The requests of a method to paths that end like this."""
        return [one for one in self.requests if one.method == method and one.url.path.endswith(path)]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers[f"{request.method} {request.url.path}"]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer(request) if isinstance(answer, Callable) else answer

    def _sleep(self, seconds: float) -> None:
        self.time_s += seconds


def refusal(status: int, code: str, message: str = "no") -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message, "param": None, "code": code}})


def events(*jobs: Json) -> httpx.Response:
    """A stream of a job's states."""
    return httpx.Response(200, text="".join(f"data: {json.dumps(job)}\n\n" for job in jobs))
