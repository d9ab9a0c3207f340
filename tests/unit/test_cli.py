"""The command line, run in process on a data directory of its own."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from app.cli import cli
from app.doctor import Level, redis
from app.infra.datadir import load_secrets
from app.infra.embedded import LOOPBACK, free_port
from app.infra.settings import Settings

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


def listed(run: Run) -> list[dict[str, object]]:
    return json.loads(run("keys", "list", "--json").output)


def test_a_key_is_made_listed_and_ended(run: Run) -> None:
    token = run("keys", "create", "laptop", "--scope", "speak", "--scope", "clone").output.strip()
    (key,) = listed(run)
    assert token.split("_")[:2] == ["cari", key["id"]]
    assert (key["name"], sorted(key["scopes"])) == ("laptop", ["clone", "speak"])  # pyright: ignore[reportArgumentType]
    assert run("keys", "revoke", str(key["id"])).exit_code == 0
    assert listed(run)[0]["revoked_at"]


def test_a_key_may_speak_and_nothing_more_unless_told(run: Run) -> None:
    run("keys", "create", "laptop")
    assert listed(run)[0]["scopes"] == ["speak"]


def test_a_key_can_be_made_for_some_days(run: Run) -> None:
    run("keys", "create", "visitor", "--days", "7")
    assert listed(run)[0]["expires_at"]


def test_the_list_for_people_shows_names_and_no_token(run: Run) -> None:
    token = run("keys", "create", "laptop").output.strip()
    shown = run("keys", "list").output
    assert "laptop" in shown
    assert token not in shown


def test_an_unknown_scope_is_refused_with_those_that_are(run: Run) -> None:
    result = run("keys", "create", "laptop", "--scope", "sing")
    assert result.exit_code == 2
    assert "speak" in result.output


def test_secrets_are_for_this_user_alone_and_stay_the_same(run: Run, tmp_path: Path) -> None:
    run("keys", "create", "laptop")
    before = load_secrets(tmp_path / "data")
    run("keys", "create", "phone")
    assert load_secrets(tmp_path / "data") == before
    assert stat.S_IMODE((tmp_path / "data" / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_an_error_of_ours_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.cli", "keys", "revoke", "nope"]
    environment = {**os.environ, "CARILLON_DATA_DIR": str(tmp_path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "carillon: there is no key 'nope'; `carillon keys list` shows them\n"


def test_a_letter_that_the_terminal_lacks_is_no_reason_to_fail() -> None:
    script = (
        "import sys; from app.cli import cli, main; "
        "cli.command('title')(lambda: sys.stdout.write('Zo\\xeb')); sys.argv[1:] = ['title']; main()"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "Zo?"), ended.stderr


def test_the_doctor_names_what_a_fleet_of_several_machines_lacks(run: Run) -> None:
    nowhere = f"{LOOPBACK}:{free_port()}"
    result = run(
        "doctor",
        "--json",
        REDIS_URL=f"redis://{nowhere}/0",
        STORE__ENDPOINT_URL=f"http://{nowhere}",
        STORE__ACCESS_KEY="a",
        STORE__SECRET_KEY="s",
    )
    assert result.exit_code == 1
    failures = {finding["what"] for finding in json.loads(result.output) if finding["level"] == "failure"}
    assert {"redis", "s3", "keys"} <= failures


@pytest.mark.parametrize(
    ("what", "variables"),
    [
        ("database", {"DATABASE_URL": "foo"}),
        ("database", {"DATABASE_URL": "mysql://carillon:hunter2@host/name"}),
        ("redis", {"REDIS_URL": "localhost:6379"}),
        ("redis", {"REDIS_URL": "host:hunter2@localhost"}),
    ],
)
def test_the_doctor_names_an_address_that_is_none(run: Run, what: str, variables: dict[str, str]) -> None:
    result = run("doctor", "--json", **variables)
    (finding,) = [finding for finding in json.loads(result.output) if finding["what"] == what]
    assert finding["level"] == "failure"
    assert f"CARILLON_{next(iter(variables))}" in finding["found"]
    assert "hunter2" not in result.output


async def test_the_doctor_does_not_wait_for_a_redis_that_says_nothing() -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        settings = Settings(redis_url=SecretStr(f"redis://{LOOPBACK}:{silent.getsockname()[1]}/0"))
        (finding,) = [finding async for finding in redis(settings, timeout_s=0.1)]
    assert (finding.level, finding.found) == (Level.FAILURE, "cannot be used: no answer within 0.1 s")


def test_the_doctor_says_what_to_do_about_every_failure(run: Run, tmp_path: Path) -> None:
    result = run("doctor", "--json", MODEL=str(tmp_path), CODEC=str(tmp_path), AUTH="false", API_HOST="0.0.0.0")
    failures = [finding for finding in json.loads(result.output) if finding["level"] == "failure"]
    assert {"checkpoint", "keys"} <= {finding["what"] for finding in failures}
    assert all(finding["remedy"] for finding in failures)


def test_the_doctor_finds_tables_that_are_behind(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "carillon.db").touch()
    assert "carillon migrate" in run("doctor").output
    assert run("migrate").exit_code == 0
    assert "carillon migrate" not in run("doctor").output


def test_help_is_quick_because_no_command_is_imported_for_it() -> None:
    script = "import sys, app.cli; print(sorted({'torch', 'vllm', 'celery', 'boto3', 'sqlalchemy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
