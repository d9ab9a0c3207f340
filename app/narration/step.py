"""What the steps of a narration have in common: where they read and write, and what they leave to be done next.

It knows the stores, and not what a step does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from app.errors import ObjectMissing
from app.narration.models import ChapterProgress, Narration, Script
from app.narration.steps import Step, StepStore
from app.narration.store import NarrationStore
from app.platform.object_keys import narration_prefix
from app.platform.object_store import ObjectStore, retry_in_thread
from app.platform.retry import retry_store
from app.platform.settings import Settings
from app.speech.voices import Voice

CHAPTERS_AT_ONCE = 8
"""Messages of one narration at most: many chapters go beside each other, and other narrations get their turns."""


@dataclass(frozen=True)
class Ended:
    """What a step has left: the narration, and how many more steps can be begun."""

    narration: Narration
    messages: int


@dataclass(frozen=True)
class StepContext:
    """Everything one attempt at a step works with.

    `directory` is its own, and goes with it; `find_voice` raises NotFound for a voice that was deleted.
    """

    settings: Settings
    steps: StepStore
    narrations: NarrationStore
    find_voice: Callable[[str], Awaitable[object]]
    store: ObjectStore
    step: Step
    directory: Path

    @property
    def narration(self) -> Narration:
        """As it was when the step was claimed."""
        return self.step.narration

    @property
    def prefix(self) -> str:
        """Where the narration lies in the store."""
        return narration_prefix(self.narration.id)

    def progress_in(self, narration: Narration) -> ChapterProgress:
        """How far the chapter is that this step renders."""
        return next(chapter for chapter in narration.chapters if chapter.number == self.step.number)

    async def living(self, voice: Voice) -> None:
        """Raises NotFound for a clone that was deleted; the model's own voices are always there."""
        if voice.adapter is not None:
            await retry_store(lambda: self.find_voice(voice.id))

    async def script(self) -> Script:
        key = self.narration.script_key
        if key is None:
            raise ObjectMissing(f"narration {self.narration.id} has chapters and no script")
        return Script.model_validate_json(await retry_in_thread(lambda: self.store.get(key)))

    async def fetch(self, key: str, path: Path) -> None:
        folder, _, name = key.rpartition("/")
        await retry_in_thread(lambda: self.store.fetch(self.store.uri(folder), name, path))

    async def put(self, key: str, data: bytes) -> None:
        await retry_in_thread(lambda: self.store.put(key, data))
