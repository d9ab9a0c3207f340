"""A webhook's receiver on a free port: it remembers what it hears."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any, ClassVar


class Receiver(BaseHTTPRequestHandler):
    """`heard` are headers, their names in lower case, and bodies; it answers `status` and `answer_bytes` of nothing."""

    heard: ClassVar[list[tuple[dict[str, str], bytes]]]
    status: ClassVar[int] = 200
    answer_bytes: ClassVar[int] = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.heard.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.status)
        self.end_headers()
        with suppress(ConnectionError):
            for _ in range(self.answer_bytes // 2**16):
                self.wfile.write(bytes(2**16))

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def running_receiver() -> Iterator[tuple[str, type[Receiver]]]:
    """Its URL, and the class that has heard what was sent there."""
    own = type("Own", (Receiver,), {"heard": []})
    server = HTTPServer(("127.0.0.1", 0), own)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", own
    server.shutdown()
    server.server_close()
