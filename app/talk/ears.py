"""What a person said, as text: by any OpenAI-compatible transcription endpoint, or by the bundled recogniser.

The bundled one (Moonshine tiny-en, English) runs in a process of its own: native code hears strangers, and may crash
there; then the next utterance starts it again. Nothing here knows turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import sys
import wave
from asyncio.subprocess import PIPE
from typing import Protocol

import httpx
import numpy as np

from app.errors import CarillonError, ConfigurationError, DeadlineExceeded, EngineFailed
from app.platform.settings import TalkSettings
from app.talk.listening_child import HEADER
from app.talk.speech_detector import RATE_HZ

START_TIMEOUT_S = 60.0
HEAR_TIMEOUT_S = 20.0
"""Of half a minute of speech, on a busy machine."""

log = logging.getLogger(__name__)


class Ears(Protocol):
    """A recogniser of speech."""

    name: str

    async def hear(self, samples: np.ndarray) -> str:
        """The words of mono int16 of 16 kHz, shape (samples,). Raises CarillonError."""
        ...

    async def ready(self) -> None:
        """Be ready to hear, where that takes a while. Raises CarillonError."""
        ...

    async def aclose(self) -> None: ...


def ears_of(settings: TalkSettings) -> Ears:
    """Those that are configured, else the bundled ones."""
    return EndpointEars(settings) if settings.transcription_url else BundledEars()


class BundledEars:
    """The recogniser's process, which all conversations of a front door share; it starts with the first of them."""

    name = "Moonshine tiny-en"

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._hearing: set[asyncio.Task[str]] = set()

    async def hear(self, samples: np.ndarray) -> str:
        # A person who speaks on has no use for the answer any more, but the process gives it all the same.
        hearing = asyncio.create_task(self._hear(samples))
        self._hearing.add(hearing)
        hearing.add_done_callback(self._ended)
        return await asyncio.shield(hearing)

    def _ended(self, hearing: asyncio.Task[str]) -> None:
        self._hearing.discard(hearing)
        if not hearing.cancelled():
            hearing.exception()  # there may be no caller left to take it

    async def _hear(self, samples: np.ndarray) -> str:
        async with self._turn:
            process = await self._started()
            try:
                async with asyncio.timeout(HEAR_TIMEOUT_S):
                    audio = samples.astype("<i2").tobytes()
                    assert process.stdin
                    process.stdin.write(HEADER.pack(len(audio)) + audio)
                    await process.stdin.drain()
                    return (await _line(process))["text"]
            except TimeoutError:
                self._kill()
                raise DeadlineExceeded(f"the recogniser needed more than {HEAR_TIMEOUT_S:g} s") from None
            except BaseException:
                self._kill()
                raise

    async def ready(self) -> None:
        """Start it, so that the first words need not wait. Raises CarillonError."""
        async with self._turn:
            await self._started()

    async def aclose(self) -> None:
        for hearing in tuple(self._hearing):
            hearing.cancel()
        await asyncio.gather(*self._hearing, return_exceptions=True)
        if self._process is not None:
            process = self._process
            self._kill()
            await process.wait()

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.talk.listening_child", stdin=PIPE, stdout=PIPE
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await _line(process)
        except TimeoutError:
            self._kill()
            raise DeadlineExceeded(f"the recogniser did not start within {START_TIMEOUT_S:g} s") from None
        except BaseException:
            self._kill()
            raise
        log.info("recogniser started", extra={"pid": process.pid})
        return process

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


async def _line(process: asyncio.subprocess.Process) -> dict[str, str]:
    assert process.stdout
    line = await process.stdout.readline()
    if not line:
        raise EngineFailed("the recogniser's process has ended; it is started again for the next words")
    answer = json.loads(line)
    if "error" in answer:
        raise ConfigurationError(answer["error"])
    return answer


class EndpointEars:
    """An OpenAI-compatible `/v1/audio/transcriptions`."""

    def __init__(self, settings: TalkSettings, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        assert settings.transcription_url
        self.name = settings.transcription_model
        self._url = settings.transcription_url
        key = settings.transcription_key.get_secret_value()
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=HEAR_TIMEOUT_S, transport=transport
        )

    async def hear(self, samples: np.ndarray) -> str:
        form = {"model": self.name, "response_format": "json"}
        try:
            answer = await self._http.post(
                self._url, data=form, files={"file": ("turn.wav", _wav(samples), "audio/wav")}
            )
            answer.raise_for_status()
            return str(answer.json()["text"]).strip()
        except httpx.HTTPStatusError as error:
            raise CarillonError(
                f"the transcription endpoint answered HTTP {error.response.status_code}; CARILLON_TALK__TRANSCRIPTION_…"
            ) from None
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise CarillonError(
                f"the transcription endpoint gave no words ({type(error).__name__}); CARILLON_TALK__TRANSCRIPTION_URL"
            ) from None

    async def ready(self) -> None:
        """It is another's: there is nothing to start."""

    async def aclose(self) -> None:
        await self._http.aclose()


def _wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()
