"""`carillon up`, `api`, `worker`, `tasks`, `migrate`, `doctor`: the operator's commands.

Each imports what it needs when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import AsJson

if TYPE_CHECKING:
    from app.platform.settings import Settings


def up(
    workers: Annotated[int, typer.Option(min=0, help="GPU workers to start.")] = 1,
    logs: Annotated[bool, typer.Option(help="Show what every part says, not only in data/logs.")] = False,
) -> None:
    """Run the whole fleet on this machine until Ctrl-C; what is not configured is embedded."""
    from app.local.up import up as run
    from app.platform.settings import load_settings

    asyncio.run(run(load_settings(), workers=workers, out=sys.stdout, show_logs=logs))


def api(
    processes: Annotated[int, typer.Option(min=1, help="Front doors on one port: one core each.")] = 1,
    shared_port: Annotated[
        bool, typer.Option("--shared-port", help="Let other front doors of this user listen on the same port.")
    ] = False,
) -> None:
    """Run a front door, or several on one port."""
    from app.platform.logs import configure_logging

    settings = _settings()
    configure_logging(settings)
    asyncio.run(_migrate_sqlite(settings))
    if processes > 1:
        from app.local.front_doors import serve as serve_several

        raise typer.Exit(asyncio.run(serve_several(settings.api_host, settings.api_port, processes=processes)))
    from app.main import serve

    serve(settings, shared_port=shared_port)


def worker() -> None:
    """Run a GPU worker: one engine, one process."""
    from app.platform.logs import configure_logging
    from workers.openmp import bound_openmp

    bound_openmp()
    from workers.main import run  # brings torch along

    settings = _settings()
    configure_logging(settings)
    run(settings)


def tasks(
    queue: Annotated[
        list[str] | None, typer.Option(help="Work on this queue only; repeat for more. Default: all of them.")
    ] = None,
) -> None:
    """Run queued work: cloning, narration, housekeeping. One job of a kind at a time, and several chapters of books.

    One process of a fleet must work on `interactive`: webhooks and housekeeping go there.
    """
    # Read when Celery is imported: SIGTERM then means the soft shutdown, not "after the task in work".
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
    from app.platform.broker import QUEUES
    from app.platform.logs import configure_logging
    from tasks.app import run

    if unknown := set(queue or ()) - set(QUEUES):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: choose of {', '.join(QUEUES)}", param_hint="--queue")
    settings = _settings()
    configure_logging(settings)
    run(settings, queues=tuple(queue or QUEUES))


def migrate() -> None:
    """Bring the database's tables to this version's form, and make the store's bucket where a store is configured."""
    settings = _settings()
    asyncio.run(_migrate(settings))
    if settings.store.endpoint_url is not None:
        from app.platform.object_store import ObjectStore

        ObjectStore(settings.store).ensure_bucket()
    typer.echo("the tables are up to date")


def doctor(as_json: AsJson = False) -> None:
    """Check this installation, and print what is wrong with its remedies. Status 1 when something fails."""
    from app.cli.doctor import Level, examine
    from app.platform.settings import load_settings

    findings = asyncio.run(examine(load_settings()))
    if as_json:
        typer.echo(json.dumps([finding.model_dump() for finding in findings], indent=2))
    else:
        for finding in findings:
            typer.echo(finding.line())
    if any(finding.level is Level.FAILURE for finding in findings):
        raise typer.Exit(1)


def _settings() -> Settings:
    """The settings, with the secrets of the data directory where none are configured: every command has the same."""
    from app.platform.data_dir import with_local_secrets
    from app.platform.settings import load_settings

    return with_local_secrets(load_settings())


async def _migrate_sqlite(settings: Settings) -> None:
    """A file of our own is brought up to date at once; a server is migrated when its owner says so."""
    if settings.database.startswith("sqlite"):
        await _migrate(settings)


async def _migrate(settings: Settings) -> None:
    from app.catalog import Catalog

    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    try:
        await catalog.migrate()
    finally:
        await catalog.aclose()
