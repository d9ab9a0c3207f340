"""`carillon console`: a link that signs one browser in."""

from __future__ import annotations

from app.cli.options import Key, Url
from app.cli.target import open_client


def console(*, url: Url = None, key: Key = None) -> None:
    """Print a link to the console. It signs one browser in with the key that is used here, once, within 15 minutes."""
    with open_client(url, key) as client:
        print(client.keys.console_link())
