"""The command line as a process, against a running front door: what goes to which stream, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.speech.choices import Scope
from tests.api.conftest import House
from tests.support.fake_worker import FakeWorker, tone

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]

Ended = subprocess.CompletedProcess[bytes]


class Terminal:
    """Runs commands of somebody who has named a fleet and a key."""

    def __init__(self, house: House, key: str, directory: Path) -> None:
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("CARILLON_")}
        self._environment |= {"CARILLON_URL": house.url, "CARILLON_KEY": key, "PYTHONPATH": str(ROOT)}
        self._directory = directory

    async def run(self, *words: str, given: bytes = b"", key: str | None = None, to: str = "") -> Ended:
        """`to`: a pipe that takes what is said, in the shell's words."""
        command = f"{shlex.join([sys.executable, '-m', 'app.cli.main', *words])} {to}"
        return await asyncio.to_thread(
            subprocess.run,
            ["sh", "-c", command],
            input=given,
            env=self._environment | ({} if key is None else {"CARILLON_KEY": key}),
            cwd=self._directory,
            capture_output=True,
            check=False,
            timeout=120,
        )


@pytest.fixture
async def terminal(house: House, tmp_path: Path) -> AsyncIterator[Terminal]:
    everything = await house.catalog.keys.create("laptop", {Scope.ADMIN})
    (tmp_path / "elsewhere").mkdir()
    yield Terminal(house, everything.token, tmp_path / "elsewhere")


async def test_standard_output_is_the_audio_and_nothing_else(terminal: Terminal, worker: FakeWorker) -> None:
    ended = await terminal.run("say", "-", "-o", "-", "--format", "pcm", given=b"Hello you there.")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == b"".join(map(tone, "Hello you there."))
    told = ended.stderr.decode()
    assert "3 words sent" in told and "standard output: 0.80 s of slt" in told
    assert all(line.isprintable() for line in told.splitlines())


async def test_a_reader_that_has_heard_enough_is_no_reason_for_a_traceback(
    terminal: Terminal, worker: FakeWorker
) -> None:
    ended = await terminal.run("say", "And so on. " * 50, "-o", "-", to="| head -c 4")
    assert ended.stdout == b"RIFF"
    assert b"Traceback" not in ended.stderr and b"Exception ignored" not in ended.stderr, ended.stderr.decode()


async def test_input_that_is_no_text_is_refused(terminal: Terminal, worker: FakeWorker) -> None:
    ended = await terminal.run("say", "-", given=b"Gr\xfc\xdfe")
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert ended.stderr.startswith(b"carillon: standard input is not UTF-8 (byte 2)")


async def test_what_there_is_is_listed(terminal: Terminal, worker: FakeWorker) -> None:
    lines = (await terminal.run("voices")).stdout.decode().splitlines()
    assert sorted(lines) == ["rms  built-in  en  standin  rms", "slt  built-in  en  standin  slt"]
    listed = json.loads((await terminal.run("voices", "--json")).stdout)
    assert {voice["name"] for voice in listed} == {"slt", "rms"}


@pytest.mark.parametrize(("noun", "starts"), [("jobs", "carillon clone"), ("narrations", "carillon narrate")])
async def test_where_there_is_nothing_it_is_said_and_the_list_is_empty(
    terminal: Terminal, noun: str, starts: str
) -> None:
    ended = await terminal.run(noun)
    assert (ended.returncode, ended.stdout) == (0, b"")
    assert f"there are no {noun}; `{starts}`" in ended.stderr.decode()
    assert json.loads((await terminal.run(noun, "--json")).stdout) == []


async def test_a_key_is_made_for_the_fleet_that_is_named_wherever_one_is(
    terminal: Terminal, house: House, tmp_path: Path
) -> None:
    token = (await terminal.run("keys", "create", "phone")).stdout.decode().strip()
    assert (await house.catalog.keys.authenticate(token)).scopes == {Scope.SPEAK}
    assert list((tmp_path / "elsewhere").iterdir()) == []
    refused = await terminal.run("keys", "list", key=token)
    assert refused.returncode == 1
    assert "lacks the scope 'manage'; it has: speak" in refused.stderr.decode()


async def test_a_project_has_keys_that_rotate_and_its_use_is_shown(
    terminal: Terminal, house: House, worker: FakeWorker
) -> None:
    project = (await terminal.run("projects", "create", "Owl Island")).stdout.decode().strip()
    assert f"{project}  " in (await terminal.run("projects", "list")).stdout.decode()
    words = ("keys", "create", "owl", "--project", "Owl Island", "--expires", "2099-01-01")
    token = (await terminal.run(*words)).stdout.decode().strip()
    key = await house.catalog.keys.authenticate(token)
    assert (key.project_id, key.expires_at and key.expires_at.date().isoformat()) == (project, "2099-01-01")
    rotated = (await terminal.run("keys", "rotate", key.id)).stdout.decode().strip()
    assert rotated != token
    spoken = await terminal.run("say", "Hello.", "-o", "-", "--format", "pcm", key=rotated)
    assert spoken.returncode == 0, spoken.stderr
    await house.server.config.app.state.services.metering.recorder.write()  # type: ignore[union-attr]
    used = (await terminal.run("usage", "--by", "project,key")).stdout.decode()
    assert f"{project}  {key.id}  1 utterances  6 characters" in used


async def test_words_are_said_otherwise_by_a_key_and_by_a_voice(terminal: Terminal, worker: FakeWorker) -> None:
    for words in (("set", "nginx=engine x", "GIF=jif"), ("set", "gif=ghif"), ("set", "SQL=sequel", "--voice", "slt")):
        ended = await terminal.run("pronunciations", *words)
        assert ended.returncode == 0, ended.stderr
    assert (await terminal.run("pronunciations", "list")).stdout.decode() == "gif    ghif\nnginx  engine x\n"
    assert json.loads((await terminal.run("pronunciations", "list", "--json", "--voice", "slt")).stdout) == {
        "SQL": "sequel"
    }
    assert (await terminal.run("pronunciations", "remove", "NGINX")).returncode == 0
    missing = await terminal.run("pronunciations", "remove", "nginx")
    assert missing.returncode == 1
    assert b"nginx: not in this dictionary" in missing.stderr
