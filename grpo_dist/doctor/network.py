"""Checks of the interfaces NCCL and gloo would use, the host name, and the rendezvous port."""

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
"""Default of PyTorch and Accelerate."""


def findings(context: DoctorContext) -> Iterator[Finding]:
    yield from pins(context)
    yield from _interfaces(context)
    if context.several_nodes:
        yield _name()
    if context.plan and context.here and context.plan.topology.num_processes > 1:
        yield _port(int(context.environ.get("MASTER_PORT") or RENDEZVOUS_PORT))


def usable() -> list[str]:
    """Interfaces that are up and neither loopback nor virtual."""
    names = [path.name for path in sorted(INTERFACES.iterdir())] if INTERFACES.is_dir() else []
    return [name for name in names if not name.startswith(VIRTUAL) and _up(name)]


def _up(name: str) -> bool:
    try:
        return (INTERFACES / name / "operstate").read_text().strip() in ("up", "unknown")
    except OSError:
        return False


def pins(context: DoctorContext) -> Iterator[Finding]:
    """Errors for interfaces that the environment names and this machine does not have."""
    there = usable()
    for pin in PINS:
        named = [name.lstrip("^=") for name in context.environ.get(pin, "").split(",") if name]
        excluding = context.environ.get(pin, "").startswith("^")
        wrong = [name for name in named if not any(one.startswith(name) for one in (*there, "lo"))]
        if wrong and not excluding:
            status = "error" if context.here and context.plan and context.plan.topology.num_processes > 1 else "warning"
            what = f"{pin}={context.environ[pin]}: there is no interface {', '.join(wrong)} that is up"
            yield Finding("interface-pin", status, what, f"export {pin}={there[0] if there else 'lo'}")


def _interfaces(context: DoctorContext) -> Iterator[Finding]:
    there = usable()
    if context.several_nodes and len(there) > 1 and not any(context.environ.get(pin) for pin in PINS):
        what = f"several interfaces: {', '.join(there)}; NCCL takes the first that it likes"
        yield Finding("interfaces", "warning", what, f"export {PINS[0]}={there[0]} {PINS[1]}={there[0]}")
    elif there:
        yield Finding("interfaces", "ok", ", ".join(there))
    elif context.several_nodes:
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
