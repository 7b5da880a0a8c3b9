"""Ports two jobs on a node do not share, and the interface that leads to the other nodes."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterator

FIRST_PORT, LAST_PORT = 20_000, 30_000
"""Below the range Linux gives to outgoing connections (32768 on)."""
PORTS_OF_A_JOB = 20
SIOCGIFADDR = 0x8915


def ports_of(job_id: str) -> range:
    """The ports that are this job's by its number; jobs whose numbers are close never share one."""
    jobs = (LAST_PORT - FIRST_PORT) // PORTS_OF_A_JOB
    first = FIRST_PORT + int(job_id) % jobs * PORTS_OF_A_JOB
    return range(first, first + PORTS_OF_A_JOB)


def free_ports(ports: range, address: str = "") -> Iterator[int]:
    """Those of them nothing listens on now."""
    for port in ports:
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
        yield port


def interface_of(address: str) -> str | None:
    """The network interface that has this IPv4 address; None when none has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(handle, SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # it has no address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
