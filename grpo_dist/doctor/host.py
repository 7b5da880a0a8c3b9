"""Checks of disk space, shared memory, limits (ulimit), secrets and the network.

The value of a secret never enters a finding. Of the network: the interfaces NCCL and gloo would use, the host name, and
the rendezvous port.
"""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

from grpo_dist.doctor.case import DoctorContext
from grpo_dist.errors import RunDirectoryError
from grpo_dist.findings import Finding
from grpo_dist.plan.specs.lookup import hub_cache, hub_home, hub_repository
from grpo_dist.run.directory import try_lock
from grpo_dist.run.metrics import has_wandb_key
from grpo_dist.text import gib

RUN_BYTES = 2 * 2**30
"""For checkpoints of the adapter and its optimizer, completions and logs."""
SHARED = Path("/dev/shm")
SHARED_PER_PROCESS = 512 * 2**20
"""For NCCL's buffers between the processes of a node."""


def findings(context: DoctorContext) -> Iterator[Finding]:
    yield _disk("run-directory", context.directory, RUN_BYTES, "--output DIR on another file system")
    yield from _locks(context.directory)
    cache = hub_cache(context.environ)
    yield _disk("hub-cache", cache, _weights(context), "export HF_HOME=/a/large/file/system")
    yield from shared_memory_findings(context)


def _disk(name: str, path: Path, needed: int, hint: str) -> Finding:
    there = _existing(path.absolute())
    free = shutil.disk_usage(there).free
    what = f"{gib(free)} free for {path}"
    if not os.access(there, os.W_OK):
        return Finding(name, "error", f"{there} cannot be written", hint)
    if free < needed:
        return Finding(name, "error", f"{what}; {gib(needed)} wanted", hint)
    return Finding(name, "ok", what)


def _locks(directory: Path) -> Iterator[Finding]:
    """Whether a run can be locked where its directory is or will be; nothing if that cannot be written."""
    there = _existing(directory.absolute())
    try:
        with TemporaryFile("w", dir=there if there.is_dir() else there.parent) as handle:
            try_lock(handle, fcntl.LOCK_EX)
    except RunDirectoryError as error:
        yield Finding("file-locks", "error", f"{there}: {error.message.partition(': ')[2]}", error.hint or "")
    except OSError:
        return
    else:
        yield Finding("file-locks", "ok", f"there are locks in {there}")


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def _weights(context: DoctorContext) -> int:
    """Bytes of a model that still has to be downloaded; 0 if it is present, embedded, or of unknown size."""
    if context.config is None or context.plan is None or context.plan.memory is None:
        return 0
    name = context.config.model.name_or_path
    cached = hub_repository(context.environ, name)
    if Path(name).exists() or cached.exists() or "/" not in name:
        return 0
    trainer = context.plan.memory["roles"].get("trainer", {"components": []})
    return sum(one["bytes"] for one in trainer["components"] if one["name"] == "weights")


def sandbox_findings(context: DoctorContext) -> Iterator[Finding]:
    """In what the reward `code` would run programs here; nothing for a configuration without that reward."""
    config = context.config
    if config and all(one.name != "code" for one in (*config.rewards.functions, config.evaluation.scorer)):
        return
    from grpo_dist.rewards.programs.sandbox import available  # it starts what it finds

    kind, reasons = available()
    if kind:
        yield Finding("sandbox", "ok", f"programs that a model writes run in {kind}{reasons and f' ({reasons})'}")
    else:
        level = "error" if config else "warning"
        what = f"the reward `code` cannot confine programs: {reasons}"
        yield Finding("sandbox", level, what, "apt-get install bubblewrap, and allow user namespaces; see docs/code.md")


def shared_memory_findings(context: DoctorContext) -> Iterator[Finding]:
    """Whether /dev/shm is large enough for the buffers between the processes of this machine."""
    if not SHARED.is_dir():
        return
    total = shutil.disk_usage(SHARED).total
    processes = max(1, context.plan.topology.gpus_per_node) if context.plan and context.here else 1
    needed = SHARED_PER_PROCESS * processes if processes > 1 else 0
    what = f"{SHARED} holds {gib(total)}"
    if total < needed:
        hint = "in a container: --shm-size=16g, or --ipc=host; else: mount -o remount,size=16g /dev/shm"
        yield Finding("shared-memory", "error", f"{what}; {processes} GPUs want {gib(needed)}", hint)
    else:
        yield Finding("shared-memory", "ok", what)


OPEN_FILES = 4096
PROCESSES = 4096
INFINIBAND = Path("/sys/class/infiniband")


def limit_findings(context: DoctorContext) -> Iterator[Finding]:
    yield _limit("open-files", resource.RLIMIT_NOFILE, OPEN_FILES, "ulimit -n", "nofile")
    yield _limit("processes", resource.RLIMIT_NPROC, PROCESSES, "ulimit -u", "nproc")
    if context.several_nodes and INFINIBAND.is_dir():
        locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        if locked == resource.RLIM_INFINITY:
            yield Finding("locked-memory", "ok", "unlimited")
        else:
            what = f"{locked // 1024:,} KiB may be locked; InfiniBand registers all buffers it sends"
            hint = "ulimit -l unlimited; under Slurm: PropagateResourceLimitsExcept=MEMLOCK in slurm.conf"
            yield Finding("locked-memory", "warning", what, hint)


def _limit(name: str, which: int, wanted: int, command: str, item: str) -> Finding:
    soft, hard = resource.getrlimit(which)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return Finding(name, "ok", "unlimited" if soft == resource.RLIM_INFINITY else f"{soft:,}")
    what = f"{soft:,}, fewer than {wanted:,}"
    if soft == hard:
        hint = f"only root can raise it: `* hard {item} {wanted}` in /etc/security/limits.conf"
        return Finding(name, "warning", what, hint)
    highest = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    return Finding(name, "warning", what, f"{command} {highest}")


def secret_findings(context: DoctorContext) -> Iterator[Finding]:
    yield Finding("hub-token", "ok", _hub_token(context))
    if context.config and "wandb" in context.config.tracking:
        if has_wandb_key(context.environ):
            yield Finding("wandb-key", "ok", "there")
        else:
            what = "none: Weights & Biases will write into the run directory only"
            yield Finding("wandb-key", "warning", what, "wandb login, or: export WANDB_API_KEY=<your key>")


def _hub_token(context: DoctorContext) -> str:
    if context.environ.get("HF_TOKEN"):
        return "HF_TOKEN is set"
    file = Path(context.environ.get("HF_TOKEN_PATH") or hub_home(context.environ) / "token").expanduser()
    if file.is_file():
        return f"in {file}"
    return "none; public models and data need none (for others: export HF_TOKEN=<your token>)"


INTERFACES = Path("/sys/class/net")
VIRTUAL = ("lo", "docker", "veth", "virbr", "br-", "cni", "flannel", "tun", "ifb", "dummy")
PINS = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
RENDEZVOUS_PORT = 29500
"""Default of PyTorch and Accelerate."""


def network_findings(context: DoctorContext) -> Iterator[Finding]:
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
        what = f"{name} is {address} here: other nodes would look for it on themselves"
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
