"""`carillon pronunciations`: pronunciation dictionaries of a key or a voice."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from app.cli.lists import columns
from app.cli.options import AsJson, Key, Url, name_value_pairs
from app.cli.target import open_client
from app.errors import ConfigurationError

Voice = Annotated[str | None, typer.Option(help="Whose dictionary; default: this key's, for whatever it speaks.")]

pronunciations = typer.Typer(no_args_is_help=True, help="Say words otherwise than they are written.")


@pronunciations.command("list")
def list_words(voice: Voice = None, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """List the words of a dictionary, and how they are said."""
    with open_client(url, key) as client:
        words = client.pronunciations.get(voice)
    for line in [json.dumps(words, ensure_ascii=False, indent=2)] if as_json else columns(sorted(words.items())):
        typer.echo(line)


@pronunciations.command("set")
def set_words(
    words: Annotated[list[str], typer.Argument(metavar="WORD=RESPELLING…", help="As nginx=engine-x.")],
    voice: Voice = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Add words, or say them otherwise than before; the others stay."""
    wanted = name_value_pairs(words, "WORD=RESPELLING")
    with open_client(url, key) as client:
        before = client.pronunciations.get(voice)
        again = {word.casefold() for word in wanted}
        kept = {word: said for word, said in before.items() if word.casefold() not in again}
        client.pronunciations.put(voice, kept | wanted)


@pronunciations.command("remove")
def remove_words(
    words: Annotated[list[str], typer.Argument(metavar="WORD…")],
    voice: Voice = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Say words as they are written again."""
    unwanted = {word.casefold() for word in words}
    with open_client(url, key) as client:
        before = client.pronunciations.get(voice)
        if missing := unwanted - {word.casefold() for word in before}:
            raise ConfigurationError(f"{', '.join(sorted(missing))}: not in this dictionary; see `pronunciations list`")
        client.pronunciations.put(voice, {w: said for w, said in before.items() if w.casefold() not in unwanted})
