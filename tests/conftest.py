"""What the tests share. The stores are real, started on a free port once for all; nothing is patched."""

from __future__ import annotations

import asyncio
import base64
import gc
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as examples
from pydantic import SecretStr
from xdist.scheduler import LoadScopeScheduling

from app.catalog import Catalog
from app.local import embedded
from app.platform.object_store import ObjectStore
from app.platform.settings import Settings, StoreSettings
from tests.support import real_services
from tests.support.certificates import make_certificates
from tests.support.deadlines import HANG_S
from tests.support.running_fleet import RunningFleet, running_fleet
from tests.support.valkey import running_valkey
from workers.openmp import bound_openmp

bound_openmp()  # the engine that the tests share is forked from this process

# A slow machine is no failure: a timing is never an assertion.
examples.register_profile("carillon", deadline=None, suppress_health_check=[HealthCheck.too_slow])
examples.load_profile("carillon")


TOGETHER = {
    "tests/chaos/test_clone_jobs.py": "fleet",
    "tests/chaos/test_cloned_voices.py": "fleet",
    "tests/chaos/test_narrations.py": "fleet",
    "tests/chaos/test_nothing_left.py": "fleet",
    "tests/integration/local/test_fleet.py": "fleet",
    "tests/integration/talk/test_talk.py": "fleet",
    "tests/integration/workers/test_adapters_in_engine.py": "shared_engine",
    "tests/integration/workers/test_cpu_llama.py": "shared_engine",
    "tests/integration/workers/test_engine.py": "shared_engine",
    "tests/integration/workers/test_engine_health.py": "shared_engine",
    "tests/chaos/test_drains.py": "started",
    "tests/chaos/test_front_doors.py": "started",
    "tests/chaos/test_registry_lost.py": "started",
    "tests/chaos/test_sessions_survive.py": "started",
    "tests/soak/test_soak.py": "soak",
}
"""Files that share a fixture of the session that takes longer to start than most tests to run, by that fixture; and the
soak, which takes long. Of several processes one runs all of a fixture's, and they begin with them: the others finish
their small files meanwhile, and none is left with a minute's work at the end."""


class ByFile(LoadScopeScheduling):
    """The tests of a file run in one process, and so do files that share what is in TOGETHER.

    xdist 3.8 has `--dist=loadgroup` for this, which pytest 9.2 has broken: it no longer reads the node ids that xdist
    changes.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = _file(nodeid)
        return TOGETHER.get(path, path)


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    return ByFile(config, log)  # type: ignore[arg-type]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _file(item.nodeid) not in TOGETHER)


def pytest_collection_finish() -> None:
    """What is here now, which is modules and tests, stays: each look of the garbage collector through it took as long
    as several tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey; whoever needs it empty empties it."""
    directory = tmp_path_factory.mktemp("valkey")
    if not real_services.WANTED:
        with running_valkey(directory) as url:
            yield url
        return
    certificates = make_certificates(directory)
    with pytest.MonkeyPatch.context() as patch, real_services.running_secure_redis(directory, certificates) as url:
        patch.setenv("SSL_CERT_FILE", str(certificates.authority))
        yield url


@pytest.fixture(scope="session")
def postgres() -> Iterator[tuple[real_services.Postgres, str]]:
    """A PostgreSQL, and the name of a database that has the catalogue's tables."""
    with real_services.running_postgres() as running, running.database() as template:

        async def migrate() -> None:
            catalog = Catalog(running.url(template), pepper=SecretStr(""))
            await catalog.migrate()
            await catalog.aclose()

        asyncio.run(migrate())
        yield running, template


@pytest.fixture(autouse=True)
def real_database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With `make test-real`: a catalogue of the test's own in PostgreSQL, where settings name no other."""
    if not real_services.WANTED:
        yield
        return
    running, template = request.getfixturevalue("postgres")
    with running.database(template=template) as name:
        monkeypatch.setenv("CARILLON_DATABASE_URL", running.url(name))
        yield


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreSettings]:
    """The embedded S3 server; with `make test-real` another one."""
    if real_services.WANTED:
        with real_services.running_moto() as store:
            yield store
        return
    port = embedded.free_port()
    store = StoreSettings(
        endpoint_url=f"http://{embedded.LOOPBACK}:{port}",
        access_key=SecretStr("access"),
        secret_key=SecretStr("secret"),
    )
    program = embedded.object_store(tmp_path_factory.mktemp("s3"), port=port, store=store)
    server = subprocess.Popen(
        program.command, env={**os.environ, **program.environment}, stderr=subprocess.PIPE, text=True
    )
    assert server.stderr
    for line in server.stderr:
        if "Starting s3 server" in line:
            break
    yield store
    server.terminate()
    server.communicate(timeout=HANG_S)


@pytest.fixture
def object_store(rclone: StoreSettings) -> Iterator[ObjectStore]:
    """An empty bucket of its own."""
    store = ObjectStore(rclone.model_copy(update={"bucket": f"test-{uuid4().hex}"}))
    store.ensure_bucket()
    yield store
    store.close()


@pytest.fixture
def settings(tmp_path: Path, valkey: str) -> Settings:
    """Settings of a fleet with a data directory of its own and a real Valkey."""
    return Settings(
        data_dir=tmp_path / "data",
        redis_url=SecretStr(valkey),
        key_pepper=SecretStr("pepper"),
        fleet_secret=SecretStr("fleet"),
    )


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """`carillon up` with one worker, for all who need all of it: what one test kills, the next finds started again."""
    configured = {
        "CARILLON_DRAIN_TIMEOUT_S": "1",
        "CARILLON_SESSION__QUEUE_TIMEOUT_S": "0.2",
        "CARILLON_CLONING__WEBHOOK_SECRET": "whsec_" + base64.b64encode(bytes(32)).decode(),
        "CARILLON_CLONING__WEBHOOK_PRIVATE_HOSTS": "true",
    }
    with running_fleet(tmp_path_factory.mktemp("fleet"), configured) as running:
        yield running
