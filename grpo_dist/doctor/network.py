"""Interfaces that NCCL and gloo would take, the name of this machine, and the port processes meet at."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

from grpo_dist.doctor.case import DoctorContext
from grpo_dist.findings import Finding

INTERFACES = Path("/sys/class/net")
VIRTUAL = ("lo", "docker", "veth", "virbr", "br-", "cni", "flannel", "tun", "ifb", "dummy")
PINS = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
RENDEZVOUS_PORT = 29500
"""PyTorch's, and Accelerate's where no other is stated."""


def findings(case: DoctorContext) -> Iterator[Finding]:
    yield from pins(case)
    yield from _interfaces(case)
    if case.several_nodes:
        yield _name()
    if case.plan and case.here and case.plan.topology.num_processes > 1:
        yield _port(int(case.environ.get("MASTER_PORT") or RENDEZVOUS_PORT))


def usable() -> list[str]:
    """Interfaces that are up and lead somewhere."""
    names = [path.name for path in sorted(INTERFACES.iterdir())] if INTERFACES.is_dir() else []
    return [name for name in names if not name.startswith(VIRTUAL) and _up(name)]


def _up(name: str) -> bool:
    try:
        return (INTERFACES / name / "operstate").read_text().strip() in ("up", "unknown")
    except OSError:
        return False


def pins(case: DoctorContext) -> Iterator[Finding]:
    """Interfaces that the environment names and this machine has not."""
    there = usable()
    for pin in PINS:
        stated = [name.lstrip("^=") for name in case.environ.get(pin, "").split(",") if name]
        excluding = case.environ.get(pin, "").startswith("^")
        wrong = [name for name in stated if not any(one.startswith(name) for one in (*there, "lo"))]
        if wrong and not excluding:
            status = "error" if case.here and case.plan and case.plan.topology.num_processes > 1 else "warning"
            what = f"{pin}={case.environ[pin]}: there is no interface {', '.join(wrong)} that is up"
            yield Finding("interface-pin", status, what, f"export {pin}={there[0] if there else 'lo'}")


def _interfaces(case: DoctorContext) -> Iterator[Finding]:
    there = usable()
    if case.several_nodes and len(there) > 1 and not any(case.environ.get(pin) for pin in PINS):
        what = f"several interfaces: {', '.join(there)}; NCCL takes the first that it likes"
        yield Finding("interfaces", "warning", what, f"export {PINS[0]}={there[0]} {PINS[1]}={there[0]}")
    elif there:
        yield Finding("interfaces", "ok", ", ".join(there))
    elif case.several_nodes:
        yield Finding("interfaces", "error", "no interface is up but loopback", "ip link")


def _name() -> Finding:
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError as error:
        return Finding("host-name", "error", f"{name} does not resolve: {error}", f"getent hosts {name}")
    if address.startswith("127."):
        what = f"{name} is {address} here: other nodes would be told to meet at themselves"
        return Finding("host-name", "warning", what, f"take {name} off the {address} line of /etc/hosts")
    return Finding("host-name", "ok", f"{name} is {address}")


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            hint = f"see who has it: ss -ltnp 'sport = :{port}'; or: export MASTER_PORT={port + 1}"
            return Finding("port", "warning", f"port {port} cannot be had: {error.strerror}", hint)
    return Finding("port", "ok", f"port {port} is free")
