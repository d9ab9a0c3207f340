"""A copy of catalogue and store, and what comes back of it. `make test-real` runs it on PostgreSQL and another S3."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from app.catalog import Catalog
from app.cli.main import cli
from app.errors import ConfigurationError, Conflict, InvalidRequest
from app.platform.backup import CATALOGUE, Copied, back_up, restore
from app.platform.database import utc_now
from app.platform.object_store import ObjectStore
from app.platform.settings import Settings, StoreSettings
from app.speech.choices import Scope
from app.speech.recipe import CloneConfig
from app.voices.models import CloneKind

pytestmark = pytest.mark.anyio

PEPPER = SecretStr("pepper")


@pytest.fixture
async def catalog(settings_url: str) -> AsyncIterator[Catalog]:
    catalog = Catalog(settings_url, pepper=PEPPER)
    await catalog.migrate()
    yield catalog
    await catalog.aclose()


@pytest.fixture
def settings_url(tmp_path: Path) -> str:
    return Settings(data_dir=tmp_path / "first").database


@pytest.fixture
async def fresh(tmp_path: Path) -> AsyncIterator[Catalog]:
    """An empty catalogue, of SQLite: whatever the first one is."""
    catalog = Catalog(f"sqlite:///{tmp_path / 'second.db'}", pepper=PEPPER)
    yield catalog
    await catalog.aclose()


@pytest.fixture
def other_store(rclone: StoreSettings) -> ObjectStore:
    return ObjectStore(rclone.model_copy(update={"bucket": f"test-{uuid4().hex}"}))


async def filled(catalog: Catalog, store: ObjectStore) -> tuple[str, str]:
    """A voice with a version and a job, and a key that opens something."""
    key = await catalog.keys.create("laptop", {Scope.SPEAK})
    voice = await catalog.voices.create("Zoë", model="orpheus")
    await catalog.jobs.create(voice.id, kind=CloneKind.CLONE, config=CloneConfig())
    store.put(f"voices/{voice.id}/1/adapter_model.safetensors", b"weights")
    await catalog.voices.add_version(
        voice.id, uri=store.uri(f"voices/{voice.id}/1"), sha256={"adapter_model.safetensors": "00"}, rank=16
    )
    return key.token, voice.id


async def test_what_was_copied_comes_back_whole(
    catalog: Catalog, fresh: Catalog, object_store: ObjectStore, other_store: ObjectStore, tmp_path: Path
) -> None:
    token, voice_id = await filled(catalog, object_store)
    copied = await back_up(catalog.database, object_store, tmp_path / "copy")
    assert copied == Copied(rows=copied.rows, objects=1, copied=1)

    assert await restore(fresh.database, other_store, tmp_path / "copy") == copied

    assert (await fresh.keys.authenticate(token)).name == "laptop"
    assert await fresh.voices.get(voice_id) == await catalog.voices.get(voice_id)
    assert await fresh.jobs.all() == await catalog.jobs.all()
    assert other_store.get(f"voices/{voice_id}/1/adapter_model.safetensors") == b"weights"


async def test_new_versions_are_numbered_behind_those_that_came_back(
    catalog: Catalog, fresh: Catalog, object_store: ObjectStore, other_store: ObjectStore, tmp_path: Path
) -> None:
    _, voice_id = await filled(catalog, object_store)
    await back_up(catalog.database, object_store, tmp_path / "copy")
    await restore(fresh.database, other_store, tmp_path / "copy")
    version = await fresh.voices.add_version(voice_id, uri="s3://b/v/", sha256={"a": "0"}, rank=16)
    assert (version.version, version.lora_id) == (2, 2)


async def test_a_second_copy_takes_what_is_new(catalog: Catalog, object_store: ObjectStore, tmp_path: Path) -> None:
    await filled(catalog, object_store)
    await back_up(catalog.database, object_store, tmp_path / "copy")
    object_store.put("narrations/n/book.m4b", b"chapters")
    again = await back_up(catalog.database, object_store, tmp_path / "copy")
    assert (again.objects, again.copied) == (2, 1)


async def test_nothing_is_restored_over_what_is_there(
    catalog: Catalog, object_store: ObjectStore, tmp_path: Path
) -> None:
    await filled(catalog, object_store)
    await back_up(catalog.database, object_store, tmp_path / "copy")
    with pytest.raises(Conflict, match="into an empty database"):
        await restore(catalog.database, object_store, tmp_path / "copy")


async def test_a_copy_of_another_version_is_refused(
    catalog: Catalog, fresh: Catalog, object_store: ObjectStore, tmp_path: Path
) -> None:
    await back_up(catalog.database, object_store, tmp_path / "copy")
    head = json.dumps({"format": 1, "revision": "0001"})
    (tmp_path / "copy" / CATALOGUE).write_text(f"{head}\n")
    with pytest.raises(ConfigurationError, match="revision 0001"):
        await restore(fresh.database, object_store, tmp_path / "copy")


async def test_no_object_lands_outside_the_copy(catalog: Catalog, object_store: ObjectStore, tmp_path: Path) -> None:
    class Hostile(ObjectStore):
        def written(self, prefix: str) -> Iterator[tuple[str, datetime]]:
            yield "../../outside", utc_now()

    hostile = Hostile(StoreSettings(endpoint_url="http://127.0.0.1:9"))
    with pytest.raises(InvalidRequest, match="outside the copy"):
        await back_up(catalog.database, hostile, tmp_path / "copy")
    hostile.close()


def test_two_commands_move_a_catalogue(object_store: ObjectStore, rclone: StoreSettings, tmp_path: Path) -> None:
    def run(home: str, *words: str) -> str:
        variables = {
            "CARILLON_DATABASE_URL": f"sqlite:///{tmp_path / home}.db",
            "CARILLON_DATA_DIR": str(tmp_path / home),
            "CARILLON_STORE__ENDPOINT_URL": rclone.endpoint_url,
            "CARILLON_STORE__BUCKET": object_store.bucket,
            "CARILLON_STORE__ACCESS_KEY": "access",
            "CARILLON_STORE__SECRET_KEY": "secret",
            "CARILLON_KEY_PEPPER": "pepper",
            "CARILLON_FLEET_SECRET": "fleet",
        }
        result = CliRunner().invoke(cli, list(words), env=variables)
        assert result.exit_code == 0, result.output
        return result.output

    run("old", "migrate")
    run("old", "keys", "create", "laptop")
    assert "0 objects, 0 of them new" in run("old", "backup", str(tmp_path / "copy"))
    run("new", "restore", str(tmp_path / "copy"))
    assert "laptop" in run("new", "keys", "list")
