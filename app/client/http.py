"""A front door as its commands see it: asked over HTTP, its refusals raised as the errors they are, its jobs followed.

It knows no job's fields but `over`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any, Self

import httpx

from app.client.refusals import key_refused, nobody_answers
from app.errors import AuthenticationFailed, CarillonError, DeadlineExceeded, WorkerLost
from app.platform.settings import LOOPBACK_HOSTS

TIMEOUT = httpx.Timeout(300.0, connect=10.0)
PROBE_TIMEOUT_S = 5.0
EVENTS_TIMEOUT_S = 60.0
PROXY_FAILURES = frozenset({502, 503, 504})
RECONNECT_PAUSE_S = 1.0
PATIENCE_S = 60.0
"""How long a front door that was there may be away, or refuse for now, before what it was doing is given up on."""

Json = dict[str, Any]


class FrontDoor:
    """The front door at `url` (http://…). Every method raises what it refuses with, and WorkerLost without one."""

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._url, self._key = url, key
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=TIMEOUT,
            transport=transport,
            trust_env=httpx.URL(url).host not in LOOPBACK_HOSTS,  # a proxy does not know what is on this machine
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def listed(self, path: str, **params: Any) -> list[Json]:
        """What there is at `path`, which lists things."""
        answer = self.ask("GET", path, params=params)
        return answer["voices" if "voices" in answer else "data"]

    def follow(self, events_path: str) -> Iterator[Json]:
        """The job whose events are there, whenever it changes, until it is over.

        A connection that breaks is made anew. Raises WorkerLost when the front door has been away for `PATIENCE_S`.
        """
        patience = Patience(self._clock, self._sleep)
        while True:
            try:
                with closing(self._event_lines(events_path)) as lines:
                    for line in lines:
                        patience.renew()
                        if line.startswith("data: "):
                            yield (job := json.loads(line.removeprefix("data: ")))
                            if job["over"]:
                                return
                failure: CarillonError = WorkerLost(f"{self._http.base_url} told no end of {events_path}")
            except httpx.TransportError as error:
                failure = self._absence(error)
            except CarillonError as error:
                failure = error
            patience.wait(failure)

    def _event_lines(self, path: str) -> Generator[str]:
        with self._http.stream("GET", path, timeout=EVENTS_TIMEOUT_S) as answer:
            if not answer.is_success:
                answer.read()
                raise self._refusal(answer)
            yield from answer.iter_lines()

    def answers(self) -> bool:
        """Whether anybody is there; it asks for no key."""
        try:
            return self._answer("GET", "/healthz", timeout=PROBE_TIMEOUT_S).is_success
        except CarillonError:
            return False

    def ask(self, method: str, path: str, **content: Any) -> Json:
        """What `method` at `path` is answered, an object."""
        answer = self._answer(method, path, **content)
        try:
            return answer.json() if answer.content else {}
        except ValueError:
            raise nobody_answers(self._url, "what answers there is no front door") from None

    def _answer(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **content)
        except httpx.TimeoutException:
            raise DeadlineExceeded(f"{self._url} did not answer {method} {path} in time") from None
        except httpx.RequestError as error:
            raise self._absence(error) from None
        if not answer.is_success:
            raise self._refusal(answer)
        return answer

    def _refusal(self, answer: httpx.Response) -> CarillonError:
        error = refusal(answer)
        return key_refused(self._url, self._key) if isinstance(error, AuthenticationFailed) else error

    def _absence(self, error: httpx.RequestError) -> WorkerLost:
        slow = isinstance(error, httpx.TimeoutException)
        nobody = isinstance(error, httpx.ConnectError)
        why = "no answer in time" if slow else "nobody listens there" if nobody else "the connection broke"
        return nobody_answers(self._url, why)


class Patience:
    """How often something that fails for now is tried again: for `PATIENCE_S` since the last sign of life."""

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._clock, self._sleep = clock, sleep
        self._away_since: float | None = None

    def renew(self) -> None:
        self._away_since = None

    def wait(self, failure: CarillonError) -> None:
        """Pause before the next try. Raises `failure` when that is useless, or was for too long."""
        if self._away_since is None:
            self._away_since = self._clock()
        if not failure.retryable or self._clock() - self._away_since >= PATIENCE_S:
            raise failure
        self._sleep(RECONNECT_PAUSE_S)


def refusal(answer: httpx.Response) -> CarillonError:
    """The error a front door answered with, or a proxy before it; the answer's body has been read."""
    try:
        error = answer.json()["error"]
        return CarillonError.from_wire(error["code"] or "", error["message"], param=error.get("param"))
    except (ValueError, KeyError, TypeError):
        kind = WorkerLost if answer.status_code in PROXY_FAILURES else CarillonError
        return kind(f"the front door answered HTTP {answer.status_code}")
