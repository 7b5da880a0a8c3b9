"""Free ports, for jobs and for rollout servers, and the network interface with an address.

All ports are in PORTS, below the ephemeral range, so that no outgoing connection takes one between check and use.
"""

from __future__ import annotations

import fcntl
import random
import socket
import struct
import threading
from collections.abc import Iterator

PORTS = range(20_000, 30_000)
"""Below the range Linux uses for outgoing connections (from 32768)."""
PORTS_OF_A_JOB = 20
SIOCGIFADDR = 0x8915


def ports_of(job_id: str) -> range:
    """The ports of a job, chosen by its id; jobs with close ids share none."""
    jobs = len(PORTS) // PORTS_OF_A_JOB
    first = PORTS.start + int(job_id) % jobs * PORTS_OF_A_JOB
    return range(first, first + PORTS_OF_A_JOB)


def free_ports(ports: range, address: str = "") -> Iterator[int]:
    """The ports on which nothing listens now."""
    for port in ports:
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
        yield port


def interface_of(address: str) -> str | None:
    """The network interface with this IPv4 address, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(handle, SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # the interface has no address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


ATTEMPTS = 200

_given: set[int] = set()
_lock = threading.Lock()


def free_port(host: str, rng: random.Random, preferred: int | None = None) -> int:
    """A port on which nothing listens at `host`, never the same one twice; `preferred` if it is free.

    Raises:
        OSError: no free port was found in ATTEMPTS tries, or `host` is no address of this machine.
    """
    with _lock:
        if preferred is not None and _is_free(host, preferred):
            return preferred
        for port in rng.sample(PORTS, ATTEMPTS):
            if port not in _given and _is_free(host, port):
                _given.add(port)
                return port
    raise OSError(f"no free port of {ATTEMPTS} tried between {PORTS.start} and {PORTS.stop - 1} on {host}")


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as vLLM binds
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (98, 13):  # in use, or not permitted
                return False
            raise
    return True
