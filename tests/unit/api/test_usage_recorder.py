"""What a front door that is killed has not written yet: a moment, which is bounded here."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from app.api.usage_recorder import INTERVAL_S, UsageMeter, UsageRecorder
from app.platform.database import utc_now
from app.platform.usage import UsageRecord, UsageStore

pytestmark = pytest.mark.anyio

FRAME_S = 0.085


class Books(UsageStore):
    """What has been written, by id; a killed front door leaves no more than that."""

    def __init__(self) -> None:
        self.written: dict[str, UsageRecord] = {}

    async def write(self, records: Iterable[UsageRecord]) -> None:
        self.written |= {record.id: record for record in records}


def begun() -> UsageRecord:
    return UsageRecord("ses-1", utc_now(), "default", None, "slt", "speech", characters=0, audio_s=0.0)


async def test_text_is_written_with_the_next_batch_and_audio_a_second_later_at_most() -> None:
    books, now_s = Books(), 0.0
    recorder = UsageRecorder(books)
    meter = UsageMeter(recorder, begun(), lambda: now_s)
    meter.add(characters=12)
    heard_s, last_batch_s = 0.0, 0.0
    while heard_s < 10:
        if now_s - last_batch_s >= INTERVAL_S:
            await recorder.write()
            last_batch_s = now_s
            assert books.written["ses-1"].characters == 12
            assert heard_s - books.written["ses-1"].audio_s <= 1.0 + INTERVAL_S + FRAME_S
        meter.add(audio_s=FRAME_S)
        heard_s += FRAME_S
        now_s += FRAME_S  # as it is heard
    meter.close()
    await recorder.write()
    assert round(books.written["ses-1"].audio_s, 3) == round(heard_s, 3)


async def test_a_session_that_was_sent_no_text_is_in_no_book() -> None:
    books = Books()
    recorder = UsageRecorder(books)
    UsageMeter(recorder, begun(), lambda: 0.0).close()
    await recorder.write()
    assert books.written == {}
