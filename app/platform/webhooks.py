"""Webhooks as Standard Webhooks has them (standardwebhooks.com): signed messages to addresses that clients name.

A name is looked up once: the addresses that were checked are the ones that are called. It knows nothing of the content,
nor when a delivery is retried.
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
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx

from app.errors import InvalidRequest
from app.platform.settings import CloningSettings

TIMEOUT_S = 10.0
"""Of the whole call, however slowly the receiver answers."""

SECRET_PREFIX = "whsec_"

MAX_ADDRESSES = 3
"""Of one name, tried in the order of the DNS."""

NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16")))
"""What `is_global` of some Pythons lets through: protocols' addresses (RFC 6890), and IPv6 addresses that carry one of
IPv4, perhaps a private one: NAT64 (RFC 6052, 8215) and 6to4 (RFC 3056)."""

Lookup = Callable[..., list[Any]]
"""As `socket.getaddrinfo`."""


class Destination(NamedTuple):
    """Where a message goes: `addresses` are what the host's name meant when it was checked, none if that is unknown."""

    url: httpx.URL
    addresses: tuple[str, ...]


log = logging.getLogger(__name__)


async def post(
    url: str,
    body: dict[str, Any],
    settings: CloningSettings,
    *,
    message_id: str,
    now_s: float,
    timeout_s: float = TIMEOUT_S,
    lookup: Lookup = socket.getaddrinfo,
) -> bool:
    """Whether the receiver took it (2xx); what else it answers is not read.

    Raises InvalidRequest for an address that may not be called.
    """
    content = json.dumps(body).encode()
    headers = signed(content, settings.webhook_secret.get_secret_value(), message_id=message_id, now_s=now_s)
    try:
        async with asyncio.timeout(timeout_s):
            private = settings.webhook_private_hosts
            destination = await asyncio.to_thread(resolve, url, private=private, lookup=lookup)
            async with httpx.AsyncClient(timeout=timeout_s, follow_redirects=False, trust_env=False) as client:
                answer = await _deliver(client, destination, content, headers)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        log.warning("webhook not heard", extra={"webhook": message_id, "error": type(error).__name__})
        return False
    if not answer.is_success:
        log.warning("webhook not taken", extra={"webhook": message_id, "status": answer.status_code})
    return answer.is_success


async def _deliver(
    client: httpx.AsyncClient, destination: Destination, content: bytes, headers: dict[str, str]
) -> httpx.Response:
    """The answer of the first address that takes a connection, its body unread. Raises httpx.HTTPError."""
    url, failure = destination.url, httpx.ConnectError("the name has no address")
    named, secure = {"host": url.netloc.decode("ascii")}, {"sni_hostname": url.raw_host.decode("ascii")}
    for address in destination.addresses[:MAX_ADDRESSES]:
        target = url.copy_with(host=address)
        try:
            async with client.stream(
                "POST", target, content=content, headers=headers | named, extensions=secure
            ) as answer:
                return answer
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            failure = error
    raise failure


async def check(url: str, settings: CloningSettings) -> None:
    """Raises InvalidRequest where nothing could be sent: the address may not be called, or nothing can be signed."""
    secret_bytes(settings.webhook_secret.get_secret_value())
    await asyncio.to_thread(resolve, url, private=settings.webhook_private_hosts)


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


def resolve(url: str, *, private: bool, lookup: Lookup = socket.getaddrinfo) -> Destination:
    """Where `url` leads. Blocking: it asks the DNS.

    Raises InvalidRequest for what is no http(s) address, and unless `private` for a host of the operator's own network.
    """
    invalid = InvalidRequest(f"{url[:200]!r} is no http(s) address", param="webhook_url")
    try:
        parts = httpx.URL(url)  # parsed as the caller parses it: another parser may find another host
        host, port = parts.raw_host.decode("ascii"), 443 if parts.port is None else parts.port
        host.encode("idna")
        parts.host.encode()
    except (httpx.InvalidURL, ValueError):  # UnicodeError, idna's too, is a ValueError
        raise invalid from None
    if parts.scheme not in ("http", "https") or not host or not 0 < port < 65_536:
        raise invalid
    try:
        found = lookup(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return Destination(parts, ())  # not to be reached now; the call will say so
    addresses = tuple(dict.fromkeys(str(address[0]) for *_, address in found))
    if not private and not all(map(_public, addresses)):
        raise InvalidRequest(
            f"{host} is a private address; set CARILLON_CLONING__WEBHOOK_PRIVATE_HOSTS=true to allow it",
            param="webhook_url",
        )
    return Destination(parts, addresses)


def _public(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local:  # RFC 3879: deprecated, and local still
        return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in NOT_PUBLIC)
