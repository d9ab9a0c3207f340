"""ElevenLabs' own SDK."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator

import pytest
from elevenlabs import ElevenLabs, VoiceSettings
from elevenlabs.core.api_error import ApiError

from tests.clients.fleet import HANG_S, STORY, Fleet

PCM_BYTES_PER_S = 2 * 16_000


@pytest.fixture
def client(fleet: Fleet) -> ElevenLabs:
    return ElevenLabs(api_key=fleet.key, base_url=fleet.url)


def heard_s(pieces: Iterator[bytes]) -> float:
    return len(b"".join(pieces)) / PCM_BYTES_PER_S


def test_speaks(client: ElevenLabs, fleet: Fleet) -> None:
    audio = client.text_to_speech.convert(
        fleet.voice, text="Hello there.", model_id="eleven_multilingual_v2", output_format="pcm_16000"
    )
    assert heard_s(audio) > 0.3


def test_streams_audio_as_it_is_made(client: ElevenLabs, fleet: Fleet) -> None:
    pieces = list(client.text_to_speech.stream(fleet.voice, text="Good morning. How are you?"))
    assert len(pieces) > 1
    assert pieces[0][:2] == b"\xff\xfb"  # MPEG audio


@pytest.mark.parametrize(
    ("output_format", "bytes_per_s"),
    [("pcm_8000", 16_000), ("pcm_44100", 88_200), ("ulaw_8000", 8_000), ("alaw_8000", 8_000)],
)
def test_honours_the_output_format(client: ElevenLabs, fleet: Fleet, output_format: str, bytes_per_s: int) -> None:
    audio = b"".join(client.text_to_speech.convert(fleet.voice, text="Hello there.", output_format=output_format))
    assert 0.3 < len(audio) / bytes_per_s < 5


def test_opus_is_an_ogg_stream(client: ElevenLabs, fleet: Fleet) -> None:
    audio = b"".join(client.text_to_speech.convert(fleet.voice, text="Hello.", output_format="opus_48000_64"))
    assert audio.startswith(b"OggS")


def test_speed_is_followed(client: ElevenLabs, fleet: Fleet) -> None:
    def seconds(speed: float) -> float:
        settings = VoiceSettings(stability=0.5, speed=speed)
        text = "This sentence is spoken at another speed."
        audio = client.text_to_speech.convert(
            fleet.voice, text=text, output_format="pcm_16000", voice_settings=settings
        )
        return heard_s(audio)

    assert seconds(1.2) < 0.95 * seconds(0.8)


def test_tells_when_each_character_is_spoken(client: ElevenLabs, fleet: Fleet) -> None:
    text = "It costs $3.50. How are you?"
    told = client.text_to_speech.convert_with_timestamps(fleet.voice, text=text, output_format="pcm_16000")
    assert told.alignment and told.normalized_alignment
    assert "".join(told.alignment.characters) == text
    assert "".join(told.normalized_alignment.characters) == "It costs three dollars fifty cents. How are you?"
    starts = told.alignment.character_start_times_seconds
    assert starts == sorted(starts)
    length_s = len(base64.b64decode(told.audio_base_64)) / PCM_BYTES_PER_S
    assert told.alignment.character_end_times_seconds[-1] == pytest.approx(length_s, abs=0.1)


def test_streams_with_the_times_of_characters(client: ElevenLabs, fleet: Fleet) -> None:
    lines = list(client.text_to_speech.stream_with_timestamps(fleet.voice, text="Good morning. How are you?"))
    characters = [it for line in lines if line.alignment for it in line.alignment.characters]
    assert "".join(characters) == "Good morning. How are you?"
    assert sum(bool(line.audio_base_64) for line in lines) > 1


def test_text_can_be_streamed_in(fleet: Fleet, tls_url: str) -> None:
    client = ElevenLabs(api_key=fleet.key, base_url=tls_url)
    words = iter(["Good", "morning.", "We", "speak."])
    audio = client.text_to_speech.convert_realtime(
        fleet.voice, text=(word + " " for word in words), model_id="eleven_turbo_v2_5", output_format="pcm_16000"
    )
    assert heard_s(audio) > 0.5


def test_lists_voices_models_and_the_account(client: ElevenLabs, fleet: Fleet) -> None:
    assert fleet.voice in {voice.voice_id for voice in client.voices.get_all().voices}
    assert fleet.voice in {voice.voice_id for voice in client.voices.search(search="WREN").voices}
    assert client.voices.get(fleet.voice).category == "premade"
    assert client.models.list()[0].can_do_text_to_speech
    assert client.user.subscription.get().character_limit > 0


def test_a_wrong_key_is_refused_in_their_words(fleet: Fleet) -> None:
    client = ElevenLabs(api_key="sk_wrong", base_url=fleet.url)
    with pytest.raises(ApiError) as refused:
        list(client.text_to_speech.convert(fleet.voice, text="Hello."))
    assert (refused.value.status_code, refused.value.body["detail"]["status"]) == (401, "invalid_api_key")


def test_a_wrong_voice_is_refused_in_their_words(client: ElevenLabs) -> None:
    with pytest.raises(ApiError) as refused:
        list(client.text_to_speech.convert("nobody", text="Hello."))
    assert (refused.value.status_code, refused.value.body["detail"]["status"]) == (404, "voice_not_found")


async def test_leaving_ends_the_request_at_the_engine(client: ElevenLabs, fleet: Fleet) -> None:
    pieces = client.text_to_speech.stream(fleet.voice, text=STORY)
    next(pieces)
    async with fleet.interrupted():
        pieces.close()


def test_a_voice_is_made_in_their_steps(client: ElevenLabs) -> None:
    made = client.voices.pvc.create(name="Mary", language="en")
    samples = client.voices.pvc.samples.create(made.voice_id, files=[("mary.wav", spoken_wav(client))])
    assert [sample.file_name for sample in samples] == ["mary.wav"]
    with pytest.raises(ApiError) as refused:
        client.voices.pvc.train(made.voice_id, model_id="eleven_multilingual_v2")
    assert (refused.value.status_code, refused.value.body["detail"]["status"]) == (409, "consent_missing")
    told = client.voices.get(made.voice_id)
    assert told.fine_tuning and told.fine_tuning.state == {"standin": "not_started"}
    assert client.voices.delete(made.voice_id).status == "ok"
    assert made.voice_id not in {voice.voice_id for voice in client.voices.get_all().voices}


def spoken_wav(client: ElevenLabs) -> bytes:
    text = "I read this, so that there is a recording."
    return b"".join(client.text_to_speech.convert("rook", text=text, output_format="wav_16000"))


def test_a_studio_project_becomes_a_file(client: ElevenLabs, fleet: Fleet) -> None:
    block = {"sub_type": "p", "nodes": [{"type": "tts_node", "voice_id": fleet.voice, "text": "It was dark."}]}
    project = client.studio.projects.create(
        name="A House",
        default_paragraph_voice_id=fleet.voice,
        from_content_json=json.dumps([{"name": "One", "blocks": [block]}]),
    ).project
    client.studio.projects.convert(project.project_id)
    until = time.monotonic() + HANG_S
    while not client.studio.projects.get(project.project_id).can_be_downloaded:
        assert time.monotonic() < until
        time.sleep(0.5)
    (snapshot,) = client.studio.projects.snapshots.list(project.project_id).snapshots
    audio = b"".join(client.studio.projects.snapshots.stream(project.project_id, snapshot.project_snapshot_id))
    assert len(audio) > 5_000
    client.studio.projects.delete(project.project_id)
