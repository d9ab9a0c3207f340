"""One contract for every object store: held against the embedded rclone and against moto."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr

from app.errors import ConfigurationError, InvalidRequest, ObjectMissing, StoreUnavailable
from app.local.embedded import LOOPBACK, free_port
from app.platform.object_store import DELETED_AT_ONCE, PART_BYTES, PIECE_BYTES, ObjectStore
from app.platform.settings import StoreSettings
from tests.support.real_services import needs_signatures


@pytest.fixture(scope="module")
def moto() -> Iterator[StoreSettings]:
    from moto.server import ThreadedMotoServer  # seconds of imports

    port = free_port()
    server = ThreadedMotoServer(LOOPBACK, port)
    server.start()
    yield StoreSettings(
        endpoint_url=f"http://{LOOPBACK}:{port}", access_key=SecretStr("access"), secret_key=SecretStr("secret")
    )
    server.stop()


@pytest.fixture(params=["rclone", "moto"])
def server(request: pytest.FixtureRequest) -> StoreSettings:
    return request.getfixturevalue(request.param)


@pytest.fixture
def store(server: StoreSettings) -> Iterator[ObjectStore]:
    store = ObjectStore(server.model_copy(update={"bucket": f"test-{uuid4().hex}"}))
    store.ensure_bucket()
    yield store
    store.close()


def test_what_is_put_is_got(store: ObjectStore) -> None:
    store.put("a/b.txt", b"hello")
    store.put("a/b.txt", b"hello again")
    assert store.get("a/b.txt") == b"hello again"


def test_making_the_bucket_twice_changes_nothing(store: ObjectStore) -> None:
    store.put("kept", b"1")
    store.ensure_bucket()
    assert store.get("kept") == b"1"


def test_a_directory_goes_up_and_comes_back_with_its_hashes(store: ObjectStore, tmp_path: Path) -> None:
    files = {"config.json": b"{}", "deep/weights.bin": bytes(range(256)) * (PART_BYTES // 200), "empty": b""}
    for name, data in files.items():
        path = tmp_path / "up" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert len(files["deep/weights.bin"]) > PART_BYTES
    hashes = store.upload_directory(tmp_path / "up", "voices/v/1")
    assert hashes == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    for name, data in files.items():
        store.fetch(store.uri("voices/v/1"), name, tmp_path / "down" / name)
        assert (tmp_path / "down" / name).read_bytes() == data


def test_one_file_goes_up_and_is_deleted_alone(store: ObjectStore, tmp_path: Path) -> None:
    data = bytes(range(256)) * (PART_BYTES // 200)
    (tmp_path / "a.wav").write_bytes(data)
    for key in ("v/a.wav", "v/b.wav"):
        store.upload(tmp_path / "a.wav", key)
    assert store.size_bytes("v/a.wav") == len(data)
    assert store.get("v/a.wav") == data
    store.delete("v/a.wav")
    store.delete("v/a.wav")
    assert list(store.keys("v/")) == ["v/b.wav"]
    with pytest.raises(ObjectMissing, match="no longer in the store"):
        store.size_bytes("v/a.wav")


def test_an_address_takes_what_it_was_made_for(store: ObjectStore) -> None:
    url = store.put_url("v/a.wav", size_bytes=5, expires_s=60)
    with httpx.Client(trust_env=False) as client:
        assert client.put(url, content=b"hello").status_code == 200
    assert store.get("v/a.wav") == b"hello"


@needs_signatures
def test_an_address_takes_nothing_else(rclone: StoreSettings) -> None:
    store = ObjectStore(rclone.model_copy(update={"bucket": f"test-{uuid4().hex}"}))
    store.ensure_bucket()
    url = store.put_url("v/a.wav", size_bytes=5, expires_s=60)
    with httpx.Client(trust_env=False) as client:
        assert client.put(url, content=b"hello again").status_code == 403
        assert client.put(url.replace("a.wav", "b.wav"), content=b"hello").status_code == 403
    assert list(store.keys("")) == []
    store.close()


def test_keys_are_listed_below_their_prefix_only(store: ObjectStore) -> None:
    for key in ("v/1/a", "v/1/b", "v/10/a", "w/a"):
        store.put(key, b"1")
    assert list(store.keys("v/1/")) == ["v/1/a", "v/1/b"]


def test_deleting_a_prefix_leaves_its_neighbours(store: ObjectStore) -> None:
    for key in ("v/1/a", "v/1/b", "v/10/a"):
        store.put(key, b"1")
    assert store.delete_prefix("v/1/") == 2
    assert list(store.keys("")) == ["v/10/a"]
    assert store.delete_prefix("v/1/") == 0


def test_objects_are_deleted_by_name_more_than_a_request_may_name(store: ObjectStore) -> None:
    for key in ("v/a", "v/b", "w/c"):
        store.put(key, b"1")
    missing = [f"x/{number}" for number in range(DELETED_AT_ONCE)]
    assert store.delete_all(["v/a", *missing, "w/c"]) == 1002
    assert list(store.keys("")) == ["v/b"]
    assert store.delete_all([]) == 0


class Keeper(BaseHTTPRequestHandler):
    """A store of one object that it will not delete."""

    def do_GET(self) -> None:
        self._answer(
            "<ListBucketResult><Contents><Key>v/a</Key><LastModified>2026-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>"
        )

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        error = "<Key>v/a</Key><Code>AccessDenied</Code><Message>it is locked</Message>"
        self._answer(f"<DeleteResult><Error>{error}</Error></DeleteResult>")

    def _answer(self, document: str) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(document)))
        self.end_headers()
        self.wfile.write(document.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_an_object_that_the_server_keeps_is_an_error() -> None:
    server = HTTPServer((LOOPBACK, 0), Keeper)
    Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://{LOOPBACK}:{server.server_port}"
    store = ObjectStore(StoreSettings(endpoint_url=endpoint, access_key=SecretStr("a"), secret_key=SecretStr("s")))
    with pytest.raises(StoreUnavailable, match=r"kept 1 of 1 objects.*AccessDenied"):
        store.delete_prefix("v/")
    store.close()
    server.shutdown()
    server.server_close()


def test_the_whole_bucket_is_not_deleted_by_an_empty_prefix(store: ObjectStore) -> None:
    with pytest.raises(InvalidRequest, match="whole bucket"):
        store.delete_prefix("")


def test_a_missing_object_is_an_error_that_shows_no_key(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match="no longer in the store"):
        store.get("nowhere")
    with pytest.raises(ObjectMissing, match="no longer in the store"):
        store.fetch(store.uri("v/1"), "adapter", tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []


def test_a_stretch_of_an_object_comes_in_pieces(store: ObjectStore) -> None:
    data = bytes(range(251)) * (3 * PIECE_BYTES // 251)
    store.put("book", data)
    pieces = list(store.read_range("book", 100, len(data) - 1))
    assert b"".join(pieces) == data[100:-1]
    assert max(map(len, pieces)) == PIECE_BYTES
    assert list(store.read_range("book", 7, 7)) == []


def test_a_stretch_of_a_missing_object_is_an_error_too(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissing, match="no longer in the store"):
        next(store.read_range("nothing", 0, 1))


def test_an_object_that_is_shorter_than_was_thought_is_an_error(store: ObjectStore) -> None:
    store.put("book", bytes(10))
    with pytest.raises(StoreUnavailable, match="10 bytes of an object for 20"):
        list(store.read_range("book", 0, 20))


def test_an_address_of_another_kind_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="s3://bucket/prefix/"):
        store.fetch("https://example.com/v/", "adapter", tmp_path / "adapter")


@needs_signatures
def test_a_wrong_key_is_refused_with_what_the_server_says(rclone: StoreSettings) -> None:
    store = ObjectStore(rclone.model_copy(update={"secret_key": SecretStr("wrong")}))
    with pytest.raises(StoreUnavailable, match="refused"):
        store.get("a")
    store.close()


def test_where_the_store_is_and_what_it_said_stands_in_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    endpoint = f"http://{LOOPBACK}:{free_port()}"
    store = ObjectStore(StoreSettings(endpoint_url=endpoint, access_key=SecretStr("a"), secret_key=SecretStr("s")))
    with pytest.raises(StoreUnavailable) as caught:
        store.get("a")
    assert caught.value.message == "the store does not answer: EndpointConnectionError"
    [record] = caplog.records
    assert vars(record)["endpoint"] == endpoint
    assert endpoint in vars(record)["error"]
    store.close()


def test_no_store_configured_says_which_variable_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="CARILLON_STORE__ENDPOINT_URL"):
        ObjectStore(StoreSettings())
