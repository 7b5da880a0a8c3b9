"""What processes of a test have, and may leave behind."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def processes_with(mark: str) -> list[int]:
    """Processes that have the mark in their command or environment; what they start inherits it there."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if mark.encode() in text:
                found.append(int(entry.name))
    return found


def shared_memory(processes: Iterable[int]) -> set[Path]:
    """Files in /dev/shm that the processes have mapped; by inode, for a semaphore is mapped under another name."""
    mapped = set()
    for pid in processes:
        try:
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        except OSError:  # it has ended
            continue
        mapped |= {int(line.split(maxsplit=5)[4]) for line in lines if "/dev/shm/" in line}
    return {Path(entry.path) for entry in os.scandir("/dev/shm") if entry.inode() in mapped}
