"""The sessions of `carillon demo`, at a front door whose workers sound without an engine."""

from __future__ import annotations

import io

import pytest

from app.cli.demo_sessions import side_by_side
from app.errors import UnknownVoice
from tests.api.conftest import House

pytestmark = pytest.mark.anyio


async def test_both_voices_are_heard_and_it_is_said_whether_at_once(house: House) -> None:
    out = io.StringIO()
    async with house.worker() as worker:
        await side_by_side(house.url, house.key, ("slt", "rms"), out)
        assert [assign.voice.name for assign in worker.assigned] == ["slt", "rms"]
    assert out.getvalue().startswith("two sessions")
    assert " 0.0 s" not in out.getvalue().partition(": ")[2]


@pytest.mark.parametrize("voices", [("nobody", "slt"), ("slt", "nobody")])
async def test_a_session_that_fails_is_the_error_itself(house: House, voices: tuple[str, str]) -> None:
    async with house.worker():
        with pytest.raises(UnknownVoice):
            await side_by_side(house.url, house.key, voices, io.StringIO())
