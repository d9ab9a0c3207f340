"""The talk's page: a fake microphone plays a recorded question, and the answer is heard in the page."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from tests.support.browser import Visit, hearing, visit
from tests.support.running_fleet import RunningFleet
from tests.support.talk_peer import MICROPHONE_HZ, question

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

LISTEN = """
const AUDIBLE = 330 / 32768; // as the front door counts it: -40 dBFS
const loud = (sample) => Math.abs(sample) >= AUDIBLE;
window.heard = [];
window.asked = [];
const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = (wanted) => (window.asked.push(wanted), ask(wanted));
const connect = AudioNode.prototype.connect;
window.AudioContext = class extends AudioContext {
  constructor(...given) {
    super(...given);
    this.ears = new ChannelMergerNode(this, { numberOfInputs: 2 });
    const node = this.createScriptProcessor(1024, 2, 1); // a worklet's module would have to come from this origin
    node.onaudioprocess = ({ inputBuffer, playbackTime }) => {
      for (const channel of [0, 1]) {
        const samples = inputBuffer.getChannelData(channel);
        const at = (sample) => playbackTime * 1000 + (sample * 1000) / this.sampleRate;
        const first = samples.findIndex(loud);
        if (first >= 0) window.heard.push({ channel, first: at(first), last: at(samples.findLastIndex(loud)) });
      }
    };
    connect.call(this.ears, node);
    connect.call(node, this.destination);
  }
  createMediaStreamSource(stream) {
    const source = super.createMediaStreamSource(stream);
    if (!this.listens) source.connect(this.ears, 0, 0);
    this.listens = true;
    return source;
  }
};
AudioNode.prototype.connect = function (to, ...rest) {
  if (to === this.context.destination) connect.call(this, this.context.ears, 0, 1);
  return connect.call(this, to, ...rest);
};
"""
"""When the page was audible is kept, in ms on one clock: the microphone is channel 0, the answer 1; and what it asked
the browser for."""

WAY_MS = 1000
"""What shown and measured may differ by on a busy machine: the way from the microphone and to the ear."""

Open = Callable[..., AbstractContextManager[Visit]]


@pytest.fixture
def open_talk(chromium: Browser, fleet: RunningFleet, tmp_path: Path) -> Open:
    """Open the page, signed in, in a browser whose microphone asks a question after some seconds, or is refused."""
    heard = tmp_path / "microphone.wav"
    silence = np.zeros(8 * MICROPHONE_HZ, np.int16)
    soundfile.write(heard, np.concatenate([silence, question("story"), *[silence] * 10]), MICROPHONE_HZ)

    @contextmanager
    def opened(*, refused: bool = False, **context: Any) -> Iterator[Visit]:
        browser = hearing(chromium, heard, refused=refused)
        try:
            with visit(browser, fleet, **context) as visitor:
                visitor.page.context.add_init_script(KEEP_PEERS)
                visitor.go("/talk")
                yield visitor
        finally:
            browser.close()

    return opened


def ask(page: Page, *, by: str) -> None:
    """Start a conversation over `webrtc` or `socket`, in which the microphone asks for a story."""
    page.locator("#transport").select_option(by)
    page.locator("#call").click()


def answer(page: Page) -> str:
    """What the bot has said when its first turn is over."""
    expect(page.locator("#verdict")).to_contain_text("Turn 1")
    return page.locator("#transcript .bot").last.inner_text()


@pytest.mark.parametrize("transport", ["webrtc", "socket"])
def test_a_question_is_answered_and_its_budget_shown(open_talk: Open, transport: str) -> None:
    with open_talk() as visitor:
        page = visitor.page
        ask(page, by=transport)
        assert "There was once a small island" in answer(page)
        expect(page.locator("#who")).to_contain_text("scripted host")
        values = page.locator("#percentiles tbody tr td:nth-of-type(1)").all_inner_texts()
        assert all(cell.isdecimal() for cell in values[:6])
        if transport == "webrtc":
            page.wait_for_function(f"async () => await ({ENERGY})() > 0")
        page.locator("#call").click()
        expect(page.locator("#call-label")).to_have_text("Start")


def test_the_budget_that_is_shown_is_what_a_listener_in_the_page_measures(open_talk: Open) -> None:
    with open_talk() as visitor:
        page = visitor.page
        page.add_init_script(LISTEN)
        page.reload()
        ask(page, by="socket")
        answer(page)
        shown_ms = int(page.locator("#percentiles tbody tr", has_text="heard").locator("td").first.inner_text())
        page.locator("#call").click()
        heard = page.evaluate("() => window.heard")
        began = min(sound["first"] for sound in heard if sound["channel"] == 1)
        ended = max(sound["last"] for sound in heard if sound["channel"] == 0 and sound["last"] < began)
        measured_ms = began - ended
        print(f"shown {shown_ms} ms, measured {measured_ms:.0f} ms")
        visitor.faults[:] = [
            fault for fault in visitor.faults if "ScriptProcessorNode" not in fault
        ]  # the listener's own
        assert abs(measured_ms - shown_ms) < WAY_MS
        assert [sorted(wanted) for wanted in page.evaluate("() => window.asked")] == [["audio"]]


def test_the_turns_are_exported_after_the_call_has_ended(open_talk: Open, tmp_path: Path) -> None:
    with open_talk() as visitor:
        page = visitor.page
        ask(page, by="socket")
        answer(page)
        page.locator("#call").click()
        shown = page.locator("#percentiles tbody tr", has_text="heard").locator("td").first.inner_text()
        with page.expect_download() as download:
            page.locator("#export-csv").click()
        download.value.save_as(tmp_path / "turns.csv")
        [turn] = csv.DictReader((tmp_path / "turns.csv").read_text().splitlines())
        assert turn["turn"] == "1"
        assert abs(float(turn["heard_ms"]) - int(shown)) <= 0.5  # as it is rounded on the page


def test_two_tabs_have_a_conversation_each(open_talk: Open) -> None:
    with open_talk() as visitor:
        first, second = visitor.page, visitor.another_tab()
        second.goto(first.url)
        ask(first, by="socket")
        ask(second, by="webrtc")
        assert "small island" in answer(first)
        assert "small island" in answer(second)


def test_a_lost_connection_is_told_and_the_next_call_is_answered(open_talk: Open) -> None:
    with open_talk() as visitor:
        page, calls = visitor.page, list[WebSocketRoute]()

        def connect(route: WebSocketRoute) -> None:
            calls.append(route)
            route.connect_to_server()

        page.route_web_socket("**/talk/audio", connect)
        ask(page, by="socket")
        expect(page.locator("#call-label")).to_have_text("Hang up")
        calls[0].close(code=1012)
        expect(page.locator("#problem")).to_contain_text("connection was lost")
        expect(page.locator("#call-label")).to_have_text("Start")
        ask(page, by="socket")
        assert "small island" in answer(page)
        expect(page.locator("#problem")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_before_and_during_a_call(open_talk: Open, scheme: str) -> None:
    with open_talk(scheme=scheme) as visitor:
        assert visitor.serious() == []
        ask(visitor.page, by="socket")
        answer(visitor.page)
        assert visitor.serious() == []


def test_a_microphone_that_is_refused_is_told_with_a_remedy(open_talk: Open) -> None:
    with open_talk(refused=True) as visitor:
        visitor.page.locator("#call").click()
        expect(visitor.page.locator("#problem")).to_contain_text("Allow it for this page")
        expect(visitor.page.locator("#call-label")).to_have_text("Start")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_in_both_themes(open_talk: Open, scheme: str) -> None:
    with open_talk(scheme=scheme, phone=True) as visitor:
        assert visitor.overflow() <= 0
