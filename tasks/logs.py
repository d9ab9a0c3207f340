"""Celery's processes log as all others here do: events with data, in the form the settings say.

Celery imports this module in each of its processes before it sets up logging, and leaves it
to the handler of its signal.
"""

from __future__ import annotations

from celery.signals import setup_logging

from app.platform.logs import configure_logging
from app.platform.settings import load_settings


@setup_logging.connect
def configure(**_: object) -> None:
    configure_logging(load_settings())
