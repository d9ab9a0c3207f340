"""HTTP to a front door: one request, one stream, one job followed to its end; a refusal is raised as the error it is.

It knows no path of the interface, and no field of a job but `over`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from app.client.refusals import key_refused, unreachable
from app.errors import AuthenticationFailed, CarillonError, DeadlineExceeded, WorkerLost
from app.platform.settings import LOOPBACK_HOSTS

TIMEOUT = httpx.Timeout(300.0, connect=10.0)
EVENTS_TIMEOUT_S = 60.0
PROXY_FAILURES = frozenset({502, 503, 504})
RETRY_PAUSE_S = 1.0
PATIENCE_S = 60.0
"""How long a front door may be away, or refuse for now, before a job or a download is given up."""

Json = dict[str, Any]


class Connection:
    """The front door at `url` (http://…). Every method raises the front door's errors, WorkerLost without one."""

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url
        self._key = key
        self._clock, self._sleep = clock, sleep
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=TIMEOUT,
            transport=transport,
            trust_env=httpx.URL(url).host not in LOOPBACK_HOSTS,  # a proxy does not know what is on this machine
        )

    def close(self) -> None:
        self._http.close()

    def request(self, method: str, path: str, **content: Any) -> Json:
        """The object in the response to `method` at `path`."""
        response = self.send(method, path, **content)
        try:
            return response.json() if response.content else {}
        except ValueError:
            raise unreachable(self.url, "what answers there is no front door") from None

    def send(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **content)
        except httpx.TimeoutException:
            raise DeadlineExceeded(f"{self.url} did not answer {method} {path} in time") from None
        except httpx.RequestError as error:
            raise self._unreachable(error) from None
        if not response.is_success:
            raise self._refusal(response)
        return response

    @contextmanager
    def stream(self, path: str, **content: Any) -> Iterator[httpx.Response]:
        """The response to GET at `path`, to be read inside the context. A break while it is read is a WorkerLost."""
        try:
            with self._http.stream("GET", path, **content) as response:
                if not response.is_success:
                    response.read()
                    raise self._refusal(response)
                yield response
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    def follow(self, events_path: str) -> Iterator[Json]:
        """The job whose events are at this path, whenever it changes, until it is over.

        It reconnects where the connection breaks, and raises WorkerLost after `PATIENCE_S` without the front door.
        """
        patience = self.patience()
        while True:
            try:
                with self.stream(events_path, timeout=EVENTS_TIMEOUT_S) as response:
                    for line in response.iter_lines():
                        patience.renew()
                        if line.startswith("data: "):
                            yield (job := json.loads(line.removeprefix("data: ")))
                            if job["over"]:
                                return
                raise WorkerLost(f"{self.url} told no end of {events_path}")
            except CarillonError as error:
                patience.wait(error)

    def patience(self) -> Patience:
        return Patience(self._clock, self._sleep)

    def _refusal(self, response: httpx.Response) -> CarillonError:
        error = refusal(response)
        return key_refused(self.url, self._key) if isinstance(error, AuthenticationFailed) else error

    def _unreachable(self, error: httpx.RequestError) -> WorkerLost:
        if isinstance(error, httpx.TimeoutException):
            return unreachable(self.url, "no answer in time")
        if isinstance(error, httpx.ConnectError):
            return unreachable(self.url, "nothing listens there")
        return unreachable(self.url, "the connection broke")


class Patience:
    """How long something that fails for now is tried again: for `PATIENCE_S` since the last sign of life."""

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._clock, self._sleep = clock, sleep
        self._away_since: float | None = None

    def renew(self) -> None:
        self._away_since = None

    def wait(self, failure: CarillonError) -> None:
        """Pause before the next try. Raises `failure` when another try is useless, or it has lasted too long."""
        if self._away_since is None:
            self._away_since = self._clock()
        if not failure.retryable or self._clock() - self._away_since >= PATIENCE_S:
            raise failure
        self._sleep(RETRY_PAUSE_S)


def refusal(response: httpx.Response) -> CarillonError:
    """The error that a front door, or a proxy before it, responded with; the body has been read."""
    try:
        error = response.json()["error"]
        return CarillonError.from_wire(error["code"] or "", error["message"], param=error.get("param"))
    except (ValueError, KeyError, TypeError):
        kind = WorkerLost if response.status_code in PROXY_FAILURES else CarillonError
        return kind(f"the front door answered HTTP {response.status_code}")
