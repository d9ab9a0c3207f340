"""A book from its upload to the player, and one sentence of it spoken again."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests.support.browser import Visit
from tests.support.deadlines import LONG_HANG_S

BOOK = """# The Tower

The bell hung still. Then the bell called Robin, and Robin came.

[robin]

Who is there?

# The Lake

Nobody answered. The ice was thin.
"""


def test_a_book_is_cast_heard_read_and_mended(console: Visit, tmp_path: Path) -> None:
    page = console.go("/narrations/new")
    book = tmp_path / "tower.md"
    book.write_text(BOOK, "utf-8")
    page.locator("#book").set_input_files(book)
    expect(page.locator(".chapter-list .check")).to_have_count(2)
    page.get_by_role("combobox", name="Voice of robin").click()
    page.get_by_role("option", name="rook").click()
    words = page.locator("#words")
    with page.expect_response("**/v1/audio/speech") as spoken:
        words.get_by_label("Hear Robin").click()
    assert spoken.value.ok
    words.get_by_label("Robin is said").fill("Robbin")
    page.locator("#hear-first").click()
    expect(page.locator("#hear-first")).to_contain_text("Stop")
    expect(page.locator("#hear-first")).to_contain_text("Hear it first")
    assert console.pcm
    page.locator(".chapter-list input").nth(1).uncheck()
    page.locator("#narrate").click()

    expect(page.locator("#player")).to_be_visible(timeout=1000 * LONG_HANG_S)
    lines = page.locator(".captions .line")
    assert "Nobody answered" not in page.locator(".captions").inner_text()
    expect(page.locator(".captions h3")).to_have_text("The Tower")
    expect(page.locator(".captions .speaker")).to_have_text("robin")
    expect(page.locator("#player")).to_contain_text("The Tower")
    expect(page.get_by_label("Progress")).to_contain_text("Cost")
    page.get_by_role("button", name="Play", exact=True).click()
    expect(page.locator(".captions .word.now").first).to_be_visible()
    lines.nth(1).click()
    page.get_by_role("button", name="Speak it again").click()
    expect(page.get_by_text("It is spoken again")).to_be_visible()
    expect(page.locator("h1 + .chip")).to_have_text("finished", timeout=1000 * LONG_HANG_S)
    assert not console.refusals


def test_a_book_of_five_megabytes_is_planned_and_read_while_the_page_goes_on(console: Visit, tmp_path: Path) -> None:
    page = console.go("/narrations/new")
    book = tmp_path / "long.md"
    with book.open("w", encoding="utf-8") as file:
        file.write("# The Gate\n\nThe gate was open.\n\n")
        chapter = 1
        while file.tell() < 5_000_000:
            chapter += 1
            file.write(
                f"# Chapter {chapter}\n\n" + ("The snow fell on the hills, and nobody came by. " * 6 + "\n\n") * 60
            )
    page.locator("#book").set_input_files(book)
    expect(page.get_by_text("long.md is taken apart")).to_be_visible()
    page.get_by_text("Or paste a text").click()
    expect(page.get_by_label("Text", exact=True)).to_be_visible()
    expect(page.locator(".chapter-list .check")).to_have_count(chapter, timeout=1000 * LONG_HANG_S)
    expect(page.get_by_text(f"{chapter} chapters, about")).to_be_visible()
    page.get_by_role("button", name="None", exact=True).click()
    page.locator(".chapter-list input").first.check()
    page.locator("#narrate").click()
    expect(page.locator("#player")).to_be_visible(timeout=1000 * LONG_HANG_S)
    expect(page.locator(".captions")).to_contain_text("The gate was open.")


def test_a_lost_front_door_is_told_while_a_book_is_handed_in(console: Visit, tmp_path: Path) -> None:
    page = console.go("/narrations/new")
    book = tmp_path / "tower.md"
    book.write_text(BOOK, "utf-8")
    page.route("**/v1/narrations/preview", lambda route: route.abort())
    page.locator("#book").set_input_files(book)
    expect(page.get_by_role("alert")).to_contain_text("front door does not answer")
    page.unroute("**/v1/narrations/preview")
    page.locator("#book").set_input_files(book)
    expect(page.locator(".chapter-list .check")).to_have_count(2)


def test_a_file_that_is_no_book_is_refused_with_the_reason(console: Visit, tmp_path: Path) -> None:
    page = console.go("/narrations/new")
    picture = tmp_path / "picture.epub"
    picture.write_bytes(b"PK\x03\x04 and then nothing")
    page.locator("#book").set_input_files(picture)
    expect(page.get_by_role("alert")).to_contain_text("picture.epub")
