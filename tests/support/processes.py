"""Waiting for processes in tests: the kernel says when one has ended, so nothing polls and nothing sleeps."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psutil

from tests.support.deadlines import HANG_S


async def ended(pid: int) -> None:
    """Return once the process `pid` has ended, whoever its parent is."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    loop.add_reader(descriptor, lambda: over.done() or over.set_result(None))
    try:
        async with asyncio.timeout(HANG_S):
            await over
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def until_async(holds: Callable[[], Awaitable[bool]]) -> None:
    """As `until`, where asking takes a round trip."""
    async with asyncio.timeout(HANG_S):
        while not await holds():
            await asyncio.sleep(0.02)


async def until(holds: Callable[[], bool]) -> None:
    """Return once `holds()` does; for what no file descriptor tells."""
    async with asyncio.timeout(HANG_S):
        while not holds():
            await asyncio.sleep(0.02)


def children_running(script: str) -> list[psutil.Process]:
    """This process's own children that run `script`; those that have ended and were not waited for are none."""
    running: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # a zombie is one, to psutil
            if any(argument.endswith(script) for argument in child.cmdline()):
                running.append(child)
    return running
