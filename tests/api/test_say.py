"""The command line's own clients, against a running front door."""

from __future__ import annotations

import asyncio
import io
import os
import wave
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import av
import pytest

from app.bench.sessions import TEXTS, MeasuredSession, as_a_model_writes, run
from app.cli.say_session import speak as say
from app.errors import AuthenticationFailed, ConfigurationError, InvalidRequest, UnknownVoice, WorkerLost
from app.speech.choices import AudioFormat
from app.speech.latency import Ledger
from tests.api.conftest import House
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import SAMPLES_PER_CHARACTER, tone
from tests.support.mortal_front_door import mortal_door

pytestmark = pytest.mark.anyio


async def speak(
    house: House, output: Path, text: str = "Hello you there.", **fields: object
) -> tuple[Ledger, str, str]:
    progress, out = io.StringIO(), io.StringIO()
    wanted = {"voice": "slt", "urls": [house.url], "key": house.key, "progress": progress, **fields}
    work = partial(say, text, output=output, out=out, **wanted)  # type: ignore[arg-type]
    return await asyncio.to_thread(work), progress.getvalue(), out.getvalue()


async def until_size(path: Path, least_bytes: int) -> None:
    async with asyncio.timeout(HANG_S):
        while not path.exists() or path.stat().st_size < least_bytes:
            await asyncio.sleep(0.01)


async def test_say_writes_what_it_hears_and_prints_the_ledger(house: House, tmp_path: Path) -> None:
    async with house.worker():
        ledger, progress, out = await speak(house, tmp_path / "out.wav")
    with wave.open(str(tmp_path / "out.wav")) as file:
        assert (file.getframerate(), file.getnchannels()) == (24_000, 1)
        assert file.readframes(file.getnframes()) == b"".join(map(tone, "Hello you there."))
    assert ledger.samples == 16 * 1_200
    assert "first audio after" in progress and "0.8 s heard" in progress
    assert "a stand-in" in out and "first audio" in out


async def test_say_hears_the_first_sentence_while_it_still_sends_words(house: House, tmp_path: Path) -> None:
    text = "Hello. One two three four five."
    async with house.worker():
        _, progress, _ = await speak(house, tmp_path / "out.wav", text, words_per_s=10.0)
    assert "6 words sent" in progress
    assert "before the text had ended" in progress


@pytest.mark.parametrize(
    ("name", "container", "codec"),
    [
        ("out.wav", "wav", "pcm_s16le"),
        ("out.mp3", "mp3", "mp3"),
        ("out.FLAC", "flac", "flac"),
        ("out.opus", "ogg", "opus"),
        ("out.ogg", "ogg", "opus"),
        ("out.aac", "aac", "aac"),
    ],
)
async def test_a_file_is_what_its_name_says(
    house: House, tmp_path: Path, name: str, container: str, codec: str
) -> None:
    async with house.worker():
        await speak(house, tmp_path / name)
    with av.open(str(tmp_path / name)) as file:
        assert (file.format.name, file.streams.audio[0].codec_context.name.removesuffix("float")) == (container, codec)
        samples = sum(frame.samples * 24_000 // frame.sample_rate for frame in file.decode(audio=0))
    assert samples / 24_000 == pytest.approx(0.8, abs=0.15)


async def test_raw_samples_are_those_that_are_heard(house: House, tmp_path: Path) -> None:
    async with house.worker():
        await speak(house, tmp_path / "out.pcm")
    assert (tmp_path / "out.pcm").read_bytes() == b"".join(map(tone, "Hello you there."))


@pytest.mark.parametrize("name", ["out.wav", "out.flac"])
async def test_at_twice_the_speed_it_lasts_half_as_long(house: House, tmp_path: Path, name: str) -> None:
    async with house.worker():
        _, _, out = await speak(house, tmp_path / name, speed=2.0)
    with av.open(str(tmp_path / name)) as file:
        samples = sum(frame.samples for frame in file.decode(audio=0))
    assert samples / 24_000 == pytest.approx(0.4, abs=0.02)
    assert "0.40 s" in out


async def test_a_format_that_is_named_needs_no_ending(house: House, tmp_path: Path) -> None:
    async with house.worker():
        await speak(house, tmp_path / "out", format=AudioFormat.FLAC)
    assert (tmp_path / "out").read_bytes().startswith(b"fLaC")


async def test_a_pipe_is_given_one_stream_and_nothing_of_it_twice(house: House, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    async with house.worker():
        reading = asyncio.create_task(asyncio.to_thread(pipe.read_bytes))
        await speak(house, pipe)
        heard = await reading
    assert heard[:4] == b"RIFF"
    assert heard[44:] == b"".join(map(tone, "Hello you there."))


async def test_what_is_no_terminal_is_told_in_one_line_at_the_end(house: House, tmp_path: Path) -> None:
    async with house.worker():
        _, progress, _ = await speak(house, tmp_path / "out.wav", "One two three. " * 20, words_per_s=1000.0)
    assert progress.count("\n") == 1
    assert progress.strip().isprintable()
    assert "60 words sent" in progress


async def test_a_terminal_sees_it_grow(house: House, tmp_path: Path) -> None:
    terminal = Terminal()
    async with house.worker():
        await speak(house, tmp_path / "out.wav", progress=terminal)
    assert terminal.getvalue().count("\r\x1b[K") > 1
    assert terminal.getvalue().endswith("\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("text", ["", " ", "\n\n"])
async def test_an_empty_text_is_refused_before_anybody_is_asked(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        say(
            text,
            voice="slt",
            output=tmp_path / "out.wav",
            urls=["http://127.0.0.1:1"],
            key=None,
            progress=io.StringIO(),
            out=io.StringIO(),
        )
    assert list(tmp_path.iterdir()) == []


async def test_a_text_that_cannot_be_spoken_is_an_error_and_leaves_files_as_they_were(
    house: House, tmp_path: Path
) -> None:
    (tmp_path / "there.wav").write_bytes(b"before")
    async with house.worker() as worker:
        worker.mute = True
        for name in ("there.wav", "new.wav"):
            with pytest.raises(InvalidRequest, match="nothing that can be spoken"):
                await speak(house, tmp_path / name, "...")
    assert [path.name for path in tmp_path.glob("*.wav")] == ["there.wav"]
    assert (tmp_path / "there.wav").read_bytes() == b"before"


async def test_a_shorter_recording_leaves_nothing_of_a_longer_one(house: House, tmp_path: Path) -> None:
    async with house.worker():
        for text in ("Hello you there, and all of you.", "Hi."):
            await speak(house, tmp_path / "out.flac", text)
            await speak(house, tmp_path / "out.wav", text)
    with wave.open(str(tmp_path / "out.wav")) as file:
        assert file.getnframes() == 3 * SAMPLES_PER_CHARACTER
    assert (tmp_path / "out.wav").stat().st_size == 44 + 2 * 3 * SAMPLES_PER_CHARACTER
    with av.open(str(tmp_path / "out.flac")) as file:
        assert sum(frame.samples for frame in file.decode(audio=0)) == 3 * SAMPLES_PER_CHARACTER


async def test_a_directory_is_no_file_to_write(house: House, tmp_path: Path) -> None:
    (tmp_path / "out.wav").mkdir()
    with pytest.raises(ConfigurationError, match=r"out\.wav cannot be written"):
        await speak(house, tmp_path / "out.wav")


async def test_say_goes_on_at_another_front_door_when_its_own_is_killed(house: House, tmp_path: Path) -> None:
    text = "Hello you there. And so it goes on, to the end."
    async with house.worker() as worker, mortal_door(house.settings) as door:
        await door.until_known(worker)
        worker.allow(characters=12)
        urls = ["http://127.0.0.1:1", door.url, house.url]
        saying = asyncio.create_task(speak(house, tmp_path / "out.wav", text, urls=urls))
        await until_size(tmp_path / "out.wav", 12 * SAMPLES_PER_CHARACTER * 2)
        door.kill()
        worker.allow(characters=None)
        ledger, _, _ = await saying
    with wave.open(str(tmp_path / "out.wav")) as file:
        assert file.readframes(file.getnframes()) == b"".join(map(tone, text))
    assert ledger.samples == len(text) * SAMPLES_PER_CHARACTER


async def test_say_leaves_a_front_door_that_shuts_down(house: House, tmp_path: Path) -> None:
    text = "Hello you there. And so it goes on, to the end."
    async with house.worker() as worker, mortal_door(house.settings) as door:
        await door.until_known(worker)
        worker.allow(characters=12)
        saying = asyncio.create_task(speak(house, tmp_path / "out.wav", text, urls=[door.url, house.url]))
        await worker.until_sessions(1)
        door.server.should_exit = True
        worker.allow(characters=None)
        await saying
    with wave.open(str(tmp_path / "out.wav")) as file:
        assert file.readframes(file.getnframes()) == b"".join(map(tone, text))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"voice": "slx"}, UnknownVoice),
        ({"key": "wrong"}, AuthenticationFailed),
        ({"urls": ["http://127.0.0.1:1"]}, WorkerLost),
    ],
)
async def test_what_cannot_be_said_is_an_error_with_its_reason(
    house: House, tmp_path: Path, fields: dict[str, Any], error: type[Exception]
) -> None:
    async with house.worker():
        with pytest.raises(error):
            await speak(house, tmp_path / "out.wav", **fields)


async def test_bench_measures_sessions_and_cancels(house: House) -> None:
    out = io.StringIO()
    async with house.worker():
        work = partial(
            run,
            url=house.url,
            key=house.key,
            voices=["slt", "rms"],
            concurrency=[1, 3],
            sessions=4,
            cancels=2,
            tokens_per_s=2_000,
            out=out,
        )
        report = await asyncio.to_thread(work)
    assert [(level["concurrency"], level["sessions"], level["errors"]) for level in report["levels"]] == [
        (1, 4, {}),
        (3, 4, {}),
    ]
    assert report["levels"][0]["audio_s"] == pytest.approx(sum(len(text) for text in TEXTS) * 0.05, rel=0.02)
    assert report["cancel"]["sessions"] == 2
    assert report["model"] == {"name": "standin", "stand_in": True}
    assert "standin (stand-in)" in out.getvalue()


def test_text_comes_as_a_model_writes_it() -> None:
    pieces = list(as_a_model_writes(TEXTS[1], 50, Random(1)))
    assert "".join(piece for _, piece in pieces) == TEXTS[1]
    assert all(1 <= len(piece) <= 6 for _, piece in pieces)
    dues = [due_s for due_s, _ in pieces]
    assert dues == sorted(dues) and dues[0] == 0 and dues[-1] > 0


def test_playback_that_runs_dry_is_a_stall_and_a_prebuffer_covers_it() -> None:
    measured = MeasuredSession(arrivals=[(1.0, 2_400), (1.15, 2_400), (1.2, 2_400)])
    assert measured.stalls_s(0) == [pytest.approx(0.05)]
    assert measured.stalls_s(0.1) == []


def test_audible_first_audio_has_the_silence_at_its_head_added() -> None:
    measured = MeasuredSession(arrivals=[(0.2, 2_400)], ledger=Ledger(head_silence_ms=600))
    assert measured.audible_ttfa_s == pytest.approx(0.8)
    assert MeasuredSession(arrivals=[(0.2, 2_400)]).audible_ttfa_s is None
