"""Selects the fleet of a command: the given one, or that of `carillon up` here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from app.errors import ConfigurationError, WorkerLost

if TYPE_CHECKING:
    from app.client.http import ApiClient


def running_fleet(url: str | None, key: str | None) -> tuple[str, str | None]:
    """The front door to use and the key to it; what is not given is that of `carillon up` here.

    Raises ConfigurationError when no fleet runs here and none is named.
    """
    from app.platform.data_dir import load_secrets, read_run_file
    from app.platform.settings import load_settings

    data_dir = load_settings().data_dir
    running = read_run_file(data_dir)
    here = str(running["api"]) if running and "api" in running else None
    if url is not None:
        url = front_door_url(url)
    elif here is not None:
        url = here
    elif running:
        raise ConfigurationError(f"the fleet on {data_dir.absolute()} is starting; wait until it says `ready`")
    else:
        raise ConfigurationError(
            f"no fleet runs on {data_dir.absolute()}; start one with `make up`, or name one with --url and --key "
            "(CARILLON_URL, CARILLON_KEY)"
        )
    if key is None and url == here:
        token = load_secrets(data_dir).api_token
        key = token.get_secret_value() if token else None
    return url, key


def open_client(url: str | None, key: str | None) -> ApiClient:
    """A client of that fleet. Raises ConfigurationError."""
    from app.client.http import ApiClient

    return ApiClient(*running_fleet(url, key))


def front_door_url(text: str) -> str:
    """An address as it was given, checked. Raises ConfigurationError."""
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        fits = False
    if not fits:
        raise ConfigurationError(f"{text!r} is no address of a front door; one looks like http://127.0.0.1:8000")
    return text.rstrip("/")


def voices_of(urls: Sequence[str], key: str | None) -> list[str]:
    """The names of the fleet's voices, built-in ones first, from the first of its front doors that answers.

    Raises ConfigurationError when there are none, WorkerLost when none answers, and what is refused with.
    """
    from app.client.http import ApiClient

    for number, url in enumerate(urls, start=1):
        try:
            with ApiClient(url, key) as client:
                voices = client.voices.speakable()
        except WorkerLost:
            if number == len(urls):
                raise
        else:
            if not voices:
                raise ConfigurationError(f"the fleet at {url} has no voice yet: no worker of it is ready")
            return [voice["name"] for voice in voices]
    raise ConfigurationError("no front door's address is given")
