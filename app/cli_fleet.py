"""Which fleet a command speaks to: the one that is named, or that of `carillon up` here."""

from __future__ import annotations

from app.core.errors import ConfigurationError
from app.infra.settings import LOOPBACK_HOSTS, load_settings


def running_fleet(url: str | None, key: str | None) -> tuple[str, str | None]:
    """The front door to speak to and the key to it; what is not given is that of `carillon up` here."""
    from app.infra.embedded import load_secrets
    from app.up import read_run_file

    data_dir = load_settings().data_dir
    running = read_run_file(data_dir)
    if url is None:
        if running is None or "api" not in running:
            raise ConfigurationError(
                f"no fleet runs on {data_dir}; start one with `carillon up`, or name one with --url and --key"
            )
        url = str(running["api"])
    if key is None and running is not None and url == running.get("api"):
        token = load_secrets(data_dir).api_token
        key = token.get_secret_value() if token else None
    return url, key


def voices_of(url: str, key: str | None) -> list[str]:
    """The names of the fleet's voices, built-in ones first. Raises ConfigurationError when it tells none."""
    import httpx

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    # A proxy of the environment does not know what is on this machine.
    through_proxy = httpx.URL(url).host not in LOOPBACK_HOSTS
    try:
        answer = httpx.get(f"{url}/v1/audio/voices", headers=headers, trust_env=through_proxy)
        voices = answer.raise_for_status().json()["voices"]
    except httpx.HTTPError as error:
        raise ConfigurationError(f"{url} does not tell its voices ({error}); name one with --voice") from None
    if not voices:
        raise ConfigurationError(f"the fleet at {url} has no voice yet; is a worker running?")
    return [voice["name"] for voice in voices]
