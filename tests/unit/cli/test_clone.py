"""`carillon clone` and `carillon polish` against a front door that answers as a test tells it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli.clone import FILES_AT_ONCE, clone_voice, found, polish_voice, upload
from app.cli.clone_progress import follow
from app.client.connection import PATIENCE_S
from app.errors import ConfigurationError, Conflict, NotFound, Overloaded, RecordingUnfit, WorkerLost
from tests.support.scripted_front_door import ScriptedFrontDoor, events, refusal

Json = dict[str, Any]
JOB = {"id": "job-1", "state": "training", "over": False, "attempt": 1, "progress": None, "gate": None, "version": None}
JOB |= {"error": None, "report": None}
OVER = JOB | {"state": "completed", "over": True, "version": 2}
VOICE = {"id": "abcdefghijkl", "name": "Mary", "model": "standin", "prompt_name": "abcdefghijkl", "consent": None}
VOICE |= {"consent_phrase": "I consent"}


def listed(*entries: Json) -> httpx.Response:
    return httpx.Response(200, json={"data": list(entries)})


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    for number in range(FILES_AT_ONCE + 1):
        (tmp_path / f"{number:02}.wav").write_bytes(b"RIFF")
    return tmp_path


# Files.


def test_transcripts_are_read_as_other_programs_write_them(recordings: Path) -> None:
    (recordings / "00.txt").write_text("Hello.", "utf-8-sig")
    (recordings / "manifest.csv").write_text("file,text\n01.wav,Good morning.\n", "utf-8-sig")
    assert found(recordings)[1] == {"00.wav": "Hello.", "01.wav": "Good morning."}


@pytest.mark.parametrize("name", ["00.txt", "manifest.csv", "manifest.jsonl"])
def test_a_file_in_another_encoding_is_named_with_the_remedy(recordings: Path, name: str) -> None:
    (recordings / name).write_text("file,text\n00.wav,Grüße\n", "latin-1")
    with pytest.raises(ConfigurationError, match=rf"{name}, line 2: it is not UTF-8; save it as UTF-8"):
        found(recordings)


# Uploading.


def samples(*batches: httpx.Response) -> ScriptedFrontDoor:
    path = f"/v1/voices/{VOICE['id']}/samples"
    door = ScriptedFrontDoor()
    door.answers |= {f"GET {path}": listed(), f"POST {path}": list(batches)}
    return door


def test_a_batch_of_which_nothing_can_be_used_is_told_and_the_rest_goes_on(recordings: Path) -> None:
    kept = httpx.Response(201, json={"samples": [{}], "rejected": []})
    door, out = samples(refusal(400, "recording_unfit", "none of the 16 files can be used."), kept), io.StringIO()
    upload(door.client, VOICE["id"], found(recordings)[0], {}, out=out)
    assert "none of the 16 files" in out.getvalue()
    assert "uploaded 1 of 17 recordings" in out.getvalue()


def test_a_voice_without_any_recording_in_the_end_is_an_error(recordings: Path) -> None:
    door = samples(refusal(400, "recording_unfit"), refusal(400, "recording_unfit"))
    with pytest.raises(RecordingUnfit, match="none of the 17"):
        upload(door.client, VOICE["id"], found(recordings)[0], {}, out=io.StringIO())


def test_a_voice_that_was_deleted_meanwhile_ends_the_upload(recordings: Path) -> None:
    door = samples(refusal(404, "not_found"))
    with pytest.raises(NotFound):
        upload(door.client, VOICE["id"], found(recordings)[0], {}, out=io.StringIO())


# Given again.


def cloning(voice: Json, start: httpx.Response, jobs: httpx.Response) -> ScriptedFrontDoor:
    own = f"/v1/voices/{voice['id']}"
    kept = [{"file_name": f"{number:02}.wav", "size_bytes": 4} for number in range(FILES_AT_ONCE + 1)]
    door = ScriptedFrontDoor()
    door.answers = {
        "GET /v1/voices": listed(voice),
        f"GET {own}/samples": listed(*kept),
        f"POST {own}/consent": httpx.Response(201, json={}),
        "POST /v1/clones": start,
        "GET /v1/clones": jobs,
        "GET /v1/clones/job-1/events": events(JOB, OVER),
    }
    return door


def cloned(door: ScriptedFrontDoor, recordings: Path, *, consent_statement: str | None = None) -> Json:
    return clone_voice(
        recordings,
        name="Mary",
        client=door.client,
        consent_statement=consent_statement,
        watch=True,
        out=io.StringIO(),
    )


def test_a_command_given_again_follows_the_job_that_is_under_way(recordings: Path) -> None:
    voice = VOICE | {"consent": {"kind": "operator"}}
    door = cloning(voice, refusal(409, "conflict"), listed(JOB | {"id": "job-0", "over": True}, JOB))
    assert cloned(door, recordings) == OVER
    assert not door.asked("POST", "/samples")


def test_a_conflict_that_no_job_explains_is_told(recordings: Path) -> None:
    door = cloning(VOICE | {"consent": {}}, refusal(409, "conflict", "it is a polished voice"), listed())
    with pytest.raises(Conflict, match="polished"):
        cloned(door, recordings)


@pytest.mark.parametrize(("consent", "sent"), [(None, 1), ({"kind": "operator"}, 0)])
def test_consent_is_sent_once(recordings: Path, consent: Json | None, sent: int) -> None:
    door = cloning(VOICE | {"consent": consent}, httpx.Response(202, json=JOB), listed())
    cloned(door, recordings, consent_statement="in the safe")
    assert len(door.asked("POST", "/consent")) == sent


def test_without_consent_the_phrase_is_told(recordings: Path) -> None:
    with pytest.raises(ConfigurationError, match="I consent"):
        cloned(cloning(VOICE, httpx.Response(202, json=JOB), listed()), recordings)


def test_a_polish_given_again_follows_the_job_that_is_under_way() -> None:
    door = cloning(VOICE | {"name": "slt", "prompt_name": "slt"}, httpx.Response(500), listed(JOB))
    door.answers["POST /v1/voices/slt/polish"] = refusal(409, "conflict")
    assert polish_voice("slt", client=door.client, watch=True, out=io.StringIO()) == OVER


# Watching.


def watching(*answers: httpx.Response | Exception) -> ScriptedFrontDoor:
    door = ScriptedFrontDoor()
    door.answers["GET /v1/clones/job-1/events"] = list(answers)
    return door


def test_a_watch_outlives_breaks_restarts_and_refusals_for_now() -> None:
    door = watching(
        httpx.ConnectError("refused"),
        refusal(503, "overloaded"),
        httpx.Response(502, text="<html>"),
        events(JOB),
        httpx.ReadError("broken"),
        events(OVER),
    )
    assert follow(door.client, JOB, out=io.StringIO()) == OVER
    assert door.time_s == 5.0, "a pause before each new connection"


def test_a_front_door_that_stays_away_is_given_up_on() -> None:
    door = ScriptedFrontDoor()
    door.answers["GET /v1/clones/job-1/events"] = lambda _: refusal(503, "overloaded")
    with pytest.raises(Overloaded):
        follow(door.client, JOB, out=io.StringIO())
    assert door.time_s == PATIENCE_S


def test_patience_begins_again_with_everything_that_is_heard() -> None:
    def answers() -> Iterator[httpx.Response | Exception]:
        for _ in range(3):
            yield from (httpx.ConnectError("refused") for _ in range(40))
            yield events(JOB)
        yield events(OVER)

    assert follow(watching(*answers()).client, JOB, out=io.StringIO()) == OVER


def test_a_job_that_is_not_there_is_told_at_once() -> None:
    door = watching(refusal(404, "not_found"))
    with pytest.raises(NotFound):
        follow(door.client, JOB, out=io.StringIO())
    assert door.time_s == 0


def test_a_front_door_that_is_not_there_is_named() -> None:
    door = ScriptedFrontDoor()
    door.answers["GET /v1/audio/voices"] = httpx.ConnectError("refused")
    with pytest.raises(WorkerLost, match="make up"):
        door.client.voices.speakable()
