"""Runs programs that a model wrote, inside the sandbox: `python -I -S runner.py`, a script of its own.

Messages come on standard input and leave on standard output (`remote.send`). The first names the sandbox; the answer
says that the runner is ready. Then, for one program after the other: the program and its limits, and either inputs, one
at a time, each answered by what the program printed for it, or all tests of a program of functions, answered by one
verdict each. What a program should print is never sent here, and tests are read only by a process that is not the
program's. This process executes neither: programs and tests are forks, and leave nothing but their answer.

    runner ── program       no system calls that reach other processes, the network or new programs (confine)
       └───── tests         the same; they call the program through `remote`
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import confine
import remote

FILE_BYTES = 16 << 20
SLOWER_BY = 10
"""A process may take this many times its processor time, and no longer: one that sleeps uses none."""
READABLE = (
    "/usr/lib",
    "/usr/lib64",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/dev/urandom",
    "/dev/zero",
)


class Limits(NamedTuple):
    seconds: int
    memory_bytes: int
    output_bytes: int


class Job(NamedTuple):
    program: str
    limits: Limits
    confined: bool
    """False only if the user accepts it."""

    @property
    def deadline(self) -> float:
        return time.monotonic() + SLOWER_BY * self.limits.seconds


def main() -> None:
    orders, replies = os.dup(0), os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    asked = remote.receive(orders)
    sandbox = asked["sandbox"]
    if sandbox != "bubblewrap":  # which does this itself
        confine.die_with(asked["parent"], signal.SIGKILL)
    if sandbox == "landlock":
        confine.allow_only((*READABLE, sys.base_prefix, os.path.dirname(__file__)), ("/dev/null",))
    if sandbox != "none":
        _try_confining()
    remote.send(replies, {"ready": True})
    with contextlib.suppress(EOFError):
        while True:
            asked = remote.receive(orders)
            job = Job(asked["program"], Limits(**asked["limits"]), sandbox != "none")
            {"script": run_scripts, "functions": run_functions}[asked["kind"]](job, orders, replies)


def _try_confining() -> None:
    """In a process of its own. SystemExit, and so no ready runner, where the kernel refuses."""
    _, status = os.waitpid(_fork(confine.forbid_system_calls, keep=()), 0)
    if status:
        raise SystemExit("seccomp filters are refused here")


def _fork(what: Callable[[], None], keep: tuple[int, ...]) -> int:
    """A child that does so much and ends; of the descriptors above 2 it keeps only these."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        confine.die_with(parent, signal.SIGKILL)
        _close_all_but(keep)
        what()
        code = 0
    except BaseException as error:
        code = _told(error)
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        os._exit(code)


def _close_all_but(keep: tuple[int, ...]) -> None:
    start = 3
    for one in sorted(keep):
        os.closerange(start, one)
        start = one + 1
    os.closerange(start, 1024)


def _told(error: BaseException) -> int:
    """The exit code of what a program raised; its traceback goes to its standard error."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    with contextlib.suppress(BaseException):
        text = f"{type(error).__name__}: {error}"
        os.write(2, text[:500].encode(errors="replace"))
    return 1


def _confine(job: Job) -> None:
    confine.limit(job.limits.seconds, job.limits.memory_bytes, FILE_BYTES)
    if job.confined:
        confine.forbid_system_calls()


def _execute(program: str, names: dict[str, Any]) -> None:
    sys.setrecursionlimit(10_000)
    sys.argv = ["program.py"]
    exec(compile(program, "program.py", "exec"), names)


def _join_threads() -> None:
    """As Python does at its end: many a program's `main` runs in a thread, for its larger stack."""
    if threading := sys.modules.get("threading"):
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()


def run_scripts(job: Job, orders: int, replies: int) -> None:
    """Run the program for each input until null comes."""
    while (given := remote.receive(orders)) is not None:
        remote.send(replies, run_script(job, given.encode()))


def run_script(job: Job, given: bytes) -> dict[str, Any]:
    """What the program prints for one input: {"ended": None or why it failed, "output": text}."""
    (inner_in, outer_in), (outer_out, inner_out), (outer_error, inner_error) = os.pipe(), os.pipe(), os.pipe()

    def program() -> None:
        for descriptor, stream in ((inner_in, 0), (inner_out, 1), (inner_error, 2)):
            os.dup2(descriptor, stream)
        _close_all_but(())
        sys.stdin = open(0, encoding="utf-8", errors="replace")  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
        _confine(job)
        _execute(job.program, {"__name__": "__main__", "__builtins__": __builtins__})
        _join_threads()

    child = _fork(program, keep=(inner_in, inner_out, inner_error))
    for descriptor in (inner_in, inner_out, inner_error):
        os.close(descriptor)
    talk = Talk(given, outer_in, outer_out, outer_error, job.limits.output_bytes)
    why, status = _until_ended(child, talk, job.deadline)
    return {"ended": why or _ending(status, talk.error), "output": talk.output.decode(errors="replace")}


class Talk:
    """Writes to a process and reads from it, never more than so much, whichever of both the process does first."""

    def __init__(self, given: bytes, to: int, out: int, error: int, most: int) -> None:
        self.given, self.to, self.most = memoryview(given), to, most
        self.texts = {out: bytearray(), error: bytearray()}
        self.out, self.of_errors = out, error
        self.open = {out, error}
        os.set_blocking(to, False)

    output = property(lambda self: self.texts[self.out])
    error = property(lambda self: self.texts[self.of_errors].decode(errors="replace"))

    def once(self, process: int, seconds: float) -> bool:
        """Whether the process has ended, after at most so long. OverflowError if it writes too much."""
        writes = [self.to] if self.to >= 0 else []
        readable, writable, _ = select.select([process, *self.open], writes, [], seconds)
        if writable:
            self._write()
        for one in self.open.intersection(readable):
            self._read(one)
        return process in readable

    def _write(self) -> None:
        try:
            self.given = self.given[os.write(self.to, self.given[:65536]) :] if self.given else self.given
        except BrokenPipeError:
            self.given = self.given[:0]
        if not self.given:
            os.close(self.to)
            self.to = -1

    def _read(self, descriptor: int) -> None:
        chunk = os.read(descriptor, 65536)
        text = self.texts[descriptor]
        text += chunk[: max(0, self.most - len(text))] if descriptor == self.of_errors else chunk
        if len(text) > self.most:
            raise OverflowError
        if not chunk:
            self.open.discard(descriptor)

    def rest(self) -> None:
        """What the process wrote before it ended."""
        while self.open:
            for one in list(self.open):
                self._read(one)

    def close(self) -> None:
        for descriptor in (self.out, self.of_errors, *([self.to] if self.to >= 0 else [])):
            os.close(descriptor)


def _until_ended(child: int, talk: Talk, deadline: float) -> tuple[str | None, int]:
    """(why it was ended, or None; its status)."""
    process, why = os.pidfd_open(child), None
    try:
        while not talk.once(process, max(0.0, deadline - time.monotonic())):
            if time.monotonic() >= deadline:
                why = "took too long"
                break
        else:
            talk.rest()
    except OverflowError:
        why = "wrote too much"
    finally:
        status = _end(child)
        os.close(process)
        talk.close()
    return why, status


def _end(child: int) -> int:
    """Its status; it is killed if it has not ended by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _ending(status: int, error: str) -> str | None:
    """Why a program failed, in words; None if it ended well."""
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL:
        return "used too much processor time"
    if code == -signal.SIGXFSZ:
        return "wrote too large a file"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return (error.strip() or f"exit code {code}") if code else None


def run_functions(job: Job, orders: int, replies: int) -> None:
    """Run the program, then all tests in another process, whose verdicts go to the replies as they come."""
    (from_tests, to_program), (from_program, to_tests) = os.pipe(), os.pipe()

    def program() -> None:
        _confine(job)
        Program(job.program, from_tests, to_tests).serve()

    def tests() -> None:
        asked = remote.receive(orders)
        os.close(orders)
        _confine(job)
        Tests(asked, from_program, to_program, replies).run()

    ours = [_fork(program, keep=(from_tests, to_tests))]
    for descriptor in (from_tests, to_tests):
        os.close(descriptor)
    ours.append(_fork(tests, keep=(from_program, to_program, orders, replies)))
    for descriptor in (from_program, to_program):
        os.close(descriptor)
    why = _wait_for(ours[1], job.deadline)
    by_itself, status = os.waitpid(ours[0], os.WNOHANG)
    if not by_itself:
        _end(ours[0])
    of_tests = _end(ours[1])
    remote.send(replies, {"done": True, "ended": why or _ending(status, "") or _ending(of_tests, "")})


def _wait_for(child: int, deadline: float) -> str | None:
    process = os.pidfd_open(child)
    ended, _, _ = select.select([process], [], [], max(0.0, deadline - time.monotonic()))
    os.close(process)
    return None if ended else "took too long"


class Program:
    """The process of a program of functions: executes it, then does what the tests ask."""

    def __init__(self, text: str, reads: int, writes: int) -> None:
        self.text = text
        self.names: dict[str, Any] = {"__name__": "program", "__builtins__": __builtins__}
        self.peer = remote.Peer(reads, writes, self._do, remote.Remote)

    def serve(self) -> None:
        self.peer.answer_all()

    def _do(self, peer: remote.Peer, what: str, *arguments: Any) -> Any:
        return getattr(self, f"on_{what}")(*arguments)

    def on_execute(self) -> list[str]:
        """Run the program. Returns its global names."""
        _execute(self.text, self.names)
        return [name for name in self.names if not name.startswith("__")]

    def on_name(self, name: str) -> list[Any]:
        """[kind, value] of a global name."""
        value = self.names[name]
        if isinstance(value, type(sys)):
            return ["module", value.__name__]
        if isinstance(value, type) and issubclass(value, BaseException):
            return ["error", [kind.__name__ for kind in value.__mro__]]
        return ["value", value]

    on_get = staticmethod(getattr)
    on_set = staticmethod(setattr)
    on_iterate = staticmethod(iter)

    def on_call(self, function: Callable[..., Any], arguments: list[Any], named: dict[str, Any]) -> Any:
        return function(*arguments, **named)

    def on_next(self, iterator: Any) -> list[Any]:
        """[the next one], or [] at the end."""
        return [one for _, one in zip((0,), iterator, strict=False)]  # in this order, or one more is taken

    def on_builtin(self, value: Any, name: str) -> Any:
        return {"len": len, "bool": bool, "str": str, "repr": repr, "int": int, "float": float}[name](value)

    def on_item(self, container: Any, key: Any) -> Any:
        return container[key]

    def on_put(self, container: Any, key: Any, value: Any) -> None:
        container[key] = value


class Tests:
    """The process of the tests: one verdict each, for which nothing counts but what the program's functions return."""

    def __init__(self, asked: dict[str, Any], reads: int, writes: int, replies: int) -> None:
        self.setup, self.tests, self.until_failure = asked["setup"], asked["tests"], asked["until_failure"]
        self.replies = replies
        self.peer = remote.Peer(reads, writes, self._called_back, remote.Remote)
        self.names: dict[str, Any] = {"__name__": "tests", "__builtins__": __builtins__}

    def run(self) -> None:
        sys.setrecursionlimit(10_000)
        try:
            for name in self.peer.ask("execute"):
                self._bind(name)
            exec(compile(self.setup, "tests.py", "exec"), self.names)
        except BaseException as error:
            remote.send(self.replies, {"failed": f"{type(error).__name__}: {error}"[:500]})
            return
        for test in self.tests:
            failed = self._failed(test)
            remote.send(self.replies, {"failed": failed})
            if failed and self.until_failure:
                return

    def _bind(self, name: str) -> None:
        kind, value = self.peer.ask("name", name)
        if kind == "module":
            with contextlib.suppress(ImportError):
                __import__(value)
                self.names[name] = sys.modules[value]
        elif kind == "error":
            base = next(getattr(__builtins__, one) for one in value if hasattr(__builtins__, one))
            self.names[name] = remote.ERRORS.setdefault(value[0], type(value[0], (base,), {}))
        else:
            self.names[name] = value

    def _failed(self, test: dict[str, Any]) -> str | None:
        """Why, in words; None if the test passed."""
        try:
            if "code" in test:
                exec(compile(test["code"], "tests.py", "exec"), self.names)
                return None
            returned = self._function(test["call"])(*test["arguments"])
            right = any(alike(returned, value) for value in test["returns"])
            return None if right else f"returned {returned!r}"[:500]
        except BaseException as error:
            return f"{type(error).__name__}: {error}"[:500]

    def _function(self, name: str) -> Callable[..., Any]:
        """Of the program, or of its class `Solution` as LeetCode has it."""
        if name in self.names or "Solution" not in self.names:
            return self.names[name]
        return getattr(self.names["Solution"](), name)

    def _called_back(self, peer: remote.Peer, what: str, *arguments: Any) -> Any:
        """The program calls a function of the tests that was passed to it, and may do nothing else with it."""
        if what != "call":
            raise TypeError("the program may only call what the tests pass to it")
        function, given, named = arguments
        return function(*given, **named)


def alike(one: Any, other: Any) -> bool:
    """Equal as JSON would have them: a tuple is a list, and keys may have become text."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        texts = {str(key): value for key, value in other.items()}
        return len(one) == len(other) and all(str(key) in texts and alike(one[key], texts[str(key)]) for key in one)
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) or isinstance(other, float):
        numbers = isinstance(one, int | float) and isinstance(other, int | float)
        return numbers and abs(one - other) <= 1e-6 * max(1.0, abs(other))
    return type(one) is type(other) and one == other


if __name__ == "__main__":
    main()
