"""The `carillon` command. Every command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import io
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from app.cli.backup import backup, restore
from app.cli.bench import bench, simulate
from app.cli.clone import clone, polish
from app.cli.console import console
from app.cli.demo import demo
from app.cli.drain import drain
from app.cli.keys import keys, projects
from app.cli.lists import jobs, narrations, usage, voices
from app.cli.narrate import narrate
from app.cli.operate import api, doctor, migrate, tasks, up, worker
from app.cli.pronunciations import pronunciations
from app.cli.say import say
from app.errors import CarillonError


class Commands(TyperGroup):
    """Says what is wrong with an option in the words of `app.speech.field_errors`, not in pydantic's."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            from pydantic import ValidationError

            from app.speech.field_errors import reason

            if isinstance(error.__cause__, ValidationError):
                error.message = reason(error.__cause__.errors()[0])
            raise


cli = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cli.add_typer(keys, name="keys")
cli.add_typer(projects, name="projects")
cli.add_typer(bench, name="bench")
cli.add_typer(pronunciations, name="pronunciations")
for command in (up, api, worker, tasks, migrate, doctor, backup, restore):
    cli.command()(command)
for command in (say, clone, polish, narrate, demo, console, drain, voices, jobs, narrations, usage, simulate):
    cli.command()(command)


def main() -> None:
    """Run the command line. An error that is foreseen ends it with its message and status 1, without a traceback."""
    for stream in (sys.stdout, sys.stderr):  # a terminal without some letter is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # httpx imports its own command line, and that rich and pygments: more than most commands cost by themselves.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    try:
        cli()
    except CarillonError as error:
        _end_with(error.message)
    except OSError as error:  # a file that was named cannot be read or written; anything else is a defect
        if error.filename is None:
            raise
        _end_with(f"{error.filename}: {error.strerror}")


def _end_with(message: str) -> NoReturn:
    print(f"carillon: {message}", file=sys.stderr)
    sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"carillon {version('carillon')}")
        raise typer.Exit()


@cli.callback()
def carillon(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and end.")
    ] = False,
) -> None:
    """A fleet of voices."""


if __name__ == "__main__":
    main()
