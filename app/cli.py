"""The `carillon` command. Every command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.core.errors import CarillonError
from app.core.models import Scope
from app.infra.settings import Settings, load_settings

if TYPE_CHECKING:
    from app.infra.catalog import Catalog

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="A fleet of voices.")
keys = typer.Typer(no_args_is_help=True, help="API keys: make, show, end.")
bench = typer.Typer(no_args_is_help=True, help="Measurements.")
cli.add_typer(keys, name="keys")
cli.add_typer(bench, name="bench")


def main() -> None:
    """Run the command line. An error of ours ends it with its message and status 1, without a traceback."""
    try:
        cli()
    except CarillonError as error:
        print(f"carillon: {error.message}", file=sys.stderr)
        sys.exit(1)


def _settings() -> Settings:
    from app.infra.embedded import with_local_secrets

    return with_local_secrets(load_settings())


@cli.command()
def up(
    workers: Annotated[int, typer.Option(min=0, help="GPU workers to start.")] = 1,
    logs: Annotated[bool, typer.Option(help="Show what every part says, not only in data/logs.")] = False,
) -> None:
    """Run the whole fleet on this machine until Ctrl-C; what is not configured is embedded."""
    from app.up import up as run

    asyncio.run(run(load_settings(), workers=workers, out=sys.stdout, show_logs=logs))


@cli.command()
def api() -> None:
    """Run a front door."""
    from app.infra.logs import configure_logging
    from app.main import serve

    settings = load_settings()
    configure_logging(settings)
    asyncio.run(_migrate_sqlite(settings))
    serve(settings)


async def _migrate_sqlite(settings: Settings) -> None:
    """A file of our own is brought up to date at once; a server is migrated when its owner says so."""
    if settings.database.startswith("sqlite"):
        await _migrate(settings)


async def _migrate(settings: Settings) -> None:
    async with _catalog(settings) as catalog:
        await catalog.migrate()


@cli.command()
def worker() -> None:
    """Run a GPU worker: one engine, one process."""
    from app.infra.logs import configure_logging
    from workers.main import run

    settings = load_settings()
    configure_logging(settings)
    run(settings)


@cli.command()
def tasks() -> None:
    """Run queued work: cloning, narration, housekeeping."""
    # Read when Celery is imported: SIGTERM then means the soft shutdown, not "after the task in work".
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
    from app.infra.logs import configure_logging
    from tasks.app import run

    settings = load_settings()
    configure_logging(settings)
    run(settings)


@cli.command()
def migrate() -> None:
    """Bring the database's tables to this version's form."""
    asyncio.run(_migrate(_settings()))
    typer.echo("the tables are up to date")


@cli.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Say what is missing or wrong here, and how to mend it. Status 1 when something fails."""
    from app.doctor import Level, examine

    findings = asyncio.run(examine(load_settings()))
    if as_json:
        typer.echo(json.dumps([finding.model_dump() for finding in findings], indent=2))
    else:
        for finding in findings:
            typer.echo(finding.line())
    if any(finding.level is Level.FAILURE for finding in findings):
        raise typer.Exit(1)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose it is; for the list.")],
    scope: Annotated[list[Scope] | None, typer.Option(help="What it may do; repeat for more.")] = None,
    days: Annotated[float | None, typer.Option(min=0, help="How long it holds; for good without this.")] = None,
) -> None:
    """Make a key and print its token, which is shown this once."""

    async def create() -> str:
        async with _catalog(_settings()) as catalog:
            await catalog.migrate()
            expires_at = datetime.now(UTC) + timedelta(days=days) if days is not None else None
            return (await catalog.create_key(name, scope or [Scope.SPEAK], expires_at=expires_at)).token

    typer.echo(asyncio.run(create()))


@keys.command("list")
def list_keys(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show the keys; not their tokens, which are not kept."""

    async def listed() -> list[dict[str, Any]]:
        async with _catalog(_settings()) as catalog:
            await catalog.migrate()
            return [key.model_dump(mode="json") for key in await catalog.keys()]

    found = asyncio.run(listed())
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for key in found:
        state = "revoked" if key["revoked_at"] else f"until {key['expires_at']}" if key["expires_at"] else "valid"
        used = f"last used {key['last_used_at']}" if key["last_used_at"] else "never used"
        typer.echo(f"{key['id']}  {key['name']:20}  {', '.join(sorted(key['scopes'])):20}  {state}  {used}")


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """End a key at once."""

    async def revoke() -> None:
        async with _catalog(_settings()) as catalog:
            await catalog.migrate()
            await catalog.revoke(key_id)

    asyncio.run(revoke())
    typer.echo(f"{key_id} is revoked")


@asynccontextmanager
async def _catalog(settings: Settings) -> AsyncIterator[Catalog]:
    from app.infra.catalog import Catalog

    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    try:
        yield catalog
    finally:
        await catalog.aclose()


if __name__ == "__main__":
    main()
