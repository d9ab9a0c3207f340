"""A conversation of real parts with a scripted detector, ears, mind and speaker: what is asked, and what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import numpy as np
import pytest

from app.errors import EngineFailed
from app.platform.settings import TalkSettings
from app.speech.latency import Ledger
from app.speech.protocol import AudioFrame, Done, Segment, Turn
from app.talk.conversation import Conversation
from app.talk.dialogue import Said
from app.talk.playout import FRAME_SAMPLES
from app.talk.speaker import Speaker, Utterance
from app.talk.speech_detector import WINDOW_S, WINDOW_SAMPLES, SpeechDetector, Window
from tests.support.deadlines import HANG_S

pytestmark = pytest.mark.anyio

VOICE, SILENCE = np.full(WINDOW_SAMPLES, 5_000, np.int16), np.zeros(WINDOW_SAMPLES, np.int16)
SOUND = np.full(FRAME_SAMPLES, 3_000, "<i2").tobytes()


class Loudness:
    """A detector that takes what is loud for speech."""

    def windows(self, samples: np.ndarray) -> Iterator[Window]:
        yield Window(samples, speaking := bool(samples.any()), speaking)


class Script:
    """Ears, mind and speaker in one: what is heard, answered and spoken, and what was asked of them."""

    name = "script"
    voice = "wren"

    def __init__(self, *heard: str) -> None:
        self.heard = list(heard)
        self.asked: list[tuple[Said, ...]] = []
        self.turns: list[Turn] = []
        self.left = 0
        self.broken = False

    async def ready(self) -> None:
        """Always."""

    async def hear(self, samples: np.ndarray) -> str:
        return self.heard.pop(0)

    async def answer(self, dialogue: Sequence[Said]) -> AsyncGenerator[str, None]:
        self.asked.append(tuple(dialogue))
        yield "Well, "
        yield "yes."

    def prepare(self) -> None:
        """Always ready."""

    async def take(self) -> Utterance:
        if self.broken:
            raise EngineFailed("no engine")
        return cast(Utterance, ScriptedUtterance(self))

    def leave(self, utterance: Utterance) -> None:
        self.left += 1

    async def aclose(self) -> None:
        """Nothing is open."""


class ScriptedUtterance:
    """Speaks ten frames when its text has ended."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._ended = asyncio.Event()

    async def say(self, text: str, *, turn: Turn | None = None) -> None:
        self._script.turns += [turn] if turn else []

    async def end(self) -> None:
        self._ended.set()

    async def events(self) -> AsyncIterator[Any]:
        await self._ended.wait()
        yield AudioFrame(1, 0, 0, 0, SOUND * 10)
        yield Segment(session="1", generation=0, text="Well, yes.", start_sample=0, end_sample=10 * FRAME_SAMPLES)
        yield Done(session="1", samples=10 * FRAME_SAMPLES, ledger=Ledger())


class Scene:
    """A conversation whose clock goes on with the microphone's windows."""

    def __init__(self, script: Script) -> None:
        self.now = 100.0
        self.told: list[dict[str, Any]] = []
        self.conversation = Conversation(
            TalkSettings(sure_s=0.2),
            ears=script,
            mind=script,
            speaker=cast(Speaker, script),
            detector=cast(SpeechDetector, Loudness()),
            tell=self.told.append,
            clock=lambda: self.now,
        )

    async def hear(self, window: np.ndarray, seconds: float) -> None:
        for _ in range(round(seconds / WINDOW_S)):
            self.now += WINDOW_S
            self.conversation.hear(window)
            for _ in range(20):  # whatever is to be done at once
                await asyncio.sleep(0)

    async def ask(self) -> None:
        await self.hear(VOICE, 1.0)
        await self.hear(SILENCE, 0.5)

    def all_of(self, type: str) -> list[dict[str, Any]]:
        return [event for event in self.told if event["type"] == type]


@asynccontextmanager
async def scene_of(script: Script) -> AsyncIterator[Scene]:
    scene = Scene(script)
    running = asyncio.create_task(scene.conversation.run())
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(HANG_S):
            yield scene
            scene.conversation.hang_up()
            await running
    finally:
        running.cancel()


async def test_a_question_is_asked_once_though_it_is_sure_before_it_is_answered() -> None:
    script = Script("What is it?")
    async with scene_of(script) as scene:
        await scene.ask()
        while scene.conversation.playout.pull():
            pass
    assert script.asked == [(Said("user", "What is it?"),)]
    assert scene.conversation.dialogue.messages == (Said("user", "What is it?"), Said("assistant", "Well, yes."))
    [budget] = scene.conversation.budgets
    assert budget.in_the_money
    assert not budget.cut


async def test_the_front_door_is_told_when_the_turn_ended() -> None:
    script = Script("What is it?")
    async with scene_of(script) as scene:
        await scene.ask()
    [turn] = script.turns
    assert turn.sent_at is not None
    assert turn.sent_at - turn.ended_at == pytest.approx(0.25, abs=2 * WINDOW_S)


async def test_of_an_answer_that_is_interrupted_what_was_heard_is_kept() -> None:
    script = Script("What is it?", "Wait, please.")
    async with scene_of(script) as scene:
        await scene.ask()
        for _ in range(5):
            scene.conversation.playout.pull()
        await scene.hear(VOICE, 1.0)
        assert scene.conversation.playout.pull() is None
        await scene.hear(SILENCE, 0.5)
    assert scene.conversation.dialogue.messages == (
        Said("user", "What is it?"),
        Said("assistant", "Well, …"),
        Said("user", "Wait, please."),
    )
    assert script.asked[-1] == scene.conversation.dialogue.messages
    assert [budget.cut for budget in scene.conversation.budgets] == [True]
    assert script.left >= 1


async def test_a_person_who_goes_on_has_nothing_to_hear() -> None:
    script = Script("I was", "I was wondering.")
    async with scene_of(script) as scene:
        await scene.hear(VOICE, 1.0)
        await scene.hear(SILENCE, 0.4)
        assert scene.conversation.playout.pull() is None
        await scene.ask()
        assert scene.conversation.playout.pull() is not None
    assert scene.all_of("heard")[-1] == {"type": "heard", "text": "I was wondering.", "sure": True}
    assert script.left >= 1


async def test_a_turn_that_fails_is_told_and_the_next_one_is_answered() -> None:
    script = Script("What is it?", "And now?")
    script.broken = True
    async with scene_of(script) as scene:
        await scene.ask()
        script.broken = False
        await scene.ask()
    assert [event["code"] for event in scene.all_of("error")] == ["engine_failed"]
    assert scene.all_of("answer")
