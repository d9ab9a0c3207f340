"""Webhooks as Standard Webhooks has them (standardwebhooks.com): signed messages to addresses that clients name.

It knows nothing of the content, nor when a delivery is retried.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import logging
import socket
from typing import Any

import httpx

from app.errors import InvalidRequest
from app.platform.settings import CloningSettings

TIMEOUT_S = 10.0
"""Of the whole call, however slowly the receiver answers."""

SECRET_PREFIX = "whsec_"

TRANSLATED = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16")))
"""IPv6 addresses that carry one of IPv4, perhaps a private one: NAT64 (RFC 6052, 8215) and 6to4 (RFC 3056)."""

log = logging.getLogger(__name__)


async def post(
    url: str,
    body: dict[str, Any],
    settings: CloningSettings,
    *,
    message_id: str,
    now_s: float,
    timeout_s: float = TIMEOUT_S,
) -> bool:
    """Whether the receiver took it (2xx); what else it answers is not read.

    Raises InvalidRequest for an address that may not be called.
    """
    content = json.dumps(body).encode()
    headers = signed(content, settings.webhook_secret.get_secret_value(), message_id=message_id, now_s=now_s)
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.to_thread(check_address, url, private=settings.webhook_private_hosts)
            async with (
                httpx.AsyncClient(timeout=timeout_s, follow_redirects=False, trust_env=False) as client,
                client.stream("POST", url, content=content, headers=headers) as answer,
            ):
                pass
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        log.warning("webhook not heard", extra={"webhook": message_id, "error": type(error).__name__})
        return False
    if not answer.is_success:
        log.warning("webhook not taken", extra={"webhook": message_id, "status": answer.status_code})
    return answer.is_success


async def check(url: str, settings: CloningSettings) -> None:
    """Raises InvalidRequest where nothing could be sent: the address may not be called, or nothing can be signed."""
    secret_bytes(settings.webhook_secret.get_secret_value())
    await asyncio.to_thread(check_address, url, private=settings.webhook_private_hosts)


def signed(body: bytes, secret: str, *, message_id: str, now_s: float) -> dict[str, str]:
    """The headers of a signed message: HMAC-SHA256 over `id.timestamp.body` under the decoded secret."""
    key = secret_bytes(secret)
    timestamp = str(int(now_s))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def secret_bytes(secret: str) -> bytes:
    """The key that `whsec_…` stands for. Raises InvalidRequest when there is none: nothing goes out unsigned."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        key = b""
    if len(key) < 24:
        raise InvalidRequest(
            "this fleet sends no webhooks: CARILLON_CLONING__WEBHOOK_SECRET is not set to `whsec_` and the base64 of "
            "at least 24 bytes",
            param="webhook_url",
        )
    return key


def check_address(url: str, *, private: bool) -> None:
    """Refuse an address that would let a client reach into the operator's own network. Blocking: it asks the DNS.

    Raises InvalidRequest. A name that changes its meaning between this and the call gets through; where that matters,
    an egress proxy belongs in front.
    """
    invalid = InvalidRequest(f"{url[:200]!r} is no http(s) address", param="webhook_url")
    try:
        parts = httpx.URL(url)  # as who calls understands it: another parser may find another host
        host, port = parts.raw_host.decode("ascii"), 443 if parts.port is None else parts.port
        host.encode("idna")
        parts.host.encode()
    except (httpx.InvalidURL, ValueError):  # UnicodeError, idna's too, is a ValueError
        raise invalid from None
    if parts.scheme not in ("http", "https") or not host or not 0 < port < 65_536:
        raise invalid
    if private:
        return
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return  # not to be reached now; the call will say so
    for _, _, _, _, address in found:
        if not _public(str(address[0])):
            raise InvalidRequest(
                f"{host} is a private address; set CARILLON_CLONING__WEBHOOK_PRIVATE_HOSTS=true to allow it",
                param="webhook_url",
            )


def _public(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in TRANSLATED)
