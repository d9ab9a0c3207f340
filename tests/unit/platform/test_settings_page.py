from __future__ import annotations

import re

from app.platform.settings import Settings
from app.platform.settings_page import PAGE, reference

HERE = str(PAGE.parents[2])


def test_the_page_in_the_repository_is_what_the_settings_say() -> None:
    assert PAGE.read_text("utf-8") == reference(), "run `python -m app.platform.settings_page` and commit the result"


def test_every_setting_is_described() -> None:
    page = reference()
    assert all(f"CARILLON_{name.upper()}" in page for name in Settings.model_fields)
    assert re.findall(r"^\| (`\S+`) .*\|\s*\|$", page, re.MULTILINE) == []


def test_the_page_shows_no_secret_and_no_path_of_the_machine_that_writes_it() -> None:
    page = reference()
    assert "| `CARILLON_KEY_PEPPER` | secret | not shown |" in page
    assert HERE not in page
