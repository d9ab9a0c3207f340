"""The places of a worker: what a background session yields to, and which one goes."""

from __future__ import annotations

import pytest

from app.errors import InvalidRequest, Overloaded
from app.speech.protocol import Assign, AssignedPace
from app.speech.voices import AdapterVersion, Voice
from workers.places import Places


def assign(session: str, adapter: str | None = None, *, pace: AssignedPace = "realtime") -> Assign:
    version = adapter and AdapterVersion(
        voice_id=adapter, version=1, lora_id=1, uri=f"s3://voices/{adapter}/", sha256={}, rank=16
    )
    voice = Voice(id=adapter or "wren", name=adapter or "wren", model="fake", adapter=version or None)
    return Assign(session=session, epoch=1, voice=voice, pace=pace)


def places(*assigned: Assign, capacity: int = 2, max_adapters: int = 2) -> Places:
    made = Places("w1", capacity=capacity, max_adapters=max_adapters)
    for one in assigned:
        made.take(one)
    return made


def test_the_youngest_background_session_goes_for_a_place() -> None:
    made = places(assign("old", pace="background"), assign("young", pace="background"))
    _, dismissed = made.take(assign("live"))
    assert [place.assign.session for place in dismissed] == ["young"]
    assert dismissed[0].dismissed.is_set()
    assert made.sessions == ("old", "live")


def test_for_a_slot_goes_the_adapter_that_only_background_sessions_hold() -> None:
    made = places(assign("shared", "a", pace="background"), assign("alone", "b", pace="background"), capacity=4)
    made.take(assign("live", "a"))
    _, dismissed = made.take(assign("other", "c"))
    assert [place.assign.session for place in dismissed] == ["alone"]


def test_only_background_sessions_yield() -> None:
    made = places(assign("s1"), assign("s2", pace="background"))
    made.check_place(assign("s3"))
    with pytest.raises(Overloaded, match="speaks with 2 already"):
        made.check_place(assign("s3", pace="background"))
    with pytest.raises(InvalidRequest, match="open here already"):
        made.check_place(assign("s1"))


def test_leaving_a_place_that_was_taken_again_changes_nothing() -> None:
    made = places()
    place, _ = made.take(assign("s1", pace="background"))
    made.dismiss_background()
    made.take(assign("s1"))
    made.leave(place)
    assert made.sessions == ("s1",)
