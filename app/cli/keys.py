"""`carillon keys …`: API keys made, shown and ended."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from app.cli.options import AsJson, Key, Url
from app.speech.choices import MAX_KEY_DAYS, Scope

keys = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="API keys: make, show, end.")


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose it is; for the list.")],
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it may do; repeat for more.", show_default="speak")
    ] = None,
    days: Annotated[float | None, typer.Option(help="How long it holds; for good without this.")] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Make a key and print its token, which is shown this once."""
    from app.cli.keyring import open_keyring

    if days is not None and not 0 < days <= MAX_KEY_DAYS:
        raise typer.BadParameter(f"{days:g} is not between 0 and {MAX_KEY_DAYS}", param_hint="--days")
    typer.echo(open_keyring(url, key).create(name, scope or [Scope.SPEAK], days))


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
