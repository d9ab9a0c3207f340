"""A voice in the making: recordings, consent, a training that is watched, and what becomes of the voice."""

from __future__ import annotations

import io
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, expect

from tests.support.browser import Visit, hearing, visit
from tests.support.deadlines import LONG_HANG_S
from tests.support.recordings import recording
from tests.support.running_fleet import RunningFleet
from tests.support.speech import spoken_consent

RECORDINGS = sorted((Path(__file__).parents[2] / "training" / "demo" / "recordings").glob("*.ogg"))[:12]
MANIFEST = RECORDINGS[0].parent / "manifest.csv"

PLAYED_S = """async () => {
  const sound = document.querySelector("#report audio");
  while (sound.paused || !sound.currentTime) await new Promise(requestAnimationFrame);
  return sound.currentTime;
}"""


def new_voice(console: Visit, name: str) -> None:
    page = console.go("/voices")
    page.locator("#new-voice").click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Make it").click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()


def test_recordings_are_judged_one_by_one_and_the_report_says_what_is_missing(console: Visit, tmp_path: Path) -> None:
    new_voice(console, "Heron")
    page = console.page
    words = tmp_path / "words.wav"
    words.write_bytes(b"I am no audio.\n" * 99)
    page.locator("#recording-files").set_input_files([*RECORDINGS[:3], MANIFEST, words])
    expect(page.locator("#recordings")).to_contain_text("3 recordings")
    expect(page.locator(".uploads .bad")).to_contain_text("is a text file")
    expect(page.locator(".recordings input").first).not_to_have_value("")

    expect(page.locator("#make")).to_be_disabled()
    confirm_consent(console)
    page.locator("#make").click()
    expect(page.locator("#making")).to_contain_text("usable speech")
    report = page.locator("#report")
    expect(report.locator(".report > li")).to_have_count(3)
    report.locator("summary", has_text="mended").first.click()
    expect(report.locator("canvas")).to_be_visible()
    page.get_by_role("button", name="As trimmed").first.click()
    assert page.evaluate(PLAYED_S) > 0.1

    page.locator("#delete-voice").click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_role("heading", name="Voices")).to_be_visible()
    assert console.refusals == [f"400 {refused}" for refused in {one.split()[1] for one in console.refusals}]


def confirm_consent(console: Visit) -> None:
    page = console.page
    page.get_by_text("It is kept elsewhere").click()
    page.get_by_label("Where, and whose it is").fill("A synthetic speaker; nobody's voice")
    page.get_by_role("button", name="Confirm it").click()
    expect(page.get_by_text("The speaker has consented")).to_be_visible()


@pytest.mark.slow
def test_a_training_is_watched_from_the_first_step_to_a_voice_that_speaks(console: Visit) -> None:
    new_voice(console, "Ada")
    page = console.page
    page.locator("#recording-files").set_input_files([*RECORDINGS, MANIFEST])
    expect(page.locator("#recordings")).to_contain_text(f"{len(RECORDINGS)} recordings")
    confirm_consent(console)
    page.get_by_label("Epochs").select_option("4")
    page.locator("#make").click()
    making = page.locator("#making")
    # A fast machine may be through with it before a second figure came, and a line needs two.
    curve, over = making.locator("polyline.seen[points*=' ']"), making.locator(".notice.good")
    expect(curve.or_(over).first).to_be_visible(timeout=1000 * LONG_HANG_S)
    if not over.is_visible():
        expect(making.locator(".figures").or_(over).first).to_contain_text(re.compile("of 4|Version 1"))
    page.reload()  # the curve stays
    expect(making.locator(".steps .done").first.or_(making.locator(".notice.good"))).to_be_visible()

    expect(making.locator(".notice.good")).to_contain_text("Version 1 passed the gate", timeout=1000 * LONG_HANG_S)
    expect(making.locator("table")).to_contain_text("Words misheard")
    page.locator("#compare").click()
    expect(page.locator(".track-row")).to_have_count(3)

    words = page.locator("#pronunciations")
    words.get_by_label("As it is written").fill("Nguyen")
    words.get_by_label("As it is said").fill("win")
    words.get_by_role("button", name="Keep it").click()
    expect(words.locator("li")).to_have_text(re.compile("Nguyen.*win"))
    words.get_by_role("button", name="Forget Nguyen").click()
    expect(words.locator("li")).to_have_count(0)

    page.get_by_role("link", name="Speak with it").click()
    page.locator("#text").fill("The bell rang.")
    page.locator("#speak-button").click()
    expect(page.locator(".status")).to_contain_text("s of speech")
    assert not console.refusals


def test_the_speaker_reads_the_issued_phrase_into_the_microphone(
    chromium: Browser, fleet: RunningFleet, tmp_path: Path
) -> None:
    voice = httpx.post(
        f"{fleet.address}/v1/voices", headers=fleet.headers, json={"name": "Lark", "language": "en"}, trust_env=False
    ).json()
    number = "".join(re.findall(r"\d", voice["consent_phrase"]))
    microphone = tmp_path / "microphone.wav"
    samples, rate_hz = soundfile.read(io.BytesIO(spoken_consent(number)), dtype="float32")
    pause = np.zeros(rate_hz * 2, np.float32)
    read = np.concatenate([pause, 0.5 * samples / np.abs(samples).max(), pause])
    soundfile.write(microphone, read, rate_hz)
    browser = hearing(chromium, microphone)
    try:
        with visit(browser, fleet) as visitor:
            page = visitor.go(f"/voices/{voice['id']}")
            expect(page.locator("#consent .prompt")).to_have_text(voice["consent_phrase"])
            page.locator("#record-consent").click()
            expect(page.locator("#record-consent")).to_have_text("Stop and send")
            later = "|".join(f"0:{second:02}" for second in range(round(len(read) / rate_hz), 60))
            expect(page.locator("#consent-time")).to_have_text(re.compile(later))
            page.locator("#record-consent").click()
            expect(page.locator("#consent .notice.good")).to_contain_text("its number were heard")
    finally:
        browser.close()


def test_a_voice_is_found_among_a_thousand_of_ones_own(chromium: Browser, fleet: RunningFleet) -> None:
    kept = {"description": "", "language": "en", "state": "ready", "version": 1, "sample_count": 9, "sample_s": 900}
    made = [
        {**kept, "id": f"v{n}", "name": f"speaker {n:04}", "created_at": "2026-11-03T09:00:00Z"} for n in range(1000)
    ]
    with visit(chromium, fleet) as visitor:
        visitor.page.route("**/v1/voices", lambda route: route.fulfill(json={"data": made, "has_more": False}))
        page = visitor.go("/voices")
        expect(page.locator("a.voice-card")).to_have_count(60)
        expect(page.get_by_text("940 more voices")).to_be_visible()
        page.get_by_role("searchbox").fill("0777")
        expect(page.locator("a.voice-card")).to_have_count(1)
        assert visitor.serious() == []


def test_a_sentence_is_read_from_the_sheet_into_the_microphone(console: Visit) -> None:
    new_voice(console, "Reader")
    page = console.page
    page.locator("#record").click()
    sheet = page.locator(".sheet")
    first = sheet.locator(".prompt").inner_text()
    sheet.get_by_role("button", name="Record").click()
    expect(sheet.get_by_role("button", name="Stop")).to_be_visible()
    # Chromium's fake microphone beeps once a second.
    expect(sheet.locator(".level > span")).not_to_have_css("width", "0px")
    page.wait_for_timeout(1500)
    sheet.get_by_role("button", name="Stop").click()
    sheet.get_by_role("button", name="Keep it, next").click()
    expect(page.locator("#recordings")).to_contain_text("1 recording,")
    expect(page.locator(".recordings input").first).to_have_value(first)


def test_a_microphone_that_is_refused_is_told_with_a_way_out(console: Visit) -> None:
    console.page.add_init_script(
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotAllowedError') }"
    )
    new_voice(console, "Shy")
    console.page.locator("#record").click()
    console.page.locator(".sheet").get_by_role("button", name="Record").click()
    expect(console.page.get_by_role("alert")).to_contain_text("Allow it beside the address, or upload a recording")


def test_a_consent_with_other_words_is_refused_with_what_was_heard(console: Visit, tmp_path: Path) -> None:
    new_voice(console, "Mute")
    beep = tmp_path / "beep.wav"
    beep.write_bytes(recording(3.0))
    console.page.locator("#consent-file").set_input_files(beep)
    expect(console.page.locator("#consent").get_by_role("alert")).to_be_visible()
