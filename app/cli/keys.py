"""`carillon keys …` and `carillon projects …`: API keys made, rotated, shown and ended, and whose they are."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from app.cli.options import AsJson, Key, Url
from app.speech.choices import MAX_KEY_DAYS, MAX_OVERLAP_HOURS, Scope

keys = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="API keys: make, rotate, show, end.")
projects = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Projects, which own voices: make, show.")


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose it is; for the list.")],
    *,
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it may do; repeat for more.", show_default="speak")
    ] = None,
    days: Annotated[float | None, typer.Option(help="How long it holds; for good without this.")] = None,
    expires: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], metavar="DATE", help="Or until when: a day begins, UTC.")
    ] = None,
    project: Annotated[str | None, typer.Option(help="Its project's id or name; the default one without this.")] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Make a key and print its token, which is shown this once."""
    from app.cli.keyring import open_keyring

    option = "--days" if expires is None else "--expires"
    if expires is not None:
        if days is not None:
            raise typer.BadParameter("--days says how long already; give one of them", param_hint="--expires")
        days = (expires.replace(tzinfo=UTC) - datetime.now(UTC)) / timedelta(days=1)
    if days is not None and not 0 < days <= MAX_KEY_DAYS:
        raise typer.BadParameter(f"{days:g} is not between 0 and {MAX_KEY_DAYS}", param_hint=option)
    typer.echo(open_keyring(url, key).create(name, scope or [Scope.SPEAK], days, project))


@keys.command("rotate")
def rotate_key(
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=MAX_OVERLAP_HOURS, help="How long the token before holds beside the new one.")
    ] = 24,
    url: Url = None,
    key: Key = None,
) -> None:
    """Give a key another token and print that, which is shown this once."""
    from app.cli.keyring import open_keyring

    typer.echo(open_keyring(url, key).rotate(key_id, overlap_hours))


@keys.command("list")
def list_keys(as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Show the keys; not their tokens, which are not kept."""
    from app.cli.keyring import open_keyring

    found = open_keyring(url, key).all()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for one in found:
        typer.echo(_line(one))


def _line(key: dict[str, Any]) -> str:
    state = "revoked" if key["revoked_at"] else f"until {key['expires_at']}" if key["expires_at"] else "valid"
    used = f"last used {key['last_used_at']}" if key["last_used_at"] else "never used"
    return f"{key['id']}  {key['name']:20}  {', '.join(sorted(key['scopes'])):20}  {state}  {used}"


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(metavar="ID")], url: Url = None, key: Key = None) -> None:
    """End a key at once."""
    from app.cli.keyring import open_keyring

    open_keyring(url, key).revoke(key_id)
    typer.echo(f"{key_id} is revoked")


@projects.command("create")
def create_project(
    name: Annotated[str, typer.Argument(help="Whose it is; for the list.")], url: Url = None, key: Key = None
) -> None:
    """Make a project and print its id; `carillon keys create NAME --project ID` makes a key of it."""
    from app.cli.keyring import open_keyring

    typer.echo(open_keyring(url, key).create_project(name)["id"])


@projects.command("list")
def list_projects(as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Show the projects."""
    from app.cli.keyring import open_keyring

    found = open_keyring(url, key).projects()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for one in found:
        typer.echo(f"{one['id']:20}  {one['name']}")
