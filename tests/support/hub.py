"""A hub on this machine, as far as a download asks it: repositories of a few bytes, one of them with terms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

COMMIT = "4206a56e5a68cf6cf96900a8a78acd3370c02eb6"


class Hub:
    """What it holds, and which files have been asked for."""

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]], gated: frozenset[str]) -> None:
        self.repositories = repositories
        self.gated = gated
        self.fetched: list[str] = []
        self.url = ""

    def answer(self, method: str, path: str, token: str | None) -> tuple[int, dict[str, str], bytes]:
        words = path.strip("/").split("/")
        about = words[:2] == ["api", "models"]
        name, rest = ("/".join(words[2:4]), words[4:]) if about else ("/".join(words[:2]), words[2:])
        files = self.repositories.get(name)
        if files is None:
            return 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b""
        if about and rest[:1] == ["tree"]:
            listed = [_entry(path, data) for path, data in files.items()]
            return 200, {"Content-Type": "application/json"}, json.dumps(listed).encode()
        if about:
            return 200, {"Content-Type": "application/json"}, json.dumps({"id": name, "sha": COMMIT}).encode()
        if name in self.gated and token is None:
            return 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}, b""
        file = "/".join(rest[2:])
        if method == "GET":
            self.fetched.append(file)
        entry = _entry(file, files[file])
        return 200, {"ETag": f'"{entry["oid"]}"', "X-Repo-Commit": COMMIT}, files[file]


def _entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


@contextmanager
def running_hub(
    repositories: Mapping[str, Mapping[str, bytes]], *, gated: frozenset[str] = frozenset()
) -> Iterator[Hub]:
    hub = Hub(repositories, gated)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = self.headers.get("Authorization")
            status, headers, body = hub.answer(self.command, urlsplit(self.path).path, token)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()
