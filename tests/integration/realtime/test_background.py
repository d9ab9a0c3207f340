"""The speaker against a registry, a real connection, and workers that speak tones."""

from __future__ import annotations

import asyncio

import pytest

from app.errors import (
    AdapterUnavailable,
    CarillonError,
    DeadlineExceeded,
    EngineFailed,
    InvalidRequest,
    Overloaded,
    SpeechFailed,
    WorkerLost,
)
from app.fleet.registry import Registry
from app.platform.settings import SessionSettings, Settings
from app.realtime.background import MAX_BREAKDOWNS, VOICES_AT_HAND, BackgroundSpeech, Spoken, open_background_speech
from app.speech.protocol import AudioFrame, Eos, Segment, Text
from app.speech.voices import Voice
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import SAMPLES_PER_CHARACTER, running_worker
from training.synthesis import speak_each

pytestmark = pytest.mark.anyio

UNQUEUED = SessionSettings(queue_timeout_s=0)
HURRIED = {"session": SessionSettings(queue_timeout_s=0.3), "fleet_refresh_s": 0.05}
SLT = Voice(id="slt", name="slt", model="standin")
TEXT = "A bell rings."


class Clock:
    """Time that passes in sleep, and what happens then."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.sleeps = 0

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.sleeps += 1
        await asyncio.sleep(0)


async def test_a_text_comes_back_whole_and_the_place_is_given_back(settings: Settings, registry: Registry) -> None:
    async with running_worker(registry, settings) as worker, open_background_speech(settings) as speaker:
        spoken = await speaker.speak(SLT, TEXT)
        assert len(spoken.samples) == len(TEXT) * SAMPLES_PER_CHARACTER
        assert (spoken.complete, spoken.chunks, spoken.sample_rate_hz) == (True, 1, 24_000)
        assert worker.assigned[0].pace == "background"
        await worker.until_leases(0)


async def test_a_failure_that_may_pass_is_tried_again(settings: Settings, registry: Registry) -> None:
    async with running_worker(registry, settings) as worker, open_background_speech(settings) as opened:
        clock = Clock()
        worker.failure = EngineFailed("restarting")

        async def recover(seconds: float) -> None:
            worker.failure = None
            await clock.sleep(seconds)

        speaker = BackgroundSpeech(opened.upstream, clock=clock, sleep=recover)
        assert len((await speaker.speak(SLT, TEXT)).samples)
        assert len(worker.assigned) == 2


async def test_a_fleet_without_workers_is_overloaded_once_patience_ends(settings: Settings, registry: Registry) -> None:
    clock = Clock()
    async with open_background_speech(settings) as opened:
        with pytest.raises(Overloaded, match="within 120 s"):
            await BackgroundSpeech(opened.upstream, clock=clock, sleep=clock.sleep).speak(SLT, TEXT)
    assert 110 <= clock.now_s <= 120


async def test_an_adapter_that_cannot_be_loaded_is_reported_at_once(settings: Settings, registry: Registry) -> None:
    clock = Clock()
    async with running_worker(registry, settings) as worker, open_background_speech(settings) as opened:
        worker.refusal = AdapterUnavailable("it uses DoRA")
        with pytest.raises(AdapterUnavailable):
            await BackgroundSpeech(opened.upstream, clock=clock, sleep=clock.sleep).speak(SLT, TEXT)
    assert clock.sleeps == 0


async def test_cancelled_it_hangs_up(settings: Settings, registry: Registry) -> None:
    async with running_worker(registry, settings) as worker, open_background_speech(settings) as speaker:
        worker.allow(characters=1)
        speaking = asyncio.create_task(speaker.speak(SLT, TEXT))
        await worker.until_sessions(1)
        speaking.cancel()
        await worker.until_sessions(0)
        await worker.until_leases(0)
        with pytest.raises(asyncio.CancelledError):
            await speaking


async def test_many_lines_are_received_each_under_its_number(settings: Settings, registry: Registry) -> None:
    received: dict[int, Spoken] = {}
    async with running_worker(registry, settings, capacity=2), open_background_speech(settings) as speaker:
        texts = [f"Line {'ab'[number % 2] * number}." for number in range(6)]
        await speak_each(speaker, [(SLT, text) for text in texts], received.__setitem__, at_once=2)
    assert [received[number].text for number in range(6)] == texts


def rook(name: str) -> Voice:
    return Voice(id=name, name=name, model="standin")


async def test_utterances_are_exactly_the_text_one_after_the_other_on_one_session(
    settings: Settings, registry: Registry
) -> None:
    async with (
        running_worker(registry, settings) as worker,
        open_background_speech(settings) as speaker,
        speaker.narrator(temperature=0.4) as narrator,
    ):
        texts = ["One. Two. Three.", "And then four"]
        spoken = [await narrator.utter(SLT, text, seed=number) for number, text in enumerate(texts)]
        assert [len(one.samples) for one in spoken] == [len(text) * SAMPLES_PER_CHARACTER for text in texts]
        assert [(one.text, one.complete, one.worker) for one in spoken] == [(text, True, "w1") for text in texts]
        assert all(one.busy_s > 0 for one in spoken)
        assert [(utter.text, utter.seed) for utter in worker.uttered] == [(texts[0], 0), (texts[1], 1)]
        (assigned,) = worker.assigned
        assert (assigned.pace, assigned.temperature) == ("background", 0.4)


async def test_what_the_worker_reports_of_the_codes_comes_with_the_sound(
    settings: Settings, registry: Registry
) -> None:
    async with (
        running_worker(registry, settings) as worker,
        open_background_speech(settings) as speaker,
        speaker.narrator() as narrator,
    ):
        worker.faults.append((False, 2.5))
        spoken = [await narrator.utter(SLT, TEXT) for _ in range(2)]
        assert [(one.complete, one.repeated_s) for one in spoken] == [(False, 2.5), (True, 0.0)]


async def test_the_voices_of_a_dialogue_keep_their_sessions_and_the_end_of_the_narrator_ends_them(
    settings: Settings, registry: Registry
) -> None:
    async with running_worker(registry, settings, capacity=4) as worker, open_background_speech(settings) as speaker:
        async with speaker.narrator() as narrator:
            for name in ("slt", "rms", "slt", "rms", "slt"):
                await narrator.utter(rook(name), TEXT)
            await worker.until_sessions(2)
        await worker.until_sessions(0)
        await worker.until_leases(0)
        assert [assigned.voice.name for assigned in worker.assigned] == ["slt", "rms"]


async def test_of_many_voices_the_last_four_keep_their_sessions(settings: Settings, registry: Registry) -> None:
    async with (
        running_worker(registry, settings, capacity=9) as worker,
        open_background_speech(settings) as speaker,
        speaker.narrator() as narrator,
    ):
        for name in ("ann", "bob", "ann", "cat", "dan", "eve", "ann", "bob"):
            await narrator.utter(rook(name), TEXT)
        await worker.until_sessions(VOICES_AT_HAND)
        assert [assigned.voice.name for assigned in worker.assigned] == ["ann", "bob", "cat", "dan", "eve", "bob"]


async def test_a_narrator_with_one_place_for_two_voices_does_not_wait_for_itself(
    settings: Settings, registry: Registry
) -> None:
    clock = Clock()
    async with (
        running_worker(registry, settings, capacity=1) as worker,
        open_background_speech(settings) as opened,
        BackgroundSpeech(opened.upstream, clock=clock, sleep=clock.sleep).narrator() as narrator,
    ):
        for name in ("slt", "slt", "rms", "slt"):
            await narrator.utter(rook(name), TEXT)
        assert [assigned.voice.name for assigned in worker.assigned] == ["slt", "rms", "slt"]
    assert clock.sleeps == 0


async def test_it_gives_up_its_own_idle_sessions_before_it_waits_for_a_place(
    settings: Settings, registry: Registry
) -> None:
    settings = settings.model_copy(update={"session": UNQUEUED})
    clock = Clock()
    async with running_worker(registry, settings) as worker, open_background_speech(settings) as opened:

        async def check(seconds: float) -> None:
            await worker.until_sessions(0)
            worker.refusal = None
            await clock.sleep(seconds)

        async with BackgroundSpeech(opened.upstream, clock=clock, sleep=check).narrator() as narrator:
            await narrator.utter(rook("slt"), TEXT)
            await narrator.utter(rook("rms"), TEXT)
            worker.refusal = Overloaded("full, whatever the registry says")
            assert (await narrator.utter(rook("eve"), TEXT)).complete


async def test_the_last_spare_place_is_left_to_other_narrators(settings: Settings, registry: Registry) -> None:
    async with (
        running_worker(registry, settings, capacity=2) as worker,
        open_background_speech(settings) as speaker,
        speaker.narrator() as dialogue,
        speaker.narrator() as other,
    ):
        for name in ("slt", "rms", "rms"):
            await dialogue.utter(rook(name), TEXT)
        async with asyncio.timeout(HANG_S):
            while len(worker.sessions) != 1:  # its view of the fleet may lag behind for a line or two
                await dialogue.utter(rook("rms"), TEXT)
        assert (await other.utter(rook("eve"), TEXT)).complete


@pytest.mark.parametrize(
    "error",
    [Overloaded("wanted"), DeadlineExceeded("no text for 60 s"), EngineFailed("restarting")],
    ids=["evicted", "idle for too long", "the engine died"],
)
async def test_a_session_that_ended_between_two_utterances_is_opened_again_at_once(
    error: CarillonError, settings: Settings, registry: Registry
) -> None:
    clock = Clock()
    async with (
        running_worker(registry, settings) as worker,
        open_background_speech(settings) as opened,
        BackgroundSpeech(opened.upstream, clock=clock, sleep=clock.sleep).narrator() as narrator,
    ):
        await narrator.utter(SLT, TEXT)
        await worker.end_sessions(error)
        assert len((await narrator.utter(SLT, TEXT)).samples) == len(TEXT) * SAMPLES_PER_CHARACTER
    assert len(worker.assigned) == 2
    assert clock.sleeps == 0


async def test_one_that_is_evicted_in_the_middle_of_an_utterance_says_all_of_it_again(
    settings: Settings, registry: Registry
) -> None:
    async with (
        running_worker(registry, settings) as worker,
        open_background_speech(settings) as opened,
        BackgroundSpeech(opened.upstream, sleep=Clock().sleep).narrator() as narrator,
    ):
        worker.allow(characters=5)
        speaking = asyncio.create_task(narrator.utter(SLT, TEXT))
        await worker.until_sessions(1)
        await worker.end_sessions(Overloaded("wanted"))
        worker.allow(characters=None)
        assert len((await speaking).samples) == len(TEXT) * SAMPLES_PER_CHARACTER


async def test_a_worker_that_dies_in_the_middle_of_an_utterance_is_replaced_by_the_next(
    settings: Settings, registry: Registry
) -> None:
    async with (
        running_worker(registry, settings) as worker,
        open_background_speech(settings) as opened,
        BackgroundSpeech(opened.upstream, sleep=Clock().sleep).narrator() as narrator,
    ):
        worker.allow(characters=5)
        speaking = asyncio.create_task(narrator.utter(SLT, TEXT))
        await worker.until_sessions(1)
        await worker.crash()
        worker.allow(characters=None)
        assert len((await speaking).samples) == len(TEXT) * SAMPLES_PER_CHARACTER
        assert len(worker.assigned) == 2


async def test_it_waits_for_hours_while_there_is_a_worker_but_no_spare_place(
    settings: Settings, registry: Registry
) -> None:
    settings = settings.model_copy(update={"session": UNQUEUED})
    clock = Clock()
    async with running_worker(registry, settings) as worker, open_background_speech(settings) as opened:
        worker.refusal = Overloaded("full", retry_after_s=600)

        async def until_evening(seconds: float) -> None:
            await clock.sleep(seconds)
            if clock.now_s > 6 * 3600:
                worker.refusal = None

        async with BackgroundSpeech(opened.upstream, clock=clock, sleep=until_evening).narrator() as narrator:
            assert (await narrator.utter(SLT, TEXT)).complete
    assert clock.now_s > 6 * 3600


async def test_patience_for_a_spare_place_may_have_an_end(settings: Settings, registry: Registry) -> None:
    settings = settings.model_copy(update={"session": UNQUEUED})
    clock = Clock()
    async with running_worker(registry, settings) as worker, open_background_speech(settings) as opened:
        worker.refusal = Overloaded("full")
        speech = BackgroundSpeech(opened.upstream, clock=clock, sleep=clock.sleep)
        async with speech.narrator(patience_s=30) as narrator:
            with pytest.raises(Overloaded, match="within 30 s"):
                await narrator.utter(SLT, TEXT)


async def test_a_text_over_which_every_session_breaks_is_given_up(settings: Settings, registry: Registry) -> None:
    clock = Clock()
    async with running_worker(registry, settings) as worker, open_background_speech(settings) as opened:
        worker.failure = EngineFailed("the engine died while speaking")
        async with BackgroundSpeech(opened.upstream, clock=clock, sleep=clock.sleep).narrator() as narrator:
            with pytest.raises(SpeechFailed, match=r"^5 sessions broke .*died while speaking") as failed:
                await narrator.utter(SLT, TEXT)
            assert not failed.value.retryable
            assert len(worker.assigned) == MAX_BREAKDOWNS
            worker.failure = None
            assert (await narrator.utter(SLT, "Another text.")).complete


async def test_a_session_that_broke_is_a_sign_that_there_was_a_worker(settings: Settings, registry: Registry) -> None:
    settings = settings.model_copy(update=HURRIED)
    clock = Clock()
    async with running_worker(registry, settings) as worker, open_background_speech(settings) as opened:
        answers = [("absent", 50), ("broke", 60), ("absent", 50), ("there", 0)]
        worker.refusal = WorkerLost("it is starting")

        async def pass_on(_: float) -> None:
            what, lasts_s = answers.pop(0)
            worker.refusal = WorkerLost("it is starting") if what == "absent" else None
            worker.failure = EngineFailed("it died") if what == "broke" else None
            await clock.sleep(lasts_s)

        async with BackgroundSpeech(opened.upstream, clock=clock, sleep=pass_on).narrator() as narrator:
            assert (await narrator.utter(SLT, TEXT)).complete


async def test_a_breakdown_is_not_forgotten_while_the_worker_is_away(settings: Settings, registry: Registry) -> None:
    settings = settings.model_copy(update=HURRIED)
    clock = Clock()
    async with running_worker(registry, settings) as worker, open_background_speech(settings) as opened:
        worker.failure = EngineFailed("the engine died while speaking")

        async def restart(_: float) -> None:
            worker.refusal = WorkerLost("it is starting")
            await clock.sleep(50)

        async with BackgroundSpeech(opened.upstream, clock=clock, sleep=restart).narrator(patience_s=600) as narrator:
            with pytest.raises(EngineFailed, match="died while speaking"):
                await narrator.utter(SLT, TEXT)


async def test_a_worker_that_cannot_be_reached_is_no_fault_beside_one_that_is_full(
    settings: Settings, registry: Registry
) -> None:
    settings = settings.model_copy(update=HURRIED)
    async with (
        running_worker(registry, settings, id="deaf") as deaf,
        running_worker(registry, settings, id="full") as full,
        open_background_speech(settings) as speaker,
    ):
        await deaf.stop_listening()
        full.refusal = Overloaded("full")
        with pytest.raises(Overloaded, match="all 8 places"):
            async with speaker.session(SLT):
                pass
        full.refusal = WorkerLost("it has restarted")
        with pytest.raises(WorkerLost):
            async with speaker.session(SLT):
                pass


async def test_audio_ahead_of_playback_buys_silence_only_where_it_is_played(
    settings: Settings, registry: Registry
) -> None:
    settings = settings.model_copy(update={"session": SessionSettings(stall_timeout_s=0.1), "fleet_refresh_s": 0.05})
    async with (
        running_worker(registry, settings) as worker,
        open_background_speech(settings) as speaker,
        speaker.upstream.open(SLT, pace="realtime") as played,
        speaker.upstream.open(SLT, pace="unpaced") as downloaded,
        speaker.upstream.open(SLT, pace="background") as narrated,
    ):
        for session in (played, downloaded, narrated):
            await session.send(Text(session="s", text=600 * "x" + "."))  # half a minute of sound
            while not isinstance(await anext(session), Segment):
                pass
        worker.allow(characters=0)
        for session in (played, downloaded, narrated):
            await session.send(Text(session="s", text="And more."))
            await session.send(Eos(session="s"))

        played_on, narrated_on = (asyncio.create_task(anext(session)) for session in (played, narrated))
        async with asyncio.timeout(HANG_S), running_worker(registry, settings, id="w2"):
            assert isinstance(await anext(downloaded), AudioFrame)
            assert (downloaded.worker.id, downloaded.moves) == ("w2", 1)
            assert not narrated_on.done(), "a background session is decoded after all others"
            with pytest.raises(DeadlineExceeded, match=r"sent nothing for 1\.5 s"):
                await narrated_on
            assert not played_on.done()
            worker.allow(characters=None)
            assert isinstance(await played_on, AudioFrame)
            assert played.moves == 0


async def test_what_no_worker_would_mend_is_raised_at_once(settings: Settings, registry: Registry) -> None:
    clock = Clock()
    async with (
        running_worker(registry, settings) as worker,
        open_background_speech(settings) as opened,
        BackgroundSpeech(opened.upstream, clock=clock, sleep=clock.sleep).narrator() as narrator,
    ):
        await narrator.utter(SLT, TEXT)
        worker.failure = InvalidRequest("no word to speak")
        with pytest.raises(InvalidRequest):
            await narrator.utter(SLT, TEXT)
    assert clock.sleeps == 0


async def test_a_narrator_that_is_cancelled_hangs_up(settings: Settings, registry: Registry) -> None:
    async with running_worker(registry, settings) as worker, open_background_speech(settings) as speaker:

        async def narrate() -> None:
            async with speaker.narrator() as narrator:
                await narrator.utter(SLT, TEXT)

        worker.allow(characters=1)
        narrating = asyncio.create_task(narrate())
        await worker.until_sessions(1)
        narrating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await narrating
        await worker.until_sessions(0)
        await worker.until_leases(0)
