"""Hosts to try several machines on one: network namespaces of Linux, joined by a bridge.

Each host has its own network, and shares disk, cores and memory with the others. Where namespaces
are not permitted, hosts are addresses of the loopback network.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from medil.system.children import tied

ROOT = Path(__file__).parents[2]
NAMESPACES, LOOPBACK = "network namespaces", "loopback addresses"


class Host(NamedTuple):
    """One host: how programs are started on it, and its address."""

    address: str
    interface: str
    prefix: tuple[str, ...]  # of every command on it

    @property
    def kind(self) -> str:
        """What stands in for a machine."""
        return NAMESPACES if self.prefix else LOOPBACK

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str] | None = None, **more: Any
    ) -> subprocess.Popen:
        """Start a Python program there, `python -m ARGUMENTS`, in the checkout."""
        own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(environment or {})}
        command = [*self.prefix, sys.executable, "-m", *arguments]
        return subprocess.Popen(command, env={**os.environ, **own}, **(tied() | more))


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """So many hosts that reach one another, and that this process reaches, for the block."""
    tag, number = f"m{os.getpid() % 10**6}", os.getpid()
    net = f"10.{64 + number % 64}.{number // 64 % 256}"
    bridge = f"{tag}b"
    try:
        _ip(f"link add {bridge} type bridge")
    except (OSError, subprocess.CalledProcessError):
        yield [Host(f"127.0.0.{k + 2}", "lo", ()) for k in range(count)]
        return
    try:
        _ip(f"addr add {net}.254/24 dev {bridge}", f"link set {bridge} up")
        yield [_namespace(f"{tag}n{k}", bridge, f"{net}.{k + 1}") for k in range(count)]
    finally:
        for k in range(count):
            subprocess.run(["ip", "netns", "del", f"{tag}n{k}"], capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True)


def _namespace(name: str, bridge: str, address: str) -> Host:
    _ip(
        f"netns add {name}",
        f"link add {name}v type veth peer name eth0 netns {name}",
        f"link set {name}v master {bridge} up",
        f"-n {name} addr add {address}/24 dev eth0",
        f"-n {name} link set eth0 up",
        f"-n {name} link set lo up",
        f"-n {name} route add default via {address.rpartition('.')[0]}.254",
    )
    return Host(address, "eth0", ("ip", "netns", "exec", name))


def _ip(*commands: str) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True, capture_output=True)
