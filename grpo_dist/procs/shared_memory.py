"""Files in /dev/shm: which of them the processes of a program made, and their removal after its end.

A process that was killed leaves its files behind, and no longer says which they were. Other jobs of the same user have
files there too. So the files are looked at while the processes live, and only those seen in their hands are removed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from grpo_dist.procs.tree import Process

SHARED_MEMORY = "/dev/shm/"
LOOK_SECONDS = 0.25
"""Between two looks at the files. What a process makes less than this before all who use it are killed may stay."""
LOOKS = 3
"""A new file that none of the processes had in so many looks is another program's, whoever opens it later."""

Identity = tuple[int, int]
"""Device and inode of a file."""
File = tuple[str, Identity]
"""A name in /dev/shm with what it stands for; another program may use the name later."""


class SharedMemory:
    """What some processes make in /dev/shm from now on."""

    def __init__(self, processes: Callable[[], Iterable[Process]]) -> None:
        self._processes = processes
        self._looks_left = dict.fromkeys(_files(), 0)
        self._made = set[File]()

    def look(self) -> None:
        """Note the new files that the processes have open or mapped. Cheap if there are none."""
        files = list(_files())
        self._looks_left = {file: self._looks_left.get(file, LOOKS) for file in files}
        self._made &= {*files}
        if not (new := [file for file in files if self._looks_left[file]]):
            return
        names = {name for name, _ in new}
        used = {identity for process in self._processes() for identity in _in_use(str(process.pid), names)}
        for file in new:
            made = file[1] in used
            self._looks_left[file] = 0 if made else self._looks_left[file] - 1
            self._made |= {file} if made else set()

    def remove(self) -> None:
        """Remove those of the files noted that no living process has open or mapped."""
        left = {file for file in _files() if file in self._made}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if not left:
                return
            used = set(_in_use(pid, {name for name, _ in left}))
            left = {file for file in left if file[1] not in used}
        for name, _ in left:
            with contextlib.suppress(OSError):
                os.unlink(SHARED_MEMORY + name)


def _files() -> Iterator[File]:
    """This user's files in /dev/shm."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(SHARED_MEMORY):
            with contextlib.suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                if entry.is_file(follow_symlinks=False) and found.st_uid == os.getuid():
                    yield entry.name, _identity(found)


def _in_use(pid: str, names: set[str]) -> Iterator[Identity]:
    """Files that a process maps or has open, by device and inode: paths may differ.

    A process in another container may see another path for the same file, or none; and `sem_open` maps a temporary file
    that it links to the semaphore's name and then unlinks.
    """
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            _, _, _, device, inode, *_ = line.split(maxsplit=5)
            yield os.makedev(*(int(part, 16) for part in device.split(":"))), int(inode)
    with contextlib.suppress(OSError):
        for handle in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(handle.path).rpartition("/")[2] in names:  # stat of others may hang on a file server
                    yield _identity(os.stat(handle.path))


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino
