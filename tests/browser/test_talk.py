"""The talk's page in a real browser: a fake microphone plays a recorded question, and the answer is heard in the page.

Needs Playwright and a Chromium (`CHROMIUM`, default: Debian's).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from tests.support.browser import AXE
from tests.support.deadlines import HANG_S
from tests.support.running_fleet import RunningFleet
from tests.support.talk_peer import MICROPHONE_HZ, question

if TYPE_CHECKING:
    from playwright.async_api import ConsoleMessage, Page, WebSocketRoute

playwright = pytest.importorskip("playwright.async_api")

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"there is no {CHROMIUM}"),
]

KEEP_PEERS = """
window.peers = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...given) { super(...given); window.peers.push(this); }
};
"""
ENERGY = """async () => {
  let energy = 0;
  for (const peer of window.peers)
    for (const it of (await peer.getStats()).values())
      if (it.type === "inbound-rtp") energy += it.totalAudioEnergy ?? 0;
  return energy;
}"""

OpenPage = Callable[..., AbstractAsyncContextManager["Visit"]]


class Visit:
    """A page that is open, and what was seen of it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requested: list[str] = []
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requested.append(request.url))

    async def ask(self, *, by: str) -> None:
        """Start a conversation over `webrtc` or `socket`, in which the microphone asks for a story."""
        await self.page.select_option("#transport", by)
        await self.page.click("#call")

    async def answer(self) -> str:
        """What the bot has said when its first turn is over."""
        await self.page.wait_for_selector("#verdict:has-text('Turn 1')")
        return await self.page.inner_text("#transcript .bot")

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)


@pytest.fixture
def open_page(fleet: RunningFleet, tmp_path: Path) -> OpenPage:
    """Open the talk with a microphone that asks `question` after some seconds, or with one that is refused."""

    @asynccontextmanager
    async def opened(*, refused: bool = False, **context: object) -> AsyncIterator[Visit]:
        heard = tmp_path / "microphone.wav"
        silence = np.zeros(8 * MICROPHONE_HZ, np.int16)
        soundfile.write(heard, np.concatenate([silence, question("story"), *[silence] * 10]), MICROPHONE_HZ)
        fakes = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={heard}%noloop"]
        if not refused:
            fakes.append("--use-fake-ui-for-media-stream")
        async with playwright.async_playwright() as started:
            browser = await started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *fakes])
            profile = await browser.new_context(**context)
            profile.set_default_timeout(HANG_S * 1000)
            await profile.add_init_script(KEEP_PEERS)
            await profile.add_init_script(f"sessionStorage.setItem('carillon-key', '{fleet.key}')")
            visit = Visit(await profile.new_page())
            await visit.page.goto(f"{fleet.address}/talk")
            yield visit
            await browser.close()

    return opened


@pytest.mark.parametrize("transport", ["webrtc", "socket"])
async def test_a_question_is_answered_and_its_budget_shown(
    open_page: OpenPage, fleet: RunningFleet, transport: str
) -> None:
    async with open_page() as visit:
        page = visit.page
        await visit.ask(by=transport)
        assert "There was once a small island" in await visit.answer()
        assert "scripted host" in await page.inner_text("#who")
        rows = await page.locator("#percentiles tbody tr td:nth-of-type(1)").all_inner_texts()
        assert all(cell.isdecimal() for cell in rows[:6])
        if transport == "webrtc":
            await page.wait_for_timeout(1_000)
            assert await page.evaluate(ENERGY) > 0
        await page.click("#call")
        await page.wait_for_selector("#call-label:text-is('Start')")
    assert visit.complaints == []
    assert all(address.startswith((fleet.address, "blob:", "data:")) for address in visit.requested)


async def test_two_tabs_have_a_conversation_each(open_page: OpenPage, fleet: RunningFleet) -> None:
    async with open_page() as first:
        second = Visit(await first.page.context.new_page())
        await second.page.goto(f"{fleet.address}/talk")
        await first.ask(by="socket")
        await second.ask(by="webrtc")
        assert "small island" in await first.answer()
        assert "small island" in await second.answer()
    assert first.complaints == second.complaints == []


async def test_a_lost_connection_is_told_and_the_next_call_is_answered(open_page: OpenPage) -> None:
    async with open_page() as visit:
        calls: list[WebSocketRoute] = []

        def connect(route: WebSocketRoute) -> None:
            calls.append(route)
            route.connect_to_server()

        await visit.page.route_web_socket("**/talk/audio", connect)
        await visit.ask(by="socket")
        await visit.page.wait_for_selector("#call-label:text-is('Hang up')")
        await calls[0].close(code=1012)
        await visit.page.wait_for_selector("#problem:has-text('connection was lost')")
        assert await visit.page.inner_text("#call-label") == "Start"
        await visit.ask(by="socket")
        assert "small island" in await visit.answer()
        assert await visit.page.is_hidden("#problem")
    assert visit.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_serious_before_and_during_a_call(open_page: OpenPage, scheme: str) -> None:
    async with open_page(color_scheme=scheme, reduced_motion="reduce", bypass_csp=True) as visit:
        assert await _serious(visit.page) == []
        await visit.ask(by="socket")
        await visit.answer()
        assert await _serious(visit.page) == []


async def _serious(page: Page) -> list[str]:
    await page.evaluate(AXE.read_text("utf-8") + "; null")
    found = await page.evaluate("async () => (await axe.run()).violations")
    return [f"{it['id']}: {it['nodes'][0]['target']}" for it in found if it["impact"] in ("serious", "critical")]


async def test_a_microphone_that_is_refused_is_told_with_a_remedy(open_page: OpenPage) -> None:
    async with open_page(refused=True) as visit:
        await visit.page.click("#call")
        await visit.page.wait_for_selector("#problem:not([hidden])")
        assert "Allow it for this page" in await visit.page.inner_text("#problem")
        assert await visit.page.inner_text("#call-label") == "Start"
    assert visit.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_fits_a_phone_in_both_themes(open_page: OpenPage, scheme: str) -> None:
    async with open_page(color_scheme=scheme, viewport={"width": 360, "height": 740}) as visit:
        assert await visit.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert visit.complaints == []
