"""Ports for rollout servers: below the ephemeral range, so that no outgoing connection takes one in between."""

from __future__ import annotations

import random
import socket
import threading

PORTS = range(20_000, 30_000)
ATTEMPTS = 200

_given: set[int] = set()
_lock = threading.Lock()


def free_port(host: str, rng: random.Random, preferred: int | None = None) -> int:
    """A port nobody listens on at `host`, not given out before in this process; the preferred one if it is free.

    Raises:
        OSError: none was free of many tried, or `host` is no address of this machine.
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
            if error.errno in (98, 13):  # in use, or not ours to take
                return False
            raise
    return True
