"""`python -m tests.browser.screenshots`: pictures of the console of the fleet that runs here, for the repository.

It shows what the fleet has: its newest voice and narration, if there are. Each picture is less than MAX_BYTES.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page

from app.cli.target import open_client
from tests.support.browser import running_chromium

TARGET = Path(__file__).parents[2] / "compose" / "screenshots"
MAX_BYTES = 100_000
COLOURS = (128, 64, 32)
PATIENCE_MS = 60_000
SIZES = {"": {"width": 1280, "height": 860}, "-phone": {"width": 390, "height": 844}}


def main() -> None:
    TARGET.mkdir(exist_ok=True)
    with open_client(None, None) as client, running_chromium() as browser:
        for scheme in ("light", "dark"):
            for suffix, size in SIZES.items():
                page = _opened(browser, client.keys.console_link(), scheme, size)
                for name, draw in PAGES.items():
                    draw(page)
                    _save(page, f"{name}{suffix}{'-dark' if scheme == 'dark' else ''}.png")
                page.context.close()


def _opened(browser: Browser, link: str, scheme: str, size: dict[str, int]) -> Page:
    context = browser.new_context(color_scheme=scheme, viewport=size, reduced_motion="reduce")  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(link)
    return page


def _speak(page: Page) -> None:
    page.locator("#text").fill("The bell rang over the lake, and one by one the boats came home.")
    page.locator("#speak-button").click()
    page.get_by_text("s of speech").wait_for()


def _voice(page: Page) -> None:
    _newest(page, "Voices", "#recordings")


def _narration(page: Page) -> None:
    _newest(page, "Narrations", ".figures")
    if page.locator(".captions .line").count():
        page.locator(".captions .line").nth(1).click()


def _newest(page: Page, name: str, mark: str) -> None:
    page.get_by_role("link", name=name, exact=True).click()
    page.locator("a.voice-card, .empty").first.wait_for()
    if page.locator("a.voice-card").count():
        page.locator("a.voice-card").first.click()
        page.locator(mark).first.wait_for()
        page.wait_for_timeout(1500)  # for the waves and the player that come after the page


def _fleet(page: Page) -> None:
    page.get_by_role("link", name="Fleet", exact=True).click()
    page.locator(".ring-worker").first.wait_for()
    page.locator(".tile dd.number", has_text="%").wait_for()


def _talk(page: Page) -> None:
    page.get_by_role("link", name="Talk", exact=True).click()
    page.locator("#voice option:not([value=''])").first.wait_for(state="attached")


PAGES = {"speak": _speak, "voice": _voice, "narration": _narration, "fleet": _fleet, "talk": _talk}


def _save(page: Page, name: str) -> None:
    """Of as many colours as fit."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    data = io.BytesIO()
    for colours in COLOURS:
        data = io.BytesIO()
        picture.quantize(colours).save(data, "PNG", optimize=True)
        if data.tell() < MAX_BYTES:
            break
    (TARGET / name).write_bytes(data.getvalue())
    sys.stdout.write(f"{name}: {data.tell() / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
