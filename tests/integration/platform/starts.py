"""`python -m tests.integration.platform.starts`: what sessions that begin ask of PostgreSQL, among 100,000 clones.

A start proves a key and looks up a voice by name. Each here has a key and a voice that nobody has asked for lately, the
dearest there is: what was asked for a moment ago costs no query. Costs are CPU times, so that it does not matter what
else the machine does.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from itertools import islice

import psutil
from pydantic import SecretStr
from sqlalchemy import text

from app.catalog import Catalog
from app.platform.key_cache import KeyCache
from app.platform.projects import Tenant
from app.speech.choices import Scope
from app.voices.resolver import PublishedVoices
from tests.integration.platform.test_query_plans import CASTS, FILLED, PROJECTS, VOICES, asked, counted
from tests.support.fake_worker import STAND_IN
from tests.support.real_services import running_postgres

STARTS, AT_ONCE = 2_000, 32


async def filled(url: str) -> Catalog:
    catalog = Catalog(url, pepper=SecretStr("pepper"))
    await catalog.migrate()
    async with catalog.database.writing() as connection:
        for statement in FILLED:
            await connection.execute(text(counted(statement, casts=CASTS)))
        await connection.execute(text("ANALYZE"))
    return catalog


async def postgres_of(catalog: Catalog) -> psutil.Process:
    """The server that a connection's process is a child of."""
    async with catalog.database.reading() as connection:
        backend = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    server = psutil.Process(backend).parent()
    assert server is not None
    return server


def cpu_s(server: psutil.Process) -> float:
    times = [process.cpu_times() for process in (server, *server.children())]
    return sum(spent.user + spent.system for spent in times)


async def measure(url: str) -> None:
    catalog = await filled(url)
    made = [await catalog.keys.create(f"caller {number}", {Scope.SPEAK}) for number in range(STARTS)]
    rng = random.Random(1)
    voices = rng.sample(range(1, VOICES + 1), STARTS)
    waiting = iter(list(zip([key.token for key in made], voices, strict=True)))
    keys, published = KeyCache(catalog.keys), PublishedVoices(catalog.voices)

    async def begin(starts: Iterator[tuple[str, int]]) -> None:
        for token, voice in starts:
            await keys.authenticate(token)
            tenant = Tenant(f"p{voice % PROJECTS + 1}")
            roster = await published.named(f"voice {voice}", (STAND_IN,), tenant)
            assert roster.find(f"voice {voice}", None).id == f"v{voice}"

    await begin(islice(waiting, AT_ONCE))
    server = await postgres_of(catalog)
    before_s, own_s, at_s = cpu_s(server), time.process_time(), time.perf_counter()
    with asked() as statements:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(begin(waiting))
    count, took_s = STARTS - AT_ONCE, time.perf_counter() - at_s
    database_us = 1e6 * (cpu_s(server) - before_s) / count
    door_us = 1e6 * (time.process_time() - own_s) / count
    print(
        f"{count} starts in {took_s:.1f} s ({count / took_s:.0f} a second), {len(statements) / count:.1f} queries each"
    )
    print(f"CPU of a start: {database_us:.0f} µs in PostgreSQL, {door_us:.0f} µs in the front door")
    print(f"1,000 starts a second: {database_us / 1000:.2f} cores of PostgreSQL, {door_us / 1000:.2f} of front doors")
    await catalog.aclose()


if __name__ == "__main__":
    with running_postgres() as running, running.database() as name:
        asyncio.run(measure(running.url(name)))
