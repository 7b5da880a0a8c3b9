"""Runs programs that a model wrote, inside the sandbox: `python -I -S runner.py`, a script of its own.

Messages come on standard input and leave on standard output (`remote.send`). The first names the sandbox; the answer
says that the runner is ready. Then, for one program after the other: the program and its limits, and either inputs, one
at a time, each answered by what the program printed for it, or all tests of a program of functions, answered by one
verdict each. What a program should print is never sent here, and tests are read only by a process that is not the
program's. The runner reads neither: a keeper, forked for each program, receives it and forks what executes it. So
nothing of one is in the memory of the next, and nothing but an answer is left.

    runner ── keeper ── program       no system calls that reach other processes, the network or new programs (confine)
                 └───── tests         the same; they call the program through `remote`
"""

from __future__ import annotations

import _sitebuiltins
import atexit
import builtins
import contextlib
import importlib
import json
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import confine
import remote
from processes import Talk, close_all_but, end, ending, fork, until_ended

FILE_BYTES = 16 << 20
SLOWER_BY = 10
"""A process may take this many times its processor time, and no longer: one that sleeps uses none."""
IMPORTED = ("typing", "collections", "itertools", "functools", "heapq", "bisect", "math", "string", "re", "copy")
"""Programs that are called as LeetCode calls them have these modules, and what is in them, without importing them."""
OF_PYTHON = frozenset(dir(builtins)) | sys.stdlib_module_names
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


class Job(NamedTuple):
    program: str
    limits: confine.Limits
    confined: bool
    """False only if the user accepts it."""
    imports: bool
    """Whether the names of IMPORTED are there without an import."""

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
    builtins.exit = builtins.quit = _sitebuiltins.Quitter("exit", "")  # `site` makes them, and is not imported
    for module in IMPORTED:
        importlib.import_module(module)
    remote.send(replies, {"ready": True})

    def keeper() -> None:
        asked = remote.receive(orders)
        job = Job(asked["program"], confine.Limits(**asked["limits"]), sandbox != "none", asked.get("imports", False))
        {"script": run_scripts, "functions": run_functions}[asked["kind"]](job, orders, replies)

    while os.waitpid(fork(keeper, keep=(orders, replies)), 0)[1] == 0:  # it fails at the end of the orders
        pass


def _try_confining() -> None:
    """In a process of its own. SystemExit, and so no ready runner, where the kernel refuses."""
    _, status = os.waitpid(fork(confine.forbid_system_calls, keep=()), 0)
    if status:
        raise SystemExit("seccomp filters are refused here")


def _confine(job: Job) -> None:
    confine.limit(job.limits.seconds, job.limits.memory_bytes, FILE_BYTES)
    if job.confined:
        confine.forbid_system_calls()


def _module(name: str) -> dict[str, Any]:
    """The names of a new module, which `dataclasses` and others look up by its name."""
    sys.modules[name] = module = types.ModuleType(name)
    vars(module)["__builtins__"] = builtins
    return vars(module)


def _execute(job: Job, names: dict[str, Any]) -> None:
    sys.setrecursionlimit(10_000)
    sys.argv = ["program.py"]
    if job.imports:
        vars(builtins).update(_imported())
    exec(compile(job.program, "program.py", "exec", dont_inherit=True), names)


def _imported() -> dict[str, Any]:
    modules = {name: sys.modules[name] for name in IMPORTED}
    inside = {n: one for m in modules.values() for n, one in vars(m).items() if n in getattr(m, "__all__", dir(m))}
    return {n: one for n, one in (inside | modules).items() if n[0] != "_" and not hasattr(builtins, n)}


def _finish(names: dict[str, Any]) -> None:
    """As Python does at its end: many a program's `main` runs in a thread, for its larger stack, or prints at exit."""
    _join_threads()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.__stdout__):
        stream.flush()
    names.clear()  # closes files


def _join_threads() -> None:
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
        close_all_but(())
        sys.stdin = open(0, encoding="utf-8", errors="replace")  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
        _confine(job)
        names = _module("__main__")
        try:
            _execute(job, names)
        finally:
            _finish(names)

    child = fork(program, keep=(inner_in, inner_out, inner_error))
    for descriptor in (inner_in, inner_out, inner_error):
        os.close(descriptor)
    talk = Talk(given, outer_in, outer_out, outer_error, job.limits.output_bytes)
    why, status = until_ended(child, talk, job.deadline)
    return {"ended": why or ending(status, talk.error), "output": talk.output.decode(errors="replace")}


def run_functions(job: Job, orders: int, replies: int) -> None:
    """Run the program, then all tests in another process. Replies with the verdicts, which come one per line."""
    (from_tests, to_program), (from_program, to_tests), (outer, inner) = os.pipe(), os.pipe(), os.pipe()

    def program() -> None:
        _confine(job)
        Program(job, from_tests, to_tests).serve()

    def tests() -> None:
        asked = remote.receive(orders)
        os.close(orders)
        _confine(job)
        Tests(asked, from_program, to_program, inner).run()

    ours = [fork(program, keep=(from_tests, to_tests))]
    for descriptor in (from_tests, to_tests):
        os.close(descriptor)
    ours.append(fork(tests, keep=(from_program, to_program, orders, inner)))
    for descriptor in (from_program, to_program, inner):
        os.close(descriptor)
    talk = Talk(b"", -1, outer, outer, FILE_BYTES)
    why, of_tests = until_ended(ours[1], talk, job.deadline)
    by_itself, status = os.waitpid(ours[0], os.WNOHANG)
    if not by_itself:
        end(ours[0])
    ended = why or ending(status, "") or ending(of_tests, "")
    remote.send(replies, {"failures": list(_verdicts(talk.error)), "ended": ended})


def _verdicts(lines: str) -> Iterator[str | None]:
    """None, or why a test failed. Whatever else the tests wrote is a failure."""
    for line in lines.split("\n")[:-1]:
        try:
            failed = json.loads(line)
        except (ValueError, RecursionError):
            failed = "no verdict"
        yield failed if failed is None else str(failed)


class Program:
    """The process of a program of functions: executes it, then does what the tests ask."""

    def __init__(self, job: Job, reads: int, writes: int) -> None:
        self.job = job
        self.names = _module("program")
        self.peer = remote.Peer(reads, writes, self._do, remote.Remote)

    def serve(self) -> None:
        self.peer.answer_all()

    def _do(self, peer: remote.Peer, what: str, *arguments: Any) -> Any:
        return getattr(self, f"on_{what}")(*arguments)

    def on_execute(self) -> list[str]:
        """Run the program. Returns its global names."""
        _execute(self.job, self.names)
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

    def __init__(self, asked: dict[str, Any], reads: int, writes: int, verdicts: int) -> None:
        self.setup, self.tests, self.until_failure = asked["setup"], asked["tests"], asked["until_failure"]
        self.verdicts = verdicts
        self.peer = remote.Peer(reads, writes, self._called_back, remote.Remote)
        self.names: dict[str, Any] = {"__name__": "tests", "__builtins__": __builtins__}

    def run(self) -> None:
        sys.setrecursionlimit(10_000)
        try:
            used = self._used()
            names = [name for name in self.peer.ask("execute") if name in used and not name.startswith("__")]
            alone = all(name in OF_PYTHON for name in names)
            for name in names:
                self._bind(name, alone)
            exec(compile(self.setup, "tests.py", "exec", dont_inherit=True), self.names)
        except BaseException as error:
            self._tell(f"{type(error).__name__}: {error}")
            return
        for test in self.tests:
            failed = self._failed(test)
            self._tell(failed)
            if failed and self.until_failure:
                return

    def _tell(self, failed: str | None) -> None:
        os.write(self.verdicts, json.dumps(failed and failed[:500]).encode("ascii") + b"\n")

    def _used(self) -> set[str]:
        """The names in the tests."""
        used = {"Solution", *(test.get("call") for test in self.tests)}
        for text in (self.setup, *(test.get("code", "") for test in self.tests)):
            with contextlib.suppress(SyntaxError, ValueError):
                used.update(_names(compile(text, "tests.py", "exec", dont_inherit=True)))
        return used

    def _bind(self, name: str, alone: bool) -> None:
        """Give the tests a name of the program. What it calls `abs` or `math` is bound only if the tests use nothing
        else of it, and so want that: or else it would change what the tests compare."""
        kind, value = self.peer.ask("name", name)
        if name in OF_PYTHON and not (alone or kind == "module"):
            return
        if kind == "module":
            with contextlib.suppress(ImportError):
                __import__(value)
                self.names[name] = sys.modules[value]
        elif kind == "error":
            self.names[name] = remote.error_class(value)
        else:
            self.names[name] = value

    def _failed(self, test: dict[str, Any]) -> str | None:
        """Why, in words; None if the test passed."""
        try:
            if "code" in test:
                exec(compile(test["code"], "tests.py", "exec", dont_inherit=True), self.names)
                return None
            returned = self._function(test["call"])(*test["arguments"])
            right = any(remote.alike(returned, value) for value in test["returns"])
            return None if right else f"returned {returned!r}"
        except BaseException as error:
            return f"{type(error).__name__}: {error}"

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


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names(inner)


if __name__ == "__main__":
    main()
