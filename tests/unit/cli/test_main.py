"""The command line, run in process on a data directory of its own."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from app.catalog import Catalog
from app.cli.doctor import Finding, Level, database, keys, object_store, redis
from app.cli.main import cli
from app.errors import ConfigurationError, WorkerLost
from app.local.embedded import LOOPBACK, free_port
from app.platform.data_dir import load_secrets
from app.platform.settings import Settings, StoreSettings
from tests.support.deadlines import HANG_S

pytestmark = pytest.mark.anyio

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `carillon …` on an empty data directory; keyword arguments are CARILLON_ variables."""

    def run(*words: str, **variables: str) -> Result:
        values = {"DATA_DIR": str(tmp_path / "data"), **variables}
        environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("CARILLON_")}
        environment |= {f"CARILLON_{name}": value for name, value in values.items()}
        return CliRunner().invoke(cli, list(words), env=environment)

    return run


@pytest.fixture
def fleet(run: Run) -> Run:
    """The same, on the data directory of a fleet that has been here."""
    assert run("migrate").exit_code == 0
    return run


def listed(run: Run) -> list[dict[str, object]]:
    return json.loads(run("keys", "list", "--json").output)


def test_a_key_is_made_listed_and_ended(fleet: Run) -> None:
    token = fleet("keys", "create", "laptop", "--scope", "speak", "--scope", "clone").output.strip()
    (key,) = listed(fleet)
    assert token.split("_")[:2] == ["cari", key["id"]]
    assert (key["name"], sorted(key["scopes"])) == ("laptop", ["clone", "speak"])  # pyright: ignore[reportArgumentType]
    assert fleet("keys", "revoke", str(key["id"])).exit_code == 0
    assert listed(fleet)[0]["revoked_at"]


def test_a_key_may_speak_and_nothing_more_unless_told(fleet: Run) -> None:
    fleet("keys", "create", "laptop")
    assert listed(fleet)[0]["scopes"] == ["speak"]
    assert "[default: (speak)]" in " ".join(fleet("keys", "create", "--help").output.split())


def test_a_key_can_be_made_for_some_days(fleet: Run) -> None:
    fleet("keys", "create", "visitor", "--days", "7")
    assert listed(fleet)[0]["expires_at"]


@pytest.mark.parametrize("days", ["0", "-1", "nan", "inf", "1e9"])
def test_days_that_are_none_are_refused(fleet: Run, days: str) -> None:
    result = fleet("keys", "create", "visitor", f"--days={days}")
    assert result.exit_code == 2
    assert "36500" in result.output
    assert listed(fleet) == []


def test_the_list_for_people_shows_names_and_no_token(fleet: Run) -> None:
    token = fleet("keys", "create", "laptop").output.strip()
    shown = fleet("keys", "list").output
    assert "laptop" in shown
    assert token not in shown


def test_an_unknown_scope_is_refused_with_those_that_are(fleet: Run) -> None:
    result = fleet("keys", "create", "laptop", "--scope", "sing")
    assert result.exit_code == 2
    assert "speak" in result.output


@pytest.mark.parametrize("words", [("create", "laptop"), ("list",), ("revoke", "nope")])
def test_where_no_fleet_is_no_key_is_made_and_no_directory(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    result = run("keys", *words)
    assert isinstance(result.exception, ConfigurationError)
    assert str(tmp_path / "data") in result.exception.message
    assert "CARILLON_URL" in result.exception.message
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_configured_keeps_keys_whatever_the_directory(run: Run, tmp_path: Path) -> None:
    configured = {"DATABASE_URL": f"sqlite:///{tmp_path / 'elsewhere.db'}", "KEY_PEPPER": "pepper"}
    token = run("keys", "create", "laptop", **configured).output.strip()
    (key,) = json.loads(run("keys", "list", "--json", **configured).output)
    assert key["id"] in token
    assert not (tmp_path / "data").exists()


def test_a_key_under_a_pepper_that_no_fleet_has_is_not_made(run: Run, tmp_path: Path) -> None:
    result = run("keys", "create", "laptop", DATABASE_URL=f"sqlite:///{tmp_path / 'elsewhere.db'}")
    assert isinstance(result.exception, ConfigurationError)
    assert "CARILLON_KEY_PEPPER" in result.exception.message
    assert list(tmp_path.iterdir()) == []


def test_a_fleet_that_was_killed_leaves_its_keys_to_be_managed(fleet: Run, tmp_path: Path) -> None:
    running = {"pid": 1, "api": f"http://{LOOPBACK}:{free_port()}"}
    (tmp_path / "data" / "run.json").write_text(json.dumps(running), "utf-8")
    fleet("keys", "create", "laptop")
    assert [key["name"] for key in listed(fleet)] == ["laptop"]


def test_secrets_are_for_this_user_alone_and_stay_the_same(fleet: Run, tmp_path: Path) -> None:
    fleet("keys", "create", "laptop")
    before = load_secrets(tmp_path / "data")
    fleet("keys", "create", "phone")
    assert load_secrets(tmp_path / "data") == before
    assert stat.S_IMODE((tmp_path / "data" / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_an_error_of_ours_is_one_line_and_no_traceback(fleet: Run, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.cli.main", "keys", "revoke", "nope"]
    environment = {**os.environ, "CARILLON_DATA_DIR": str(tmp_path / "data")}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "carillon: there is no key 'nope'; `carillon keys list` shows them\n"


def test_a_letter_that_the_terminal_lacks_is_no_reason_to_fail() -> None:
    script = (
        "import sys; from app.cli.main import cli, main; "
        "cli.command('title')(lambda: sys.stdout.write('Zo\\xeb')); sys.argv[1:] = ['title']; main()"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "Zo?"), ended.stderr


async def test_the_doctor_names_what_a_fleet_of_several_machines_lacks() -> None:
    nowhere = f"{LOOPBACK}:{free_port()}"
    store = StoreSettings(endpoint_url=f"http://{nowhere}", access_key=SecretStr("a"), secret_key=SecretStr("s"))
    settings = Settings(redis_url=SecretStr(f"redis://{nowhere}/0"), store=store)
    assert await failures(redis, settings) == ["redis"]
    assert await failures(object_store, settings) == ["s3"]
    assert [finding.what for finding in keys(settings) if finding.level is Level.FAILURE] == ["keys", "keys"]


async def failures(check: Callable[[Settings], AsyncIterator[Finding]], settings: Settings) -> list[str]:
    return [finding.what async for finding in check(settings) if finding.level is Level.FAILURE]


@pytest.mark.parametrize(
    ("check", "name", "address"),
    [
        (database, "database_url", "foo"),
        (database, "database_url", "mysql://carillon:hunter2@host/name"),
        (redis, "redis_url", "localhost:6379"),
        (redis, "redis_url", "host:hunter2@localhost"),
    ],
)
async def test_the_doctor_names_an_address_that_is_none(
    check: Callable[[Settings], AsyncIterator[Finding]], name: str, address: str
) -> None:
    settings = Settings.model_validate({name: address})
    (finding,) = [finding async for finding in check(settings)]
    assert finding.level is Level.FAILURE
    assert f"CARILLON_{name.upper()}" in finding.found
    assert "hunter2" not in f"{finding}"


async def test_the_doctor_does_not_wait_for_a_redis_that_says_nothing() -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        settings = Settings(redis_url=SecretStr(f"redis://{LOOPBACK}:{silent.getsockname()[1]}/0"))
        (finding,) = [finding async for finding in redis(settings, timeout_s=0.1)]
    assert (finding.level, finding.found) == (Level.FAILURE, "cannot be used: no answer within 0.1 s")


def test_the_doctor_says_what_to_do_about_every_failure(run: Run, tmp_path: Path) -> None:
    result = run(
        "doctor",
        "--json",
        MODEL=str(tmp_path),
        CODEC=str(tmp_path),
        AUTH="false",
        API_HOST="0.0.0.0",
        API_PORT=str(free_port()),
    )
    assert result.exit_code == 1
    findings = json.loads(result.output)
    assert {"vllm", "memory", "port", "database", "redis", "s3"} <= {finding["what"] for finding in findings}
    failed = [finding for finding in findings if finding["level"] == "failure"]
    assert {"checkpoint", "keys"} <= {finding["what"] for finding in failed}
    assert all(finding["remedy"] for finding in failed)


async def test_the_doctor_finds_tables_that_are_behind(tmp_path: Path) -> None:
    (tmp_path / "carillon.db").touch()
    settings = Settings(data_dir=tmp_path)
    (behind,) = [finding async for finding in database(settings, timeout_s=HANG_S)]
    assert (behind.level, behind.remedy) == (Level.FAILURE, "carillon migrate")
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    await catalog.migrate()
    await catalog.aclose()
    (ahead,) = [finding async for finding in database(settings, timeout_s=HANG_S)]
    assert ahead.level is Level.OK


def test_the_version_is_told(run: Run) -> None:
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"carillon {version('carillon')}\n")


@pytest.mark.parametrize(
    ("words", "choices"),
    [
        (("say", "Hello.", "--format", "midi"), ["mp3", "opus", "aac", "flac", "wav", "pcm"]),
        (("tasks", "--queue", "lunch"), ["interactive", "render", "train"]),
        (("simulate", "--policy", "luck"), ["ring"]),
        (("bench", "decode", "--device", "abacus"), ["cpu", "cuda"]),
        (("bench", "mastering", "--format", "midi"), ["m4b", "mp3"]),
    ],
)
def test_a_value_that_an_option_does_not_have_is_refused_with_those_it_has(
    run: Run, words: tuple[str, ...], choices: list[str]
) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert all(choice in result.output for choice in choices)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("say", "Hello.", "--format", "xyz"), "'--format': 'xyz' is not one of 'mp3', 'opus'"),
        (("bench", "speech", "--sessions", "x"), "'--sessions': it must be a whole number"),
        (("bench", "speech", "--sessions", "0"), "'--sessions': it must be at least 1"),
    ],
)
def test_a_bad_value_is_told_in_our_own_words(run: Run, words: tuple[str, ...], why: str) -> None:
    refused = run(*words)
    assert refused.exit_code == 2
    assert why in refused.output
    assert not re.search("Value error|Input should", refused.output)


@pytest.mark.parametrize("words", [("say", "Hello."), ("voices",), ("jobs",), ("narrations",), ("demo",)])
def test_without_a_fleet_a_command_says_how_to_start_one(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    result = run(*words)
    assert isinstance(result.exception, ConfigurationError)
    assert result.exception.message.startswith(f"no fleet runs on {tmp_path / 'data'}; start one with `make up`")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("say", "Hello."), ("say", "Hello.", "--voice", "slt"), ("voices",), ("demo",)])
def test_where_nobody_answers_a_command_says_so_in_its_own_words(run: Run, words: tuple[str, ...]) -> None:
    url = f"http://{LOOPBACK}:{free_port()}"
    result = run(*words, URL=url)
    assert isinstance(result.exception, WorkerLost)
    assert result.exception.message.startswith(f"no fleet answers at {url} (nothing listens there); start one with")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://host:port", "nonsense"])
def test_an_address_that_is_none_is_refused_with_one_that_is(run: Run, url: str) -> None:
    result = run("voices", URL=url)
    assert isinstance(result.exception, ConfigurationError)
    assert "http://127.0.0.1:8000" in result.exception.message


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-o", "out.txt"), ".wav .mp3 .flac .opus .ogg .aac .pcm"),
        (("-o", "out"), ".wav .mp3"),
        (("-o", "out.wav", "--format", "mp3"), "give one of them"),
    ],
)
def test_a_file_that_would_not_hold_what_its_name_says_is_refused_before_anybody_is_asked(
    run: Run, words: tuple[str, ...], told: str
) -> None:
    result = run("say", "Hello.", *words)
    assert isinstance(result.exception, ConfigurationError)
    assert told in result.exception.message


@pytest.mark.parametrize(
    "modules", ["app.cli.main", "app.cli.keyring, app.cli.target, app.client.http"], ids=["help", "keys"]
)
def test_a_command_that_only_asks_is_quick_because_it_imports_no_store_and_no_engine(modules: str) -> None:
    script = (
        f"import sys, {modules}; print(sorted({{'torch', 'vllm', 'celery', 'boto3', 'sqlalchemy'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_command_that_asks_a_front_door_imports_no_other_command_line(tmp_path: Path) -> None:
    script = (
        "import atexit, sys; from app.cli.main import main; sys.argv = ['carillon', 'voices']; "
        "atexit.register(lambda: print('httpx' in sys.modules, 'pygments' in sys.modules)); main()"
    )
    environment = {**os.environ, "CARILLON_URL": "http://127.0.0.1:9", "CARILLON_KEY": "k"}
    asked = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert asked.stdout == "True False\n", asked.stderr
