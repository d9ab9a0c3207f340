"""`carillon say`: speak a text with a running fleet into a file or a pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import Key
from app.cli.speech_file import STANDARD_OUTPUT, format_of
from app.cli.target import front_door_url, running_fleet, voices_of
from app.errors import ConfigurationError
from app.speech.choices import AudioFormat


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
    from app.cli.say_session import speak

    format = format_of(output, format)
    text = _standard_input() if text == "-" else text
    first, key = running_fleet(url[0] if url else None, key)
    urls = [first, *map(front_door_url, (url or [])[1:])]
    speak(
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
