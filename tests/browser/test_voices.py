"""A voice in the making, up to where the recipe says that there is too little to train on."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests.support.browser import Visit
from tests.support.recordings import recording

RECORDINGS = sorted((Path(__file__).parents[2] / "training" / "demo" / "recordings").glob("*.ogg"))[:3]
MANIFEST = RECORDINGS[0].parent / "manifest.csv"


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
    page.locator("#recording-files").set_input_files([*RECORDINGS, MANIFEST, words])
    expect(page.locator("#recordings")).to_contain_text("3 recordings")
    expect(page.locator(".uploads .bad")).to_contain_text("is a text file")
    expect(page.locator(".recordings input").first).not_to_have_value("")

    expect(page.locator("#make")).to_be_disabled()
    page.get_by_text("It is kept elsewhere").click()
    page.get_by_label("Where, and whose it is").fill("A synthetic speaker; nobody's voice")
    page.get_by_role("button", name="Confirm it").click()
    expect(page.get_by_text("The speaker has consented")).to_be_visible()

    page.locator("#make").click()
    expect(page.locator("#making")).to_contain_text("usable speech")
    report = page.locator("#report")
    expect(report.locator(".report > li")).to_have_count(3)
    report.locator("summary").first.click()
    expect(report.locator("canvas")).to_be_visible()

    page.locator("#delete-voice").click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_role("heading", name="Voices")).to_be_visible()
    assert console.refusals == [f"400 {refused}" for refused in {one.split()[1] for one in console.refusals}]


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
