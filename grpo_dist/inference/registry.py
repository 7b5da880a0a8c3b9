"""The servers of a run, one file each with address and state, and the key that they require."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from grpo_dist.run.directory import write_json

State = Literal["starting", "ready", "down", "dropped"]
KEY = "key"


@dataclass(frozen=True)
class ReplicaEntry:
    """One server."""

    name: str
    url: str
    """Where it listens, or will; a restarted replica may take another port."""
    host: str
    pid: int
    """Process that listens; 0 while there is none."""
    incarnation: int
    """Number of earlier starts; adapters loaded by an earlier incarnation are gone."""
    state: State
    log: str


def make_key(directory: Path) -> str:
    """Create the key of the run's servers, unless another node of the run has; return it."""
    draft = directory / f".{KEY}.{secrets.token_hex(4)}"
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as handle:
        handle.write(secrets.token_hex(32))
    try:
        os.link(draft, directory / KEY)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return read_key(directory)


def remove_key(directory: Path) -> None:
    """Remove the key; called when the last server of the run is gone."""
    (directory / KEY).unlink(missing_ok=True)


def read_key(directory: Path) -> str:
    """The key of the run's servers.

    Raises:
        FileNotFoundError: no servers were started.
    """
    return (directory / KEY).read_text(encoding="ascii").strip()


def write_replica(directory: Path, entry: ReplicaEntry) -> None:
    """Record the state of a server."""
    write_json(directory / f"{entry.name}.json", asdict(entry))


def remove_replica(directory: Path, name: str) -> None:
    """Remove a server from the registry."""
    (directory / f"{name}.json").unlink(missing_ok=True)


def read_replicas(directory: Path) -> tuple[ReplicaEntry, ...]:
    """All servers of the run, sorted by name; empty if none was started."""
    found = []
    for path in sorted(directory.glob("[!.]*.json")):
        try:
            found.append(ReplicaEntry(**json.loads(path.read_text(encoding="utf-8"))))
        except FileNotFoundError:  # removed since the directory was listed
            continue
    return tuple(found)


def lock_of(directory: Path, node: int) -> Path:
    """The file that is locked while a process supervises the servers of a node."""
    return directory / f".lock-{node}"


def is_served(directory: Path, node: int) -> bool:
    """Whether a process supervises the servers of a node already."""
    try:
        with open(lock_of(directory, node), encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
