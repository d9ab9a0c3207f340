"""The whole fleet as a newcomer has it: `carillon up` with the stand-in, spoken with through its public doors."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import wave
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import openai
import psutil
import pyloudnorm
import pytest
from mutagen.mp4 import MP4
from websockets.asyncio.client import ClientConnection

from app.platform.settings import STAND_IN
from app.speech.audio import samples_of
from app.speech.protocol import (
    SERVER_MESSAGES,
    AudioFrame,
    Cancel,
    Cancelled,
    Done,
    Eos,
    Error,
    Ready,
    Start,
    Text,
    parse,
)
from app.speech.token_layout import read_layout
from tests.support.deadlines import LONG_HANG_S
from tests.support.processes import ended
from tests.support.random_adapters import save_random_adapter
from tests.support.running_fleet import RunningFleet

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

LAYOUT = read_layout(STAND_IN / "model", STAND_IN / "codec")
VOICE, OTHER = LAYOUT.speech.voices[:2]
SENTENCE = "Good morning, we speak with many voices."


async def receive(socket: ClientConnection) -> Any:
    async with asyncio.timeout(LONG_HANG_S):
        raw = await socket.recv()
    return AudioFrame.unpack(raw) if isinstance(raw, bytes) else parse(SERVER_MESSAGES, raw)


async def until_message(socket: ClientConnection, kind: type[Any]) -> tuple[Any, list[AudioFrame]]:
    """The next message of `kind`, and the audio that came before it."""
    audio: list[AudioFrame] = []
    while not isinstance(message := await receive(socket), kind):
        assert not isinstance(message, Error), message
        if isinstance(message, AudioFrame):
            audio.append(message)
    return message, audio


async def say(socket: ClientConnection, session: str, text: str, **how: Any) -> None:
    await socket.send(Start(session=session, pace="unpaced", **{"voice": VOICE, **how}).model_dump_json())
    await socket.send(Text(session=session, text=text).model_dump_json())
    await socket.send(Eos(session=session).model_dump_json())


def seconds_of_wav(raw: bytes) -> float:
    """A streamed WAV's header has no length; its samples do."""
    with wave.open(io.BytesIO(raw)) as file:
        frames = file.readframes(2**30)
        return len(frames) / 2 / file.getframerate()


def test_the_printed_curl_speaks(fleet: RunningFleet, tmp_path: Path) -> None:
    command = re.findall(r"(curl .*?response_format.*?'\n)", fleet.printed, re.DOTALL)[0].replace("\\\n", " ")
    assert shutil.which("curl"), "the README's first command needs curl: apt-get install curl"
    subprocess.run(shlex.split(command), cwd=tmp_path, check=True, capture_output=True, timeout=LONG_HANG_S)
    assert seconds_of_wav((tmp_path / "out.wav").read_bytes()) > 1


def test_carillon_say_writes_what_it_hears(fleet: RunningFleet, tmp_path: Path) -> None:
    out = tmp_path / "said.wav"
    command = [sys.executable, "-m", "app.cli.main", "say", SENTENCE, "--voice", OTHER, "-o", str(out)]
    environment = {**os.environ, "CARILLON_DATA_DIR": str(fleet.data_dir)}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONG_HANG_S, check=False)
    assert said.returncode == 0, said.stderr
    with wave.open(str(out)) as file:
        assert file.getnframes() % LAYOUT.samples_per_frame == 0
        assert file.getnframes() > 0


def test_the_readmes_python_client_gets_audio(fleet: RunningFleet) -> None:
    readme = Path(__file__).parents[3] / "README.md"
    script = re.findall(r"```python\n(.*?)```", readme.read_text("utf-8"), re.DOTALL)[0]
    environment = {**os.environ, "CARILLON_URL": fleet.address, "CARILLON_KEY": fleet.key}
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONG_HANG_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "s of audio" in ran.stdout
    assert "'type': 'done'" in ran.stdout


SHORT_BOOK = """# Chapter I: The Owl

The owl asked the girl for the time. It was 7:30 p.m.

[robin] Why do owls need the time? <break time="800ms"/> I will never know.

# Chapter II: The Market

In the morning there was snow on the bridge.
"""


@pytest.mark.slow
def test_the_readmes_narration_is_a_book_for_every_other_reader(fleet: RunningFleet, tmp_path: Path) -> None:
    readme = Path(__file__).parents[3] / "README.md"
    command = re.findall(r"carillon (narrate .*?\.m4b)\n", readme.read_text("utf-8"), re.DOTALL)[0].replace("\\\n", " ")
    words = shlex.split(command)
    assert Path(words[1]).is_file(), "the bundled story, which takes minutes to narrate: here a shorter one"
    words[1] = "short.md"
    (tmp_path / "short.md").write_text(SHORT_BOOK, encoding="utf-8")
    environment = {
        **os.environ,
        "CARILLON_DATA_DIR": str(fleet.data_dir),
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    command_line = [sys.executable, "-m", "app.cli.main", *words]
    ran = subprocess.run(
        command_line, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=LONG_HANG_S, check=False
    )
    assert ran.returncode == 0, ran.stderr

    captions = re.findall(r"([\d:.]+) --> ([\d:.]+)", (tmp_path / "owl-island.vtt").read_text("utf-8"))
    path = tmp_path / words[-1]
    file = MP4(path)
    assert file.tags and file.tags["\xa9nam"] == ["short"]
    assert [chapter.title for chapter in file.chapters or ()] == ["Chapter I: The Owl", "Chapter II: The Market"]
    with av.open(path) as container:
        rate_hz = container.streams.audio[0].rate
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        assert container.duration is not None
        duration_s = container.duration / av.time_base
    assert abs(pyloudnorm.Meter(rate_hz).integrated_loudness(samples.astype(np.float64)) + 19) < 0.5
    assert abs(seconds(captions[-1][1]) - duration_s) < 0.05, "the last caption ends with the last word"
    for (_, end), (start, _) in pairwise(captions):
        gap = samples[round(seconds(end) * rate_hz) : round(seconds(start) * rate_hz)]
        middle = gap[len(gap) // 4 : -len(gap) // 4]
        assert not len(gap) or np.abs(middle).max() < 0.003, "there is no speech between two captions"


def seconds(clock: str) -> float:
    hours, minutes, rest = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


@pytest.mark.slow
async def test_openais_own_client_gets_every_format(fleet: RunningFleet) -> None:
    async with openai.AsyncOpenAI(base_url=f"{fleet.address}/v1", api_key=fleet.key) as client:
        for format in ("mp3", "opus", "aac", "flac", "wav", "pcm"):
            speech = await client.audio.speech.create(
                model="standin",
                voice=VOICE,
                input="Hello world.",
                response_format=format,  # type: ignore[arg-type]
            )
            assert len(speech.content) > 1000, format


async def test_audio_arrives_before_a_text_sent_word_by_word_has_ended(fleet: RunningFleet) -> None:
    async with fleet.socket() as socket:
        await socket.send(Start(session="a", voice=VOICE).model_dump_json())
        for word in SENTENCE.split():
            await socket.send(Text(session="a", text=f"{word} ").model_dump_json())
        await until_message(socket, AudioFrame)  # no eos has been sent: the text has not ended
        await socket.send(Eos(session="a").model_dump_json())
        done, _ = await until_message(socket, Done)
        assert done.samples % LAYOUT.samples_per_frame == 0
        assert done.samples // LAYOUT.samples_per_frame * 7 == done.ledger.tokens
        for part in ("queue_ms", "route_ms", "text_ms", "prefill_ms", "first_frames_ms", "decode_ms", "first_audio_ms"):
            assert getattr(done.ledger, part) is not None, part


async def test_a_barge_in_is_answered_and_the_next_turn_speaks(fleet: RunningFleet) -> None:
    async with fleet.socket() as socket:
        await socket.send(Start(session="a", voice=VOICE).model_dump_json())
        await socket.send(Text(session="a", text=f"{SENTENCE} {SENTENCE} ").model_dump_json())
        await until_message(socket, AudioFrame)
        await socket.send(Cancel(session="a", played_samples=0).model_dump_json())
        cancelled, _ = await until_message(socket, Cancelled)
        assert cancelled.spoken_text == ""
        await socket.send(Text(session="a", text="Yes?").model_dump_json())
        await socket.send(Eos(session="a").model_dump_json())
        _, audio = await until_message(socket, Done)
        assert {frame.generation for frame in audio} == {cancelled.generation}


async def test_a_voice_published_meanwhile_speaks_beside_a_base_voice(fleet: RunningFleet, tmp_path: Path) -> None:
    await fleet.publish("Ada", save_random_adapter(tmp_path / "ada", seed=1))
    async with httpx.AsyncClient(headers=fleet.headers, base_url=fleet.address) as client:
        names = [voice["name"] for voice in (await client.get("/v1/audio/voices")).json()["voices"]]
        assert "Ada" in names

    async with fleet.socket() as socket:
        await say(socket, "clone", SENTENCE, voice="Ada", temperature=0.0)
        await say(socket, "base", SENTENCE, temperature=0.0)
        channels: dict[str, int] = {}
        received: dict[int, bytes] = {}
        finished = 0
        while finished < 2:
            match await receive(socket):
                case Ready(session=session, channel=channel):
                    channels[session] = channel
                case AudioFrame(channel=channel, audio=audio):
                    received[channel] = received.get(channel, b"") + audio
                case Done():
                    finished += 1
                case Error() as error:
                    raise AssertionError(error)
        clone, base = (samples_of(received[channels[name]]) for name in ("clone", "base"))
        size = min(len(clone), len(base))
        assert np.abs(clone[:size] - base[:size]).max() > 0.01


async def test_an_adapter_that_is_gone_fails_its_own_session_and_no_other(fleet: RunningFleet, tmp_path: Path) -> None:
    await fleet.publish("Ghost", tmp_path / "nowhere")
    async with fleet.socket() as socket:
        await say(socket, "base", SENTENCE)
        await say(socket, "missing", SENTENCE, voice="Ghost")
        outcomes: dict[str, Any] = {}
        while len(outcomes) < 2:
            message = await receive(socket)
            if isinstance(message, Done | Error):
                outcomes[str(message.session)] = message
        assert isinstance(outcomes["base"], Done)
        assert isinstance(outcomes["missing"], Error)
        assert outcomes["missing"].code == "adapter_unavailable"


@pytest.mark.slow
async def test_two_hundred_sessions_on_a_fleet_for_four_are_each_spoken_or_refused_for_now(
    fleet: RunningFleet,
) -> None:
    async def attempt(client: httpx.AsyncClient) -> httpx.Response:
        body = {"model": "standin", "voice": VOICE, "input": "Hello.", "response_format": "pcm"}
        return await client.post("/v1/audio/speech", json=body)

    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(
        headers=fleet.headers, base_url=fleet.address, limits=limits, timeout=LONG_HANG_S
    ) as client:
        answers = await asyncio.gather(*(attempt(client) for _ in range(200)))
    spoken = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(spoken) + len(refused) == 200
    assert len(spoken) >= 4
    assert refused
    assert all(len(answer.content) % (2 * LAYOUT.samples_per_frame) == 0 and answer.content for answer in spoken)
    assert all(float(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert {answer.json()["error"]["code"] for answer in refused} == {"overloaded"}


@pytest.mark.slow
async def test_a_killed_engine_comes_back_under_a_new_epoch_and_speaks(fleet: RunningFleet) -> None:
    async with httpx.AsyncClient(headers=fleet.headers, base_url=fleet.address, timeout=LONG_HANG_S) as client:
        before = (await client.get("/v1/fleet")).json()["workers"][0]["epoch"]
        worker = psutil.Process(fleet.running()["programs"]["worker-1"]["pid"])
        engine = max(worker.children(recursive=True), key=lambda process: process.memory_info().rss)
        engine.kill()
        await ended(worker.pid)

        deadline = time.monotonic() + LONG_HANG_S
        while True:
            assert time.monotonic() < deadline, "the worker has not come back"
            workers = (await client.get("/v1/fleet")).json()["workers"]
            if workers and workers[0]["epoch"] > before and workers[0]["state"] == "active":
                break
            await asyncio.sleep(0.5)

        body = {"model": "standin", "voice": VOICE, "input": "Back again.", "response_format": "pcm"}
        answer = await client.post("/v1/audio/speech", json=body)
        assert answer.status_code == 200
        assert answer.content
