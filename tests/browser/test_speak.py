"""Speaking: with one click, as it is typed, stopped, through a broken connection, and in one of a thousand voices."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Browser, WebSocketRoute, expect

from tests.support.browser import Visit, visit, wav_samples
from tests.support.running_fleet import RunningFleet

SENTENCE = "The bell rang over the lake, and the boats came home."


def downloaded(console: Visit, tmp_path: Path) -> bytes:
    with console.page.expect_download() as download:
        console.page.locator("#download").click()
    path = tmp_path / "said.wav"
    download.value.save_as(path)
    return wav_samples(path)


def test_a_first_sentence_is_heard_with_one_click(console: Visit, tmp_path: Path) -> None:
    page = console.page
    page.locator("#speak-button").click()
    expect(page.locator(".status")).to_contain_text("s of speech")
    said = downloaded(console, tmp_path)
    assert len(said) > 24_000 and any(said)
    assert said == bytes(console.pcm)
    expect(page.locator(".transcript .word.said").first).to_be_visible()
    assert page.locator(".waterfall dd").all_inner_texts().count("–") <= 1
    expect(page.locator(".history li")).to_have_count(1)


def test_what_is_typed_is_spoken_before_it_is_finished(console: Visit) -> None:
    page = console.page
    page.get_by_label("Speak while I type").check()
    page.locator("#text").press_sequentially("Good morning. ", delay=20)
    expect(page.locator(".transcript .word.said").first).to_be_visible()
    page.locator("#text").press_sequentially("It is still early.", delay=20)
    page.locator("#speak-button").click()
    expect(page.locator(".status")).to_contain_text("s of speech")
    assert page.locator(".transcript").inner_text() == "Good morning. It is still early."


def test_stop_is_silence_and_keeps_what_was_heard(console: Visit, tmp_path: Path) -> None:
    page = console.page
    page.locator("#text").fill(" ".join([SENTENCE] * 8))
    page.locator("#speak-button").click()
    expect(page.locator(".transcript .word.now").first).to_be_visible()
    page.locator("#stop").click()
    expect(page.locator(".status")).to_contain_text("stopped")
    said = downloaded(console, tmp_path)
    assert said and bytes(console.pcm).startswith(said)
    assert page.locator(".transcript .word.said").count() < page.locator(".transcript .word").count() / 2


def test_two_tabs_speak_at_once(console: Visit) -> None:
    tabs = [console.page, console.another_tab()]
    tabs[1].goto(console.origin)
    for tab, text in zip(tabs, ("The bell rang.", "The boats came home."), strict=True):
        tab.locator("#text").fill(text)
        tab.locator("#speak-button").click()
    for tab, text in zip(tabs, ("The bell rang.", "The boats came home."), strict=True):
        expect(tab.locator(".status")).to_contain_text("s of speech")
        assert tab.locator(".history-text").all_inner_texts() == [text]


def test_a_broken_connection_is_taken_up_at_the_very_sample(console: Visit, tmp_path: Path) -> None:
    page, done, broken = console.page, [], list[WebSocketRoute]()

    def between(route: WebSocketRoute) -> None:
        server = route.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            if route in broken:  # what was on its way is lost
                return
            if isinstance(message, bytes) and not broken:
                broken.append(route)
                server.close()
                route.close(code=1012)
                return
            if isinstance(message, str) and json.loads(message)["type"] == "done":
                done.append(json.loads(message))
            route.send(message)

        server.on_message(pass_on)

    page.route_web_socket("**/v1/sessions", between)
    page.locator("#text").fill(SENTENCE)
    page.locator("#speak-button").click()
    expect(page.locator(".status")).to_contain_text("s of speech")
    assert broken
    assert len(downloaded(console, tmp_path)) == 2 * done[0]["samples"]


def test_a_voice_is_found_among_a_thousand_with_the_keyboard(chromium: Browser, fleet: RunningFleet) -> None:
    real = {"model": "standin", "language": "en", "kind": "clone"}
    voices = [{**real, "id": f"v{number}", "name": f"speaker {number:04}"} for number in range(1000)]
    with visit(chromium, fleet) as visitor:
        page = visitor.page
        page.route("**/v1/audio/voices", lambda route: route.fulfill(json={"voices": voices}))
        page.reload()
        box = page.get_by_role("combobox", name="Voice")
        box.click()
        expect(page.get_by_role("option")).to_have_count(60)
        expect(page.locator(".picker-more")).to_contain_text("940 more voices")
        box.fill("speaker 0777")
        expect(page.get_by_role("option")).to_have_count(1)
        box.press("Enter")
        expect(box).to_have_value("speaker 0777")
        assert '"speaker 0777"' in page.locator(".snippet").inner_text()


def test_a_refusal_is_told_in_words(console: Visit) -> None:
    page = console.page
    gone = {"voices": [{"id": "x", "name": "nobody", "model": "standin", "language": "en", "kind": "clone"}]}
    page.route("**/v1/audio/voices", lambda route: route.fulfill(json=gone))
    page.reload()
    page.locator("#speak-button").click()
    expect(page.get_by_role("alert")).to_contain_text("nobody")
