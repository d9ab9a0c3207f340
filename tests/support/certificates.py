"""A certificate authority of the tests, and a certificate of it for this machine."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    authority: Path
    certificate: Path
    key: Path

    @property
    def chain(self) -> Path:
        """Certificate and key in one file, as HAProxy takes them."""
        path = self.certificate.with_name("server-chain.pem")
        path.write_text(self.certificate.read_text() + self.key.read_text())
        return path


def make_certificates(directory: Path) -> Certificates:
    """Made by openssl, good for a day, for `localhost` and 127.0.0.1."""
    names = directory / "names.cnf"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    authority, key, request, certificate = (
        directory / name for name in ("ca.pem", "server.key", "server.csr", "server.pem")
    )
    authority_key = directory / "ca.key"
    self_signed = f"req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=tests -keyout {authority_key} -out {authority}"
    asked = f"req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout {key} -out {request}"
    signed = (
        f"x509 -req -in {request} -CA {authority} -CAkey {authority_key} -CAcreateserial -days 1 -out {certificate}"
    )
    for command in (self_signed, asked, f"{signed} -extfile {names}"):
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True)
    return Certificates(authority, certificate, key)
