"""The servers of a run as files: who there is, where, and in what state; and the key they ask for."""

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
    """Where it listens or will; a replica that is started again may take another port."""
    host: str
    pid: int
    """Process that listens; 0 while there is none."""
    incarnation: int
    """Times it was started before: what an earlier one had loaded is gone."""
    state: State
    log: str


def make_key(directory: Path) -> str:
    """The key of the run's servers: a fresh one, or the one another node of the run has made."""
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
    """The last server of the run is gone."""
    (directory / KEY).unlink(missing_ok=True)


def read_key(directory: Path) -> str:
    """The key of the run's servers.

    Raises:
        FileNotFoundError: no servers were started.
    """
    return (directory / KEY).read_text(encoding="ascii").strip()


def write_replica(directory: Path, entry: ReplicaEntry) -> None:
    """Say how a server is now."""
    write_json(directory / f"{entry.name}.json", asdict(entry))


def remove_replica(directory: Path, name: str) -> None:
    """A server that is no more."""
    (directory / f"{name}.json").unlink(missing_ok=True)


def read_replicas(directory: Path) -> tuple[ReplicaEntry, ...]:
    """All servers of the run, by name; none where nothing was started."""
    found = []
    for path in sorted(directory.glob("[!.]*.json")):
        try:
            found.append(ReplicaEntry(**json.loads(path.read_text(encoding="utf-8"))))
        except FileNotFoundError:  # it went away between the two looks
            continue
    return tuple(found)


def lock_of(directory: Path, node: int) -> Path:
    """Locked by whoever keeps the servers of a node."""
    return directory / f".lock-{node}"


def is_served(directory: Path, node: int) -> bool:
    """Whether somebody keeps the servers of a node already."""
    try:
        with open(lock_of(directory, node), encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
