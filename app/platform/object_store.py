"""Bytes under names in an S3-compatible store: adapters, recordings, audio.

One code path serves AWS and the small servers: path-style addresses, checksums only where a server requires them, and
nothing that such servers lack: no object metadata, no conditional writes. boto3 blocks: asyncio callers use a thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3.session
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from app.errors import ConfigurationError, InvalidRequest, ObjectMissing, StoreUnavailable
from app.platform.retry import retry_store
from app.platform.settings import LOOPBACK_HOSTS, StoreSettings, without_secrets

PART_BYTES = 16 * 1024 * 1024
"""150 MB in 0.31 s on one machine, against 0.51 s with boto3's 8 MB."""

PIECE_BYTES = 2**20
"""The read size of streamed objects."""

DELETED_AT_ONCE = 1000
"""The most that one DeleteObjects may name."""

PATIENCE_S, PAUSE_S = 120.0, 2.0
"""How long, and how often, a job asks a store that is away."""

_MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class ObjectStore:
    """One bucket. Every method raises StoreUnavailable when the server fails or refuses.

    What the server answered, where it is, and under which key, stands in the log alone: an error may go to a client.
    """

    def __init__(self, settings: StoreSettings, *, timeout_s: float = 60, attempts: int = 4) -> None:
        """Connects on first use. Without keys in `settings`, boto3's own sources (a role, a profile) count.

        Raises ConfigurationError when no server is configured.
        """
        if settings.endpoint_url is None:
            raise ConfigurationError(
                "CARILLON_STORE__ENDPOINT_URL is not set; `carillon up` starts an embedded store and sets it"
            )
        self.bucket = settings.bucket
        self._endpoint = without_secrets(settings.endpoint_url)
        self._client: Any = _new_client(
            endpoint_url=settings.endpoint_url,
            region_name=settings.region,
            aws_access_key_id=settings.access_key.get_secret_value() or None,
            aws_secret_access_key=settings.secret_key.get_secret_value() or None,
            config=Config(
                signature_version="s3v4",  # addresses would be signed the old way, which not every server takes
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path"},
                connect_timeout=5,
                read_timeout=timeout_s,
                retries={"mode": "standard", "total_max_attempts": attempts},
                # A proxy of the environment does not know what is on this machine.
                proxies={} if urlsplit(settings.endpoint_url).hostname in LOOPBACK_HOSTS else None,
            ),
        )
        self._transfer = TransferConfig(
            multipart_threshold=PART_BYTES,
            multipart_chunksize=PART_BYTES,
            max_concurrency=8,
            preferred_transfer_client="classic",
        )

    def close(self) -> None:
        self._client.close()

    def ensure_bucket(self) -> None:
        """Make the bucket unless it is there."""
        try:
            with self._errors(self.bucket):
                self._client.head_bucket(Bucket=self.bucket)
        except ObjectMissing:
            with self._errors(self.bucket):
                self._client.create_bucket(Bucket=self.bucket)

    def uri(self, prefix: str) -> str:
        """`s3://bucket/prefix/`, as AdapterVersion keeps it."""
        return f"s3://{self.bucket}/{prefix.strip('/')}/"

    def put(self, key: str, data: bytes) -> None:
        with self._errors(key):
            self._client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        """The whole object in memory; for large ones use `fetch`. Raises ObjectMissing."""
        with self._errors(key):
            return self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def read_range(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes `[start, end)` of an object, in pieces of at most `PIECE_BYTES`. Raises ObjectMissing.

        Each piece is a request of its own, so that a slow or abandoned reader holds no connection.
        """
        for first in range(start, end, PIECE_BYTES):
            last = min(first + PIECE_BYTES, end) - 1
            with self._errors(key):
                piece = self._client.get_object(Bucket=self.bucket, Key=key, Range=f"bytes={first}-{last}")[
                    "Body"
                ].read()
            if len(piece) != last + 1 - first:
                raise StoreUnavailable(f"the store gave {len(piece)} bytes of an object for {last + 1 - first}")
            yield piece

    def upload(self, path: Path, key: str) -> None:
        """Copy one file to `key`, in parts if it is large."""
        with self._errors(key):
            self._client.upload_file(str(path), self.bucket, key, Config=self._transfer)

    def size_bytes(self, key: str) -> int:
        """Raises ObjectMissing."""
        with self._errors(key):
            return self._client.head_object(Bucket=self.bucket, Key=key)["ContentLength"]

    def delete(self, key: str) -> None:
        """Delete one object; one that is not there is no error."""
        with self._errors(key):
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def put_url(self, key: str, *, size_bytes: int, expires_s: int) -> str:
        """An address that takes one PUT of exactly `size_bytes` to `key` from anyone who has it, until it expires."""
        with self._errors(key):
            return self._client.generate_presigned_url(
                "put_object",
                Params={"Bucket": self.bucket, "Key": key, "ContentLength": size_bytes},
                ExpiresIn=expires_s,
            )

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys below `prefix`, in order."""
        return (key for key, _ in self.written(prefix))

    def written(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        """The keys below `prefix`, in order, and when each was written."""
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            for page in pages:
                yield from ((entry["Key"], entry["LastModified"]) for entry in page.get("Contents", ()))

    def delete_prefix(self, prefix: str) -> int:
        """Delete every object below `prefix`, which must not be empty. Returns how many there were.

        Done again, it goes on with those that the server would not delete.
        """
        if not prefix:
            raise InvalidRequest("an empty prefix would delete the whole bucket; name a folder", param="prefix")
        return self.delete_all(self.keys(prefix))

    def delete_all(self, keys: Iterable[str]) -> int:
        """Delete these objects; one that is not there is no error. Returns how many were named."""
        named = list(keys)
        for start in range(0, len(named), DELETED_AT_ONCE):
            batch = named[start : start + DELETED_AT_ONCE]
            with self._errors(batch[0]):
                answer = self._client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
                )
            kept = [error for error in answer.get("Errors", ()) if error.get("Code") not in _MISSING]
            if kept:
                log.warning("store kept objects", extra={"key": kept[0].get("Key"), "error": kept[0].get("Message")})
                raise StoreUnavailable(
                    f"the store kept {len(kept)} of {len(batch)} objects that it was to delete: {kept[0].get('Code')}"
                )
        return len(named)

    def upload_directory(self, directory: Path, prefix: str) -> dict[str, str]:
        """Upload every file below `directory` to `prefix`. Returns relative file name → SHA-256, as hex digits."""
        hashes: dict[str, str] = {}
        for path in sorted(path for path in directory.rglob("*") if path.is_file()):
            name = path.relative_to(directory).as_posix()
            with path.open("rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
            key = f"{prefix.strip('/')}/{name}"
            self.upload(path, key)
        return hashes

    def fetch(self, uri: str, name: str, path: Path) -> None:
        """Copy the object `name` below `uri` (`s3://bucket/prefix/`) to `path`, which appears whole or not at all.

        Raises ObjectMissing when there is no such object.
        """
        parts = urlsplit(uri)
        if parts.scheme != "s3" or not parts.netloc:
            raise InvalidRequest(f"{uri!r} is no object address; it looks like s3://bucket/prefix/", param="uri")
        key = f"{parts.path.strip('/')}/{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(descriptor)
        try:
            with self._errors(key):
                self._client.download_file(parts.netloc, key, partial, Config=self._transfer)
            Path(partial).replace(path)
        finally:
            Path(partial).unlink(missing_ok=True)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _MISSING:
                log.info("object missing", extra={"key": key})
                raise ObjectMissing("what was kept of this is no longer in the store") from error
            self._log(key, error)
            raise StoreUnavailable(f"the store refused: {code}") from error
        except (BotoCoreError, Boto3Error) as error:
            self._log(key, error)
            raise StoreUnavailable(f"the store does not answer: {type(error).__name__}") from error

    def _log(self, key: str, error: Exception) -> None:
        log.warning("store failed", extra={"endpoint": self._endpoint, "key": key, "error": str(error)})


@cache
def _session() -> boto3.session.Session:
    """This process's own: it reads what botocore knows of S3, which takes longer than all else a client needs, once."""
    return boto3.session.Session()


_making = threading.Lock()


def _new_client(**how: Any) -> Any:
    with _making:  # a session is not for several threads; its clients are
        return _session().client("s3", **how)


def configured(store: ObjectStore | None) -> ObjectStore:
    """Raises StoreUnavailable where no store is configured: speaking needs none, recordings and texts do."""
    if store is None:
        raise StoreUnavailable(
            "no object store is configured here, so recordings cannot be kept; set CARILLON_STORE__ENDPOINT_URL"
        )
    return store


async def retry_in_thread(work: Callable[[], _Result]) -> _Result:
    """Do blocking `work` in a thread, and again while the store is away, for up to PATIENCE_S."""
    return await retry_store(lambda: _in_a_thread(work), pause_s=PAUSE_S, patience_s=PATIENCE_S)


async def _in_a_thread(work: Callable[[], _Result]) -> _Result:
    """Cancelled, it still waits for the thread: what that writes must not appear after a clean-up."""
    thread = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait([thread])
        raise
