"""OpenAI's SDKs: Python's, and npm's where node is at hand."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from openai import AuthenticationError, NotFoundError, OpenAI

from tests.clients.fleet import STORY, Fleet

NODE = shutil.which("node")
MODULES = Path(sys.prefix) / "node_modules"
SCRIPT = Path(__file__).with_name("openai.mjs")


@pytest.fixture
def client(fleet: Fleet) -> OpenAI:
    return OpenAI(api_key=fleet.key, base_url=f"{fleet.url}/v1")


def test_speaks_with_its_own_names(client: OpenAI) -> None:
    answer = client.audio.speech.create(
        model="gpt-4o-mini-tts", voice="alloy", input="Hello there.", instructions="calm", response_format="pcm"
    )
    assert len(answer.content) > 0.3 * 48_000
    assert answer.response.headers["x-carillon-ignored"] == "instructions"


def test_streams_audio_as_it_is_made(client: OpenAI, fleet: Fleet) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice=fleet.voice, input="Good morning. How are you?", response_format="mp3"
    ) as answer:
        assert len(list(answer.iter_bytes())) > 1


def test_lists_models(client: OpenAI) -> None:
    assert [model.owned_by for model in client.models.list()] == ["carillon"]
    assert client.models.retrieve("tts-1").id == "tts-1"


def test_a_wrong_key_is_refused(fleet: Fleet) -> None:
    with pytest.raises(AuthenticationError):
        OpenAI(api_key="wrong", base_url=f"{fleet.url}/v1").audio.speech.create(
            model="tts-1", voice="alloy", input="Hi."
        )


def test_a_wrong_voice_is_refused(client: OpenAI) -> None:
    with pytest.raises(NotFoundError):
        client.audio.speech.create(model="tts-1", voice="nobody", input="Hi.")


@pytest.mark.anyio
async def test_leaving_ends_the_request_at_the_engine(client: OpenAI, fleet: Fleet) -> None:
    with client.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input=STORY) as answer:
        pieces = answer.iter_bytes()  # kept: without it, the response is closed
        next(pieces)
        async with fleet.interrupted():
            answer.close()


@pytest.mark.skipif(NODE is None or not (MODULES / "openai").exists(), reason="node, or npm's openai, is not installed")
def test_npm_speaks_streams_lists_and_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    assert NODE
    environment = {"OPENAI_BASE_URL": f"{fleet.url}/v1", "OPENAI_API_KEY": fleet.key, "VOICE": fleet.voice}
    script = tmp_path / SCRIPT.name
    script.write_text(SCRIPT.read_text())
    (tmp_path / "node_modules").symlink_to(MODULES)  # they are looked for beside the script
    done = subprocess.run([NODE, script], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["speaks", "streams", "lists", "401", "404"]), done.stderr
