"""The servers of a run, one file each with address and state, and the key that they require."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from grpo_dist.errors import RunDirectoryError
from grpo_dist.run.directory import is_locked, read_as, write_json

State = Literal["starting", "ready", "down", "dropped"]
KEY = "key"
STARTING = ".starting"
"""Exists while servers start on other nodes than training, which starts at the same time and waits for its end."""
KEY_BYTES = 32
WAIT_SECONDS = 0.2
KEY_SECONDS = 10.0
"""For another node to write the key it has begun to write."""


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


def clear(directory: Path) -> None:
    """Remove key and entries that a killed attempt left: whoever listens at their addresses now is no server of ours.

    Call it only while no server of the run is running.
    """
    for path in (directory / KEY, directory / STARTING, *directory.glob("[!.]*.json")):
        with contextlib.suppress(OSError):  # a full disk, or one that went away; both are told elsewhere
            path.unlink()


def note_starting(directory: Path) -> None:
    """Let training wait for the servers that are about to start, until `note_started`."""
    directory.mkdir(exist_ok=True)
    (directory / STARTING).touch()


def note_started(directory: Path) -> None:
    """All servers are ready."""
    (directory / STARTING).unlink(missing_ok=True)


def wait_until_started(directory: Path) -> None:
    """Return when no server is starting. Without a limit: whoever starts them ends training if they do not become
    ready."""
    with contextlib.suppress(FileNotFoundError):
        while True:
            open(directory / STARTING).close()  # asks the file server, where `exists` may answer from the node's cache
            time.sleep(WAIT_SECONDS)


def make_key(directory: Path) -> str:
    """Create the key of the run's servers, unless another node of the run has; return it."""
    key = secrets.token_hex(KEY_BYTES)
    try:  # not by linking a draft to the name: some file systems of clusters have no hard links
        file = os.open(directory / KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _key_of_another_node(directory)
    with open(file, "w", encoding="ascii") as handle:
        handle.write(key)
    return key


def _key_of_another_node(directory: Path) -> str:
    """The key, which the other node may be writing just now; one that was never finished is written again."""
    until = time.monotonic() + KEY_SECONDS
    while len(key := read_key(directory)) < 2 * KEY_BYTES:
        if time.monotonic() > until:
            remove_key(directory)
            return make_key(directory)
        time.sleep(0.1)
    return key


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
            found.append(read_as(ReplicaEntry, path))
        except RunDirectoryError:
            if os.path.lexists(path):  # not removed since the directory was listed
                raise
    return tuple(found)


def lock_of(directory: Path, node: int) -> Path:
    """The file that is locked while a process supervises the servers of a node."""
    return directory / f".lock-{node}"


def is_served(directory: Path, node: int) -> bool:
    """Whether a process supervises the servers of a node already."""
    return is_locked(lock_of(directory, node))
