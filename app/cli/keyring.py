"""Access to a fleet's API keys: by its front door, or by a catalogue that can be opened here.

No new catalogue is made for a key: no fleet would know that key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from app.cli.target import open_client
from app.errors import ConfigurationError
from app.speech.choices import Scope

if TYPE_CHECKING:
    from app.catalog import Catalog
    from app.platform.settings import Settings

Json = dict[str, Any]
Result = TypeVar("Result")


class Keyring(Protocol):
    """Where keys and projects are kept: `app.client.keys.Keys` or a catalogue. Every method raises CarillonError."""

    def create(self, name: str, scopes: Sequence[Scope], days: float | None, project: str | None = None) -> str:
        """The token of a new key, of the default project unless another's id or name is given."""
        ...

    def rotate(self, key_id: str, overlap_hours: float) -> str:
        """The new token of a key."""
        ...

    def all(self) -> list[Json]: ...

    def revoke(self, key_id: str) -> None: ...

    def create_project(self, name: str) -> Json: ...

    def projects(self) -> list[Json]: ...


def open_keyring(url: str | None, key: str | None) -> Keyring:
    """The keys of the fleet that is named, of the database that is configured, or of the fleet here, in this order.

    Raises ConfigurationError where there is none of them.
    """
    from app.platform.data_dir import read_run_file
    from app.platform.settings import load_settings

    settings = load_settings()
    if url is not None:
        return open_client(url, key).keys
    if settings.database_url is not None:
        return CatalogKeyring(_with_pepper(settings), new=True)
    running = read_run_file(settings.data_dir) or {}
    if "api" in running and (here := open_client(None, key)).is_reachable():
        return here.keys
    if settings.database_file.exists():
        return CatalogKeyring(_with_pepper(settings))
    raise ConfigurationError(
        f"no fleet's keys are kept in {settings.data_dir.absolute()}; run this where `make up` runs, or set "
        "CARILLON_DATA_DIR to that fleet's data directory, CARILLON_DATABASE_URL to its database, or CARILLON_URL and "
        "CARILLON_KEY to its front door and a key with the scope `admin`"
    )


def _with_pepper(settings: Settings) -> Settings:
    """Raises ConfigurationError where the pepper is not known under which the fleet keeps its keys."""
    from app.platform.data_dir import secrets_file, with_local_secrets

    file = secrets_file(settings.data_dir)
    if not settings.key_pepper.get_secret_value() and not file.exists():
        raise ConfigurationError(
            f"the pepper of the keys is not known: {file.absolute()} does not exist; set CARILLON_KEY_PEPPER as the "
            "fleet has it, or CARILLON_DATA_DIR to its data directory"
        )
    return settings if settings.key_pepper.get_secret_value() else with_local_secrets(settings)


class CatalogKeyring:
    """The keys of a catalogue that can be opened from here. `new`: it may have no tables yet."""

    def __init__(self, settings: Settings, *, new: bool = False) -> None:
        self._settings = settings
        self._new = new

    def create(self, name: str, scopes: Sequence[Scope], days: float | None, project: str | None = None) -> str:
        async def create(catalog: Catalog) -> str:
            lifetime = None if days is None else timedelta(days=days)
            owner = None if project is None else (await catalog.projects.find(project)).id
            return (await catalog.keys.create(name, scopes, lifetime=lifetime, project=owner)).token

        return self._with_catalog(create)

    def rotate(self, key_id: str, overlap_hours: float) -> str:
        async def rotate(catalog: Catalog) -> str:
            return (await catalog.keys.rotate(key_id, overlap=timedelta(hours=overlap_hours))).token

        return self._with_catalog(rotate)

    def all(self) -> list[Json]:
        async def listed(catalog: Catalog) -> list[Json]:
            return [key.model_dump(mode="json") for key in await catalog.keys.all()]

        return self._with_catalog(listed)

    def revoke(self, key_id: str) -> None:
        async def revoke(catalog: Catalog) -> None:
            await catalog.keys.revoke(key_id)

        self._with_catalog(revoke)

    def create_project(self, name: str) -> Json:
        async def create(catalog: Catalog) -> Json:
            return (await catalog.projects.create(name)).model_dump(mode="json")

        return self._with_catalog(create)

    def projects(self) -> list[Json]:
        async def listed(catalog: Catalog) -> list[Json]:
            return [project.model_dump(mode="json") for project in await catalog.projects.all()]

        return self._with_catalog(listed)

    def _with_catalog(self, work: Callable[[Catalog], Awaitable[Result]]) -> Result:
        return asyncio.run(self._worked(work))

    async def _worked(self, work: Callable[[Catalog], Awaitable[Result]]) -> Result:
        from app.catalog import Catalog

        catalog = Catalog(self._settings.database, pepper=self._settings.key_pepper)
        try:
            if self._new:
                await catalog.migrate()
            return await work(catalog)
        finally:
            await catalog.aclose()
