"""Forms read piece by piece, from a client that is a list of pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.api.forms import FormLimits, received_form
from app.errors import InvalidRequest

pytestmark = pytest.mark.anyio

LIMITS = FormLimits(file_bytes=100, total_bytes=1000, parts=4)

FORM = (
    b'--x\r\nContent-Disposition: form-data; name="files"; filename="../\xc3\xa4.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\nR\r\nI--xFF\r\n"
    b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n'
    b'--x\r\nContent-Disposition: form-data; name="files"; filename="b.wav"\r\n\r\n\r\n--x--\r\n'
)


def part(data: bytes, *, name: str = 'name="files"; filename="a"') -> bytes:
    return f"--x\r\nContent-Disposition: form-data; {name}\r\n\r\n".encode() + data + b"\r\n"


def request(*pieces: bytes, content_type: str = "multipart/form-data; boundary=x", leaves: bool = False) -> Request:
    """A request whose client sends `pieces` and then ends, or leaves."""
    messages: Iterator[dict[str, object]] = iter(
        [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        + [{"type": "http.disconnect"} if leaves else {"type": "http.request", "body": b"", "more_body": False}]
    )

    async def receive() -> dict[str, object]:
        return next(messages)

    return Request({"type": "http", "headers": [(b"content-type", content_type.encode())]}, receive)


@pytest.mark.parametrize("size", [1, 2, 7, len(FORM)])
async def test_a_form_is_the_same_however_it_is_cut_into_pieces(tmp_path: Path, size: int) -> None:
    pieces = [FORM[start : start + size] for start in range(0, len(FORM), size)]
    async with received_form(request(*pieces), tmp_path, LIMITS) as form:
        assert [(file.field, file.name, file.size_bytes) for file in form.files] == [
            ("files", "../ä.wav", 9),
            ("files", "b.wav", 0),
        ]
        assert [file.path.read_bytes() for file in form.files] == [b"R\r\nI--xFF", b""]
        assert form.fields == [("text", "Grüße")]
        assert all(file.path.parent.parent == tmp_path for file in form.files)
    assert list(tmp_path.iterdir()) == []


async def test_a_file_above_its_limit_is_dropped_and_the_others_stand(tmp_path: Path) -> None:
    form_bytes = part(b"1" * 100) + part(b"2" * 101) + part(b"3") + b"--x--\r\n"
    async with received_form(request(form_bytes), tmp_path, LIMITS) as form:
        assert [(file.whole, file.path.exists()) for file in form.files] == [(True, True), (False, False), (True, True)]
        with pytest.raises(InvalidRequest, match="3 such files"):
            form.file("files", max_bytes=100)


@pytest.mark.parametrize(
    "form_bytes",
    [
        part(b"1" * 1001),
        part(b"1") * 5,
    ],
)
async def test_a_form_above_its_limits_is_413(tmp_path: Path, form_bytes: bytes) -> None:
    with pytest.raises(HTTPException) as refused:
        async with received_form(request(form_bytes), tmp_path, LIMITS):
            pass
    assert refused.value.status_code == 413
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("form_bytes", "content_type", "why"),
    [
        (FORM, "application/json", "multipart/form-data"),
        (FORM, "multipart/form-data", "multipart/form-data"),
        (FORM[:-10], "multipart/form-data; boundary=x", "cut off"),
        (b"no form", "multipart/form-data; boundary=x", "broken"),
        (part(b"1", name="nothing") + b"--x--\r\n", "multipart/form-data; boundary=x", "no name"),
        (b"", "multipart/form-data; boundary=x", "cut off"),
        (FORM, "multipart/form-data; boundary=" + "x" * 999, "broken"),
    ],
)
async def test_what_is_no_form_is_refused(tmp_path: Path, form_bytes: bytes, content_type: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        async with received_form(request(form_bytes, content_type=content_type), tmp_path, LIMITS):
            pass
    assert list(tmp_path.iterdir()) == []


async def test_a_client_that_leaves_leaves_no_files(tmp_path: Path) -> None:
    with pytest.raises(ClientDisconnect):
        async with received_form(request(part(b"1"), leaves=True), tmp_path, LIMITS):
            pass
    assert list(tmp_path.iterdir()) == []


async def test_a_form_that_stops_coming_is_408(tmp_path: Path) -> None:
    async def never() -> dict[str, object]:
        return await asyncio.get_running_loop().create_future()

    silent = Request({"type": "http", "headers": [(b"content-type", b"multipart/form-data; boundary=x")]}, never)
    with pytest.raises(HTTPException) as refused:
        async with received_form(silent, tmp_path, FormLimits(file_bytes=1, total_bytes=1, parts=1, stall_s=0.01)):
            pass
    assert refused.value.status_code == 408
