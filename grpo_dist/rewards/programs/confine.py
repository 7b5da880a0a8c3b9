"""What a process gives up before it runs a program that a model wrote: system calls, files, memory, processor time.

Run by `runner.py`, which imports nothing but this and the standard library: it has no site-packages. seccomp(2),
landlock(7) and setrlimit(2) are used directly, since no library for them comes with Python. The numbers of the system
calls are those of Linux for x86-64 and for aarch64, and are never changed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Limits(NamedTuple):
    """Of one program: processor time for one input, or for all its assertions."""

    seconds: int = 4
    memory_bytes: int = 1 << 30
    output_bytes: int = 1 << 20


_libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 1, 38, 22
SECCOMP_MODE_FILTER = 2
CLONE_THREAD = 0x10000

FORBIDDEN = {
    # New programs and processes. Threads stay: `clone` is looked at below.
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # Other processes.
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # The network, and whatever else connects processes.
    "socket": (41, 198),
    "socketpair": (53, 199),
    "io_uring_setup": (425, 425),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "semget": (64, 190),
    "shmget": (29, 194),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    # Memory that no limit counts.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # What belongs to files and is not for Landlock: their mode, owner, times and attributes.
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    # The kernel, and ways out of what is confined.
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "fsopen": (430, 430),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "truncate": (76, 45),  # not for Landlock before Linux 6.2
    "ftruncate": (77, 46),
    "inotify_init": (253, None),  # watches what Landlock keeps from being read
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "acct": (163, 89),
    "swapon": (167, 224),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "syslog": (103, 116),
    "personality": (135, 92),
    "vhangup": (153, 58),
}
"""System calls that fail with EPERM: (x86-64, aarch64), None where there is none."""

CLONE, CLONE3, PRCTL, PRLIMIT = (56, 220), (435, 435), (157, 167), (302, 261)
OPEN, OPENAT, OPENAT2, FCNTL = (2, None), (257, 56), (437, 437), (72, 25)
TRUNCATING = (os.O_TRUNC | os.O_RDONLY, os.O_TRUNC | os.O_ACCMODE)
"""Ways to open that empty a file without a right to write that Landlock would miss before Linux 6.2."""
OF_OWNERS = (8, 10, 15, 1024, 1026)
"""Commands of fcntl(2) that make the kernel send signals, to any process: F_SETOWN, F_SETSIG, F_SETOWN_EX, …"""
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Place in the pairs above, and AUDIT_ARCH of linux/audit.h."""
X32 = 0x40000000
"""From this number on the system calls of x86-64 are those of another ABI."""

# linux/filter.h and linux/seccomp.h
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN, _AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCH, _ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; the low half of the first argument


def seccomp_filter(machine: str) -> bytes:
    """The filter as an array of `struct sock_filter`; KeyError for another machine than those known."""
    place, arch = ARCHITECTURES[machine]
    refuse, missing = _one(_RETURN, _ERRNO | errno.EPERM), _one(_RETURN, _ERRNO | errno.ENOSYS)
    allow, kill = _one(_RETURN, _ALLOW), _one(_RETURN, _KILL)
    parts = [_one(_LOAD, _ARCH), _one(_EQUAL, arch, 1, 0), kill, _one(_LOAD, _NUMBER)]
    parts += [_one(_AT_LEAST, X32, 0, 1), kill]
    for numbers in FORBIDDEN.values():
        if numbers[place] is not None:
            parts += [_one(_EQUAL, numbers[place], 0, 1), refuse]
    for numbers in (CLONE3, OPENAT2):  # their flags are in memory; glibc falls back to clone and openat
        parts += [_one(_EQUAL, numbers[place], 0, 1), missing]
    for number, argument, mask, values in (
        (OPEN[place], 1, os.O_TRUNC | os.O_ACCMODE, TRUNCATING),
        (OPENAT[place], 2, os.O_TRUNC | os.O_ACCMODE, TRUNCATING),
        (FCNTL[place], 1, 0xFFFFFFFF, OF_OWNERS),
    ):
        if number is not None:
            found = [_one(_LOAD, _ARGUMENT + 8 * argument), _one(_AND, mask)]
            found += [part for value in values for part in (_one(_EQUAL, value, 0, 1), refuse)]
            parts += [_one(_EQUAL, number, 0, len(found) + 1), *found, allow]
    load = _one(_LOAD, _ARGUMENT)
    parts += [_one(_EQUAL, CLONE[place], 0, 4), load, _one(_ANY_BIT, CLONE_THREAD, 1, 0), refuse, allow]
    parts += [_one(_EQUAL, PRCTL[place], 0, 4), load, _one(_EQUAL, PR_SET_PDEATHSIG, 0, 1), refuse, allow]
    parts += [_one(_EQUAL, PRLIMIT[place], 0, 4), load, _one(_EQUAL, 0, 1, 0), refuse, allow]  # 0: this process
    return b"".join([*parts, allow])


def _one(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def forbid_system_calls() -> None:
    """For this process and for good. OSError if the kernel refuses."""
    code = seccomp_filter(platform.machine())
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    _prctl(PR_SET_NO_NEW_PRIVS, 1, 0)
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program))


def die_with(parent: int, signum: int) -> None:
    """End this process when its parent, of that id, ends."""
    _prctl(PR_SET_PDEATHSIG, signum, 0)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int, address: int) -> None:
    arguments = (ctypes.c_int(option), *map(ctypes.c_ulong, (value, address, 0, 0)))
    if _libc.prctl(*arguments) != 0:
        _fail(f"prctl({option})")


def _fail(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")


def limit(seconds: int, memory_bytes: int, file_bytes: int) -> None:
    """Processor time, address space and size of a file, each of this process and for good."""
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


# linux/landlock.h. The numbers of the system calls are the same on all machines.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 1 << 1, 1 << 2, 1 << 3
_OF_ABI = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
"""Rights over files that came with each version."""
_TCP, _SCOPES = 0b11, 0b11
_PATH_BENEATH = 1


def landlock_version() -> int:
    """Version of Landlock in this kernel; 0 without."""
    return max(0, _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1))


def allow_only(readable: Sequence[str], writable: Iterable[str] = ()) -> None:
    """From now on this process reads files only below these paths, and writes only to these files (Landlock).

    OSError where the kernel has no Landlock. Paths that do not exist are left out.
    """
    version = landlock_version()
    if not version:
        raise OSError(errno.ENOSYS, "this kernel has no Landlock")
    files = 0
    for since, rights in _OF_ABI.items():
        files |= rights if version >= since else 0
    attributes = struct.pack("=QQQ", files, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    ruleset = _libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        _fail("landlock_create_ruleset")
    for path, rights in _rules(readable, writable):
        _add(ruleset, path, rights & files)
    _prctl(PR_SET_NO_NEW_PRIVS, 1, 0)
    if _libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
        _fail("landlock_restrict_self")
    os.close(ruleset)


def _rules(readable: Iterable[str], writable: Iterable[str]) -> Iterator[tuple[str, int]]:
    for path in readable:
        yield path, (_EXECUTE | _READ_FILE | _READ_DIR) if os.path.isdir(path) else (_EXECUTE | _READ_FILE)
    for path in writable:
        yield path, _READ_FILE | _WRITE_FILE


def _add(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    rule = struct.pack("=Qi", rights, descriptor)
    if _libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0) != 0:
        _fail(f"landlock_add_rule of {path}")
    os.close(descriptor)
