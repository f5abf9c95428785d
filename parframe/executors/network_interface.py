"""Network interface by which this node reaches another."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

_GET_ADDRESS = 0x8915
"""SIOCGIFADDR of Linux: the IPv4 address of an interface."""

_NAME = 256
"""Largest size of the kernel's answer in bytes."""


def find_interface(host: str, port: int) -> str | None:
    """Find the interface by which an address is reached; nothing is sent."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError:
        return None
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            try:
                probe.connect(address)  # UDP: the kernel only chooses a route
            except OSError:
                continue
            own = ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])
        name = "lo" if own.is_loopback else _find_by_address(own)
        if name is not None:
            return name
    return None


def _find_by_address(own: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    names = [name for _, name in socket.if_nameindex()]
    if own.version == 4:
        return next((name for name in names if own in _list_addresses(name)), None)
    listed = Path("/proc/net/if_inet6")
    lines = listed.read_text("ascii").split("\n") if listed.exists() else []
    fields = [line.split() for line in lines if line]
    return next((f[-1] for f in fields if bytes.fromhex(f[0]) == own.packed), None)


def _list_addresses(name: str) -> tuple[ipaddress.IPv4Address, ...]:
    """Return the IPv4 address of an interface, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        asked = struct.pack(f"{_NAME}s", name.encode()[:15])
        try:
            answer = fcntl.ioctl(probe, _GET_ADDRESS, asked)
        except OSError:
            return ()
    return (ipaddress.IPv4Address(answer[20:24]),)
