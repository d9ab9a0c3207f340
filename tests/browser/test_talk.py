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

from tests.support.deadlines import HANG_S
from tests.support.running_fleet import RunningFleet
from tests.support.talk_peer import MICROPHONE_HZ, question

if TYPE_CHECKING:
    from playwright.async_api import ConsoleMessage, Page

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
            page = await (await browser.new_context(**context)).new_page()
            page.set_default_timeout(HANG_S * 1000)
            await page.add_init_script(KEEP_PEERS)
            await page.add_init_script(f"sessionStorage.setItem('carillon-key', '{fleet.key}')")
            visit = Visit(page)
            await page.goto(f"{fleet.address}/talk")
            yield visit
            await browser.close()

    return opened


@pytest.mark.parametrize("transport", ["webrtc", "socket"])
async def test_a_question_is_answered_and_its_budget_shown(
    open_page: OpenPage, fleet: RunningFleet, transport: str
) -> None:
    async with open_page() as visit:
        page = visit.page
        await page.select_option("#transport", transport)
        await page.click("#call")
        await page.wait_for_selector("#transcript .bot")
        await page.wait_for_selector("#verdict:has-text('Turn 1')")
        assert "There was once a small island" in await page.inner_text("#transcript .bot")
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
