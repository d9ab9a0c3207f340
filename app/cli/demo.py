"""`carillon demo`: one command from a bundled speaker's recordings to a voice, and what that changes, measured.

It is a client of a running fleet: uploads, consent, job, sessions, the new voice beside a base voice in one batch.
The figures are medians over the same prompts, voices in turn.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from app.cli.clone import clone_voice, polish_voice
from app.cli.options import Key, Url
from app.cli.target import running_fleet
from app.errors import ConfigurationError

if TYPE_CHECKING:
    from app.cli.demo_sessions import MeasuredVoice
    from app.client.http import ApiClient

RECORDINGS = Path(__file__).resolve().parents[2] / "training" / "demo" / "recordings"
NAME = "heron"
CONSENT = "The recordings are of a synthetic voice (flite's awb) and bundled with Carillon; no consent is needed."

Json = dict[str, Any]


def demo(
    *,
    polish: Annotated[bool, typer.Option(help="Polish a built-in voice as well.")] = True,
    url: Url = None,
    key: Key = None,
) -> None:
    """Clone the bundled speaker on a running fleet, and print what the voice gains."""
    url, key = running_fleet(url, key)
    run_demo(url=url, key=key, with_polish=polish, out=sys.stdout)


def run_demo(*, url: str, key: str | None, with_polish: bool, out: TextIO) -> None:
    """Clone the bundled speaker, polish a built-in voice, and print before and after. Raises CarillonError."""
    from app.cli.demo_sessions import measure, side_by_side
    from app.client.http import ApiClient

    with ApiClient(url, key) as client:
        base = _base_voice(client)
        out.write(f"{NAME}: {len(list(RECORDINGS.glob('*.ogg')))} recordings of a speaker this model has never heard\n")
        began = time.monotonic()
        job = clone_voice(
            RECORDINGS,
            name=NAME,
            client=client,
            consent_statement=CONSENT,
            watch=True,
            out=out,
        )
        minutes = (time.monotonic() - began) / 60
        _print(out, (base, NAME), job, minutes, asyncio.run(measure(url, key, (base, NAME))))
        asyncio.run(side_by_side(url, key, (base, NAME), out))
        if with_polish:
            before = asyncio.run(measure(url, key, (base,)))
            began = time.monotonic()
            job = polish_voice(base, client=client, watch=True, out=out)
            minutes = (time.monotonic() - began) / 60
            after = asyncio.run(measure(url, key, (base,)))
            _print(out, (f"{base} before", f"{base} polished"), job, minutes, [*before, *after])


def _base_voice(client: ApiClient) -> str:
    """A built-in voice that has not been polished yet, or else the first."""
    voices = client.voices.speakable()
    built_in = [voice["name"] for voice in voices if voice["kind"] == "built_in"]
    if not built_in:
        raise ConfigurationError("no worker serves a model with voices of its own; is a worker running?")
    clones = {voice["name"] for voice in voices if voice["kind"] == "clone"}
    return next((name for name in built_in if name not in clones), built_in[0])


def _print(out: TextIO, names: tuple[str, str], job: Json, minutes: float, measured: list[MeasuredVoice]) -> None:
    first, second = measured
    figures = {figure["name"]: figure["measured"] for figure in job["gate"]["figures"]}
    base = job["gate"]["base"]
    rows = [
        (
            "silence at the head, P50 of the gate's prompts, ms",
            base.get("head_silence_p50_ms"),
            figures.get("head_silence_p50_ms"),
        ),
        (f"silence at the head, P50 of {first.sessions} sessions, ms", first.head_silence_ms, second.head_silence_ms),
        ("first audio, ms", first.first_audio_ms, second.first_audio_ms),
        ("first audible sound, ms", first.audible_ms, second.audible_ms),
        ("distance to the speaker (smaller is closer)", base.get("closeness"), figures.get("closeness")),
    ]
    out.write(f"\n{'':52}{names[0]:>16}{names[1]:>16}\n")
    for name, *values in rows:
        cells = "".join(f"{'not measured' if value is None else f'{value:.4g}':>16}" for value in values)
        out.write(f"{name:52}{cells}\n")
    out.write(f"{'from upload to a voice in force, minutes':52}{'':16}{minutes:>16.1f}\n\n")
    out.flush()
