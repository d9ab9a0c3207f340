"""A real Chromium on the console, and what is asked of every page: no error, no other origin, nothing inaccessible."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from playwright.sync_api import Browser, Page, Response, WebSocket, expect, sync_playwright

from tests.support.deadlines import HANG_S
from tests.support.running_fleet import RunningFleet

AXE = Path(__file__).parents[1] / "browser" / "vendor" / "axe.min.js"
HEADER_BYTES = 20

ARGUMENTS = [
    "--no-sandbox",  # tests run as root, in containers
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]


def chromium_path() -> str:
    """Debian's Chromium, or the one that CHROMIUM names."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "there is no Chromium; `apt-get install chromium`, or set CHROMIUM to the program"
    return path


def hearing(browser: Browser, microphone: Path, *, refused: bool = False) -> Browser:
    """Another Chromium, whose microphone plays a WAV file once, or is refused."""
    arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--use-fake-device-for-media-stream"]
    arguments.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
    if not refused:
        arguments.append("--use-fake-ui-for-media-stream")
    return browser.browser_type.launch(executable_path=chromium_path(), args=arguments)


@contextmanager
def running_chromium() -> Iterator[Browser]:
    expect.set_options(timeout=1000 * HANG_S)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page, and what went wrong on it. `refusals` are answers of 400 and more, which a test may await."""

    page: Page
    origin: str
    faults: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    pcm: bytearray = field(default_factory=bytearray)
    """The audio that came over its WebSockets."""

    def __post_init__(self) -> None:
        self._watch(self.page)

    def _watch(self, page: Page) -> None:
        page.set_default_timeout(1000 * HANG_S)
        page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))
        page.on("request", lambda request: self._stays_here(request.url))
        page.on("response", self._answered)
        page.on("websocket", self._opened)
        # What the browser says of an answer of 400 or more is in `refusals` already.
        page.on(
            "console",
            lambda message: (
                self.faults.append(f"{message.type}: {message.text}")
                if message.type in ("error", "warning") and "Failed to load resource" not in message.text
                else None
            ),
        )

    def _stays_here(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != urlsplit(self.origin).netloc:
            self.faults.append(f"asked another origin: {url}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.refusals.append(f"{response.status} {urlsplit(response.url).path}")

    def _opened(self, socket: WebSocket) -> None:
        def heard(data: str | bytes) -> None:
            if isinstance(data, bytes):
                self.pcm.extend(data[HEADER_BYTES:])

        socket.on("framereceived", heard)

    def go(self, path: str) -> Page:
        self.page.goto(self.origin + path)
        return self.page

    def another_tab(self) -> Page:
        """Whose faults are this visit's."""
        page = self.page.context.new_page()
        self._watch(page)
        return page

    def serious(self) -> list[str]:
        """What axe finds on the page that is serious or worse, with where it is."""
        self.page.evaluate(AXE.read_text("utf-8") + "; null")
        found = self.page.evaluate("async () => (await axe.run()).violations")
        return [
            f"{one['id']}: {node['target']} {node['failureSummary']}"
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]

    def overflow(self) -> int:
        """How many pixels the page is wider than its window."""
        return self.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")


def console_link(fleet: RunningFleet) -> str:
    """A link that signs one browser in."""
    answer = httpx.post(f"{fleet.address}/console/invitations", headers=fleet.headers, trust_env=False)
    return fleet.address + answer.json()["path"]


@contextmanager
def visit(
    browser: Browser, fleet: RunningFleet, *, signed_in: bool = True, phone: bool = False, scheme: str = "light"
) -> Iterator[Visit]:
    """A fresh browser profile on the fleet's console. Raises AssertionError at the end if a page had a fault."""
    size = {"width": 390, "height": 844} if phone else {"width": 1280, "height": 860}
    context = browser.new_context(
        viewport=size,  # type: ignore[arg-type]
        color_scheme=scheme,  # type: ignore[arg-type]
        reduced_motion="reduce",
        accept_downloads=True,
    )
    visit = Visit(context.new_page(), fleet.address)
    if signed_in:
        visit.page.goto(console_link(fleet))
        visit.page.locator("#speak-button").wait_for()
    try:
        yield visit
        assert not visit.faults
    finally:
        context.close()


def wav_samples(path: Path) -> bytes:
    """The PCM of a WAV file that the console wrote."""
    data = path.read_bytes()
    assert data[:4] == b"RIFF" and data[36:40] == b"data"
    [size] = struct.unpack("<I", data[40:44])
    return data[44 : 44 + size]
