"""A network that a test can cut: a bridge on this machine, and a namespace with an address of its own for each host.

Cutting a host takes its port off the bridge, as if its cable were pulled: packets vanish, and no socket closes. It
needs root, `ip` and network namespaces; `obstacle` says what is missing. Every name here carries the process id of the
test run it belongs to, so that what a crashed run has left behind is found, and removed, by the next.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import string
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

OURS = re.compile(r"cari(?P<owner>\d+)(?P<letter>[a-z])(?:-[\w-]+)?")
"""Of each network of the process `owner`: its bridge `cari<pid><letter>`, its namespaces `cari<pid><letter>-<host>` and
its ports `cari<pid><letter>-<number>`, for the name of a link has 15 characters at most."""

LETTERS = iter(string.ascii_lowercase)

PREFIX = "10.213"


def obstacle() -> str | None:
    """Why there can be no such network here; None when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need `ip` (iproute2)"
    name = f"cari{os.getpid()}z-try"
    try:
        _ip("netns", "add", name)
        try:
            _ip("-n", name, "link", "add", "bridge", "type", "bridge")
            _ip("-n", name, "link", "add", "here", "type", "veth", "peer", "name", "there")
        finally:
            _ip("netns", "del", name)
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not to be had here: {error.stderr.strip()}"
    return None


class Network:
    """Hosts on one bridge. `running_network` makes it and takes it away.

    This machine has two addresses there: what dials the hosts comes from `gateway`, and `stores` is for them to dial.
    """

    def __init__(self) -> None:
        self.name = f"cari{os.getpid()}{next(LETTERS)}"
        self._subnet = f"{PREFIX}.{_free_subnet()}"
        self._ports: dict[str, str] = {}
        self._numbers = itertools.count(11)
        self.gateway = f"{self._subnet}.1"
        self.stores = f"{self._subnet}.2"

    def start(self) -> None:
        _ip("link", "add", self.name, "type", "bridge")
        for address in (self.gateway, self.stores):
            _ip("addr", "add", f"{address}/24", "dev", self.name)
        _ip("link", "set", self.name, "up")

    def add(self, host: str) -> str:
        """A new host; returns its address."""
        number = next(self._numbers)
        address, port, name = f"{self._subnet}.{number}", f"{self.name}-{number}", self._namespace(host)
        _ip("netns", "add", name)
        _ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", port, "master", self.name, "up")
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            _ip("-n", name, "link", "set", link, "up")
        self._ports[host] = port
        return address

    def inside(self, host: str) -> list[str]:
        """What a command that is to run on `host` begins with."""
        return ["ip", "netns", "exec", self._namespace(host)]

    def cut(self, host: str) -> None:
        """From now on nothing reaches `host`, and nothing comes from it."""
        _ip("link", "set", self._ports[host], "nomaster")

    def mend(self, host: str) -> None:
        _ip("link", "set", self._ports[host], "master", self.name)

    def hide(self, host: str) -> None:
        """From now on nothing gets from `host` to what has dialled it; it still reaches `stores`."""
        _ip("-n", self._namespace(host), "route", "add", "blackhole", self.gateway)

    def show(self, host: str) -> None:
        _ip("-n", self._namespace(host), "route", "del", "blackhole", self.gateway)

    def _namespace(self, host: str) -> str:
        return f"{self.name}-{host}"


@contextmanager
def running_network() -> Iterator[Network]:
    """A network while the context lasts; also what dead test runs have left is removed."""
    remove_leftovers()
    network = Network()
    try:
        network.start()
        yield network
    finally:
        _remove(network.name)


def remove_leftovers() -> None:
    """Remove the networks of test runs whose process is gone."""
    for name in _namespaces() + _links():
        if found := OURS.fullmatch(name):
            try:
                os.kill(int(found["owner"]), 0)
            except ProcessLookupError:
                _remove(f"cari{found['owner']}{found['letter']}")


def all_of(network: str) -> list[str]:
    """The namespaces and links of a network, and what else is named after it."""
    return [name for name in _namespaces() + _links() if name == network or name.startswith(f"{network}-")]


def _remove(network: str) -> None:
    """Remove whatever there is of a network, and end what runs in it."""
    ours = set(all_of(network))
    for name in ours & set(_namespaces()):
        for pid in _ip("netns", "pids", name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _ip("netns", "del", name)
    for link in ours & set(_links()):
        # A namespace that has just gone takes its end of a cable along, and with it ours.
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", link)


def _namespaces() -> list[str]:
    return [namespace["name"] for namespace in json.loads(_ip("-j", "netns", "list") or "[]")]


def _links() -> list[str]:
    return [link["ifname"] for link in json.loads(_ip("-j", "link"))]


def _free_subnet() -> int:
    """The third number of a subnet that no address of this machine is in."""
    taken = {
        address["local"].rpartition(".")[0]
        for link in json.loads(_ip("-j", "addr"))
        for address in link["addr_info"]
        if address["family"] == "inet"
    }
    return next(number for number in range(1, 255) if f"{PREFIX}.{number}" not in taken)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
