"""Settings: read once from the environment, refused with the variable's name when they are wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.errors import ConfigurationError
from app.platform.settings import STAND_IN, Settings, load_settings


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """The process's environment with `variables` and no other setting of ours."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("CARILLON_")]:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_a_value_can_be_in_a_file_as_containers_are_given_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("pepper", "a secret\n"), ("key", "store's")):
        (tmp_path / name).write_text(value)
    monkeypatch.setenv("CARILLON_KEY_PEPPER_FILE", str(tmp_path / "pepper"))
    monkeypatch.setenv("CARILLON_STORE__SECRET_KEY_FILE", str(tmp_path / "key"))
    settings = load_settings()
    assert settings.key_pepper.get_secret_value() == "a secret"
    assert settings.store.secret_key.get_secret_value() == "store's"


def test_a_file_that_is_not_there_or_a_value_beside_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARILLON_KEY_PEPPER_FILE", str(tmp_path / "nothing"))
    with pytest.raises(ConfigurationError, match=r"CARILLON_KEY_PEPPER_FILE: .*nothing cannot be read as text"):
        load_settings()
    monkeypatch.setenv("CARILLON_KEY_PEPPER", "a secret")
    with pytest.raises(ConfigurationError, match="CARILLON_KEY_PEPPER is set, too"):
        load_settings()


def test_without_any_variable_everything_is_embedded_and_the_stand_in_speaks() -> None:
    with environment():
        settings = load_settings()
    assert (settings.redis_url, settings.store.endpoint_url, settings.database_url) == (None, None, None)
    assert settings.model == str(STAND_IN / "model")
    assert settings.auth


def test_the_database_is_a_file_in_the_data_directory_until_one_is_named() -> None:
    with environment(CARILLON_DATA_DIR="/var/lib/carillon"):
        assert load_settings().database == "sqlite+aiosqlite:////var/lib/carillon/carillon.db"
    with environment(CARILLON_DATABASE_URL="postgresql://host/carillon"):
        assert load_settings().database == "postgresql://host/carillon"


def test_groups_nest_with_two_underscores() -> None:
    with environment(CARILLON_ENGINE__MAX_LORAS="16", CARILLON_STORE__BUCKET="voices"):
        settings = load_settings()
    assert (settings.engine.max_loras, settings.store.bucket) == (16, "voices")


@pytest.mark.parametrize("voices", ["anna, max", '["anna", "max"]'])
def test_a_list_is_words_or_json(voices: str) -> None:
    with environment(CARILLON_SPEECH__VOICES=voices, CARILLON_SPEECH__NAME="german"):
        speech = load_settings().speech
    assert speech.model_dump(exclude_unset=True) == {"name": "german", "voices": ("anna", "max")}


def test_an_empty_variable_means_it_is_not_set() -> None:
    with environment(CARILLON_REDIS_URL="", CARILLON_API_PORT=""):
        settings = load_settings()
    assert (settings.redis_url, settings.api_port) == (None, 8000)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CARILLON_API_PORT", "65536"),
        ("CARILLON_CAPACITY", "0"),
        ("CARILLON_ENGINE__MAX_LORA_RANK", "17"),
        ("CARILLON_ENGINE__TYPO", "1"),
        ("CARILLON_SESSION__LEAD_S", "soon"),
        ("CARILLON_LOG_FORMAT", "xml"),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_variable(variable: str, value: str) -> None:
    with environment(**{variable: value}), pytest.raises(ConfigurationError, match=variable):
        load_settings()


def test_a_call_that_would_not_fit_into_a_session_is_refused() -> None:
    with (
        environment(CARILLON_SESSION__MAX_PENDING_CHARS="1000"),
        pytest.raises(ConfigurationError, match=r"CARILLON_SESSION: .* max_pending_chars \(1000\)"),
    ):
        load_settings()


def test_a_misspelt_variable_is_refused_with_the_nearest_one() -> None:
    with environment(CARILLON_CAPACTIY="9"), pytest.raises(ConfigurationError, match="did you mean CARILLON_CAPACITY"):
        load_settings()


def test_variables_of_the_command_line_are_no_mistake() -> None:
    with environment(CARILLON_URL="http://host", CARILLON_KEY="cari_", CARILLON_BUILD="cpu"):
        load_settings()


def test_several_mistakes_are_told_at_once() -> None:
    with environment(CARILLON_CAPACITY="0", CARILLON_API_PORT="x"), pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert "CARILLON_CAPACITY" in caught.value.message
    assert "CARILLON_API_PORT" in caught.value.message


def test_a_refusal_does_not_repeat_a_secret() -> None:
    with environment(CARILLON_CAPACITY="hunter2"), pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert "hunter2" not in caught.value.message


def test_secrets_are_not_printed() -> None:
    with environment(CARILLON_REDIS_URL="redis://:hunter2@host/0", CARILLON_KEY_PEPPER="hunter2"):
        settings = load_settings()
    assert "hunter2" not in f"{settings!r} {settings}"


@pytest.mark.parametrize(
    "change",
    [
        lambda settings: setattr(settings, "api_port", 1),
        lambda settings: setattr(settings.engine, "max_loras", 1),
        lambda settings: setattr(settings.store, "bucket", "x"),
    ],
)
def test_settings_do_not_change(change: Callable[[Settings], None], tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        change(Settings(data_dir=tmp_path))
