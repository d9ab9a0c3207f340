"""The `carillon` command. Every command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from app.cli.bench import bench, simulate
from app.cli.keys import keys
from app.cli.lists import jobs, narrations, voices
from app.cli.target import AsJson, Key, Url, front_door_url, running_fleet, voices_of
from app.errors import CarillonError, ConfigurationError
from app.speech.choices import AudioFormat

if TYPE_CHECKING:
    from app.catalog import Catalog
    from app.platform.settings import Settings

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
cli.add_typer(keys, name="keys")
cli.add_typer(bench, name="bench")
for command in (voices, jobs, narrations, simulate):
    cli.command()(command)


def main() -> None:
    """Run the command line. An error that is foreseen ends it with its message and status 1, without a traceback."""
    for stream in (sys.stdout, sys.stderr):  # a terminal without some letter is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        cli()
    except CarillonError as error:
        _end_with(error.message)
    except OSError as error:  # a file that somebody named cannot be read or written; anything else is a defect
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


def _settings() -> Settings:
    """The settings, with the secrets of the data directory where none are configured: every command has the same."""
    from app.platform.data_dir import with_local_secrets
    from app.platform.settings import load_settings

    return with_local_secrets(load_settings())


@cli.command()
def up(
    workers: Annotated[int, typer.Option(min=0, help="GPU workers to start.")] = 1,
    logs: Annotated[bool, typer.Option(help="Show what every part says, not only in data/logs.")] = False,
) -> None:
    """Run the whole fleet on this machine until Ctrl-C; what is not configured is embedded."""
    from app.local.up import up as run
    from app.platform.settings import load_settings

    asyncio.run(run(load_settings(), workers=workers, out=sys.stdout, show_logs=logs))


@cli.command()
def api() -> None:
    """Run a front door."""
    from app.main import serve
    from app.platform.logs import configure_logging

    settings = _settings()
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
    from app.platform.logs import configure_logging
    from workers.main import run

    settings = _settings()
    configure_logging(settings)
    run(settings)


@cli.command()
def tasks(
    queue: Annotated[
        list[str] | None, typer.Option(help="Work on this queue only; repeat for more. Default: all of them.")
    ] = None,
) -> None:
    """Run queued work: cloning, narration, housekeeping. One job of a kind at a time, and several chapters of books.

    Somebody must work on `interactive`: webhooks and housekeeping go there.
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


@cli.command()
def migrate() -> None:
    """Bring the database's tables to this version's form, and make the store's bucket where a store is configured."""
    settings = _settings()
    asyncio.run(_migrate(settings))
    if settings.store.endpoint_url is not None:
        from app.platform.object_store import ObjectStore

        ObjectStore(settings.store).ensure_bucket()
    typer.echo("the tables are up to date")


@cli.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what is missing or wrong here, and how to mend it. Status 1 when something fails."""
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


@cli.command()
def say(
    text: Annotated[str, typer.Argument(help="What to say; - reads it from standard input.")],
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Its ending says how: .wav .mp3 .flac .opus .ogg .aac .pcm; - is standard output."
        ),
    ] = Path("out.wav"),
    format: Annotated[AudioFormat | None, typer.Option(help="For a name without such an ending.")] = None,
    speed: Annotated[float, typer.Option(min=0.25, max=4, help="Of the tempo; the pitch stays.")] = 1.0,
    voice: Annotated[str | None, typer.Option(help="Default: the first the fleet has.")] = None,
    model: Annotated[str | None, typer.Option(help="Default: whichever has the voice.")] = None,
    words_per_s: Annotated[float | None, typer.Option(min=0.1, help="Send word by word, as an LLM writes.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2)] = None,
    url: Annotated[
        list[str] | None,
        typer.Option(envvar="CARILLON_URL", help="Once for each front door. Default: the fleet of `carillon up`."),
    ] = None,
    key: Key = None,
) -> None:
    """Speak a text with a running fleet; the file grows as the audio comes."""
    from app.cli.say import say as run
    from app.cli.speech_file import STANDARD_OUTPUT, format_of

    format = format_of(output, format)
    text = _standard_input() if text == "-" else text
    first, key = running_fleet(url[0] if url else None, key)
    urls = [first, *map(front_door_url, (url or [])[1:])]
    run(
        text,
        voice=voice or voices_of(urls, key)[0],
        output=output,
        format=format,
        speed=speed,
        urls=urls,
        key=key,
        model=model,
        words_per_s=words_per_s,
        temperature=temperature,
        progress=sys.stderr,
        out=sys.stderr if output == STANDARD_OUTPUT else sys.stdout,
    )


def _standard_input() -> str:
    """Raises ConfigurationError for what is no UTF-8."""
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"standard input is not UTF-8 (byte {error.start}); convert it, or name a text"
        ) from None


@cli.command()
def clone(
    recordings: Annotated[
        Path, typer.Argument(help="A directory: audio, and manifest.csv or a .txt beside each file.")
    ],
    *,
    name: Annotated[str, typer.Option(help="Of the voice; one that exists gets a new version.")],
    model: Annotated[str | None, typer.Option(help="Default: the first the fleet serves.")] = None,
    language: Annotated[str, typer.Option()] = "en",
    consent: Annotated[Path | None, typer.Option(help="A recording of the speaker reading the phrase.")] = None,
    consent_statement: Annotated[str | None, typer.Option(help="With an admin key: where the consent is kept.")] = None,
    overrides: Annotated[str, typer.Option(help='Of the recipe, as JSON: {"train": {"epochs": 3}}.')] = "{}",
    watch: Annotated[bool, typer.Option(help="Follow the job to its end.")] = True,
    url: Url = None,
    key: Key = None,
) -> None:
    """Make a voice of a consenting speaker's recordings. Given again, it goes on where it was interrupted."""
    from app.cli.clone import Studio
    from app.cli.clone import clone as run

    with Studio(*running_fleet(url, key)) as studio:
        run(
            recordings,
            name=name,
            studio=studio,
            model=model,
            language=language,
            consent=consent,
            consent_statement=consent_statement,
            overrides=_json_object(overrides),
            watch=watch,
            out=sys.stdout,
        )


@cli.command()
def polish(
    name: Annotated[str, typer.Argument(help="A built-in voice.")],
    *,
    model: Annotated[str | None, typer.Option(help="Needed where several models have the voice.")] = None,
    overrides: Annotated[str, typer.Option(help="Of the recipe, as JSON.")] = "{}",
    watch: Annotated[bool, typer.Option(help="Follow the job to its end.")] = True,
    url: Url = None,
    key: Key = None,
) -> None:
    """Take the silence at the head from a built-in voice, with no recordings but its own.

    Given again, it follows the job that was started.
    """
    from app.cli.clone import Studio
    from app.cli.clone import polish as run

    with Studio(*running_fleet(url, key)) as studio:
        run(name, studio=studio, model=model, overrides=_json_object(overrides), watch=watch, out=sys.stdout)


def _json_object(text: str, option: str = "--overrides") -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{text!r} is no JSON object", param_hint=option)
    return value


@cli.command()
def narrate(
    book: Annotated[Path | None, typer.Argument(help="A text, Markdown or EPUB file.")] = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Its ending says how: .m4b .mp3 .flac .opus .wav.")],
    voice: Annotated[str | None, typer.Option(help="The narrator's.")] = None,
    cast: Annotated[list[str] | None, typer.Option(help="CHARACTER=VOICE; repeat for more.")] = None,
    model: Annotated[str | None, typer.Option(help="Default: whichever has the narrator's voice.")] = None,
    cover: Annotated[Path | None, typer.Option(help="A JPEG or PNG; default: the book's own.")] = None,
    options: Annotated[str, typer.Option(help='As JSON: {"pauses": {"chapter_s": 3}}.')] = "{}",
    replace: Annotated[list[str] | None, typer.Option(help="WORD=RESPELLING; repeat for more.")] = None,
    captions: Annotated[bool, typer.Option(help="Write .vtt and .srt files beside the audio.")] = False,
    resume: Annotated[
        str | None, typer.Option(metavar="ID", help="Come back to a narration; set it going again.")
    ] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Have a book read aloud by a running fleet. Ctrl-C leaves it at work; --resume comes back to it."""
    from app.cli.narrate import Publisher, Wish
    from app.cli.narrate import narrate as run

    wish = Wish(
        voice=voice,
        cast=_pairs(cast, "--cast"),
        model=model,
        options=_json_object(options, "--options"),
        replacements=_pairs(replace, "--replace"),
        cover=cover,
    )
    with Publisher(*running_fleet(url, key)) as publisher:
        run(book, output, publisher=publisher, wish=wish, resume=resume, captions=captions, out=sys.stdout)


def _pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (equals and name.strip()) or name.strip() in pairs:
            raise typer.BadParameter(f"{text!r} is no NAME=VALUE, or its name is there twice", param_hint=option)
        pairs[name.strip()] = value.strip()
    return pairs


@cli.command()
def demo(
    *,
    polish: Annotated[bool, typer.Option(help="Polish a built-in voice as well.")] = True,
    url: Url = None,
    key: Key = None,
) -> None:
    """Clone the bundled speaker on a running fleet, and print what the voice gains."""
    from app.cli.demo import demo as run

    url, key = running_fleet(url, key)
    run(url=url, key=key, with_polish=polish, out=sys.stdout)


@cli.command()
def drain(
    worker: Annotated[str | None, typer.Argument(help="Its id, as `GET /v1/fleet` has it.")] = None,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="A rolling restart: each worker once the one before is back.")
    ] = False,
    deadline: Annotated[
        float | None, typer.Option(min=0, help="Seconds its sessions may go on there. Default: the front door's.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Until the worker has ended.")] = True,
    url: Url = None,
    key: Key = None,
) -> None:
    """Let a worker end without its sessions: they go on at others. `carillon up` then starts it anew."""
    from app.cli.drain import Dispatcher
    from app.cli.drain import drain as run

    if (worker is None) != everything:
        raise typer.BadParameter("name one worker, or say --all", param_hint="WORKER")
    if everything and not wait:
        raise typer.BadParameter("--all waits for each worker before the next", param_hint="--no-wait")
    with Dispatcher(*running_fleet(url, key)) as dispatcher:
        run(
            [worker] if worker else [],
            dispatcher=dispatcher,
            deadline_s=deadline,
            wait=wait,
            rolling=everything,
            out=sys.stdout,
        )


@asynccontextmanager
async def _catalog(settings: Settings) -> AsyncIterator[Catalog]:
    from app.catalog import Catalog

    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    try:
        yield catalog
    finally:
        await catalog.aclose()


if __name__ == "__main__":
    main()
