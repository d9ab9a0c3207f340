"""`carillon backup DIRECTORY` and `carillon restore DIRECTORY`: catalogue and store, where the fleet's settings are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from app.platform.backup import Copied

Directory = Annotated[Path, typer.Argument(help="Where the copy lies.")]


def backup(directory: Directory) -> None:
    """Copy catalogue and store into a directory; again into the same one, it copies what is new. The fleet may run."""
    from app.platform.backup import back_up

    copied = _run(lambda database, store: back_up(database, store, directory))
    typer.echo(f"{copied.rows} rows; {copied.objects} objects, {copied.copied} of them new, in {directory}")
    typer.echo("CARILLON_KEY_PEPPER is not in it: without the same one, its API keys open nothing")


def restore(directory: Directory) -> None:
    """Bring a copy back into an empty database, and into the store what that lacks. Start the fleet afterwards."""
    from app.platform.backup import restore as bring

    copied = _run(lambda database, store: bring(database, store, directory))
    typer.echo(f"{copied.rows} rows; {copied.objects} objects, {copied.copied} of them were missing in the store")


def _run(work: Callable[[Any, Any], Coroutine[Any, Any, Copied]]) -> Copied:
    from app.platform.database import Database
    from app.platform.object_store import ObjectStore
    from app.platform.settings import load_settings

    settings = load_settings()

    async def run() -> Copied:
        database, store = Database(settings.database), ObjectStore(settings.store)
        try:
            return await work(database, store)
        finally:
            store.close()
            await database.aclose()

    return asyncio.run(run())
