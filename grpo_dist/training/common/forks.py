"""Stages of a run on a CPU, forked from one process that has already imported what they all need.

`launch.forks` starts this process and asks it over a socket for one stage after the other. Each stage is still a
process of its own, which ends with it.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import json
import os
import random
import runpy
import signal
import socket
import sys
import weakref
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from grpo_dist.launch.forks import LAUNCHER
from grpo_dist.procs.tree import die_with_parent
from grpo_dist.training.common.process import import_lean, leave_to_others, open_run

LONGEST_REQUEST = 1 << 20


class Request(NamedTuple):
    """A request for one stage."""

    argv: Sequence[str]
    """`python -m MODULE ARGUMENT …`; run by this interpreter."""
    env: Mapping[str, str]
    output: int
    """File descriptor of its standard output and error."""


def main(descriptor: str, run: str) -> None:
    """Fork each requested stage until the client closes the socket. Never returns in the server process."""
    die_with_parent()
    asked, this = socket.socket(fileno=int(descriptor)), os.getpid()
    with contextlib.suppress(Exception):  # the stage will meet the same error and report it
        _import_stack(Path(run))
    gc.freeze()  # otherwise each stage's first garbage collection would copy every shared page
    while request := _next(asked):
        child = os.fork()
        if child == 0:
            _begin(request, asked, this)
            _run(*request.argv[1:])
            return
        os.close(request.output)
        _answer(asked, code=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    atexit._run_exitfuncs()
    os._exit(0)  # nothing else to clean up: no stage ran in this process


def _import_stack(run: Path) -> None:
    import_lean(open_run(run))

    import grpo_dist.training.stages.preparation
    import grpo_dist.training.stages.train  # noqa: F401


def _next(asked: socket.socket) -> Request | None:
    """None when no more requests will come."""
    data, ancillary, _, _ = asked.recvmsg(LONGEST_REQUEST, socket.CMSG_SPACE(array.array("i").itemsize))
    if not data:
        return None
    (output,) = array.array("i", ancillary[0][2])
    while not data.endswith(b"\n"):
        data += asked.recv(LONGEST_REQUEST)
    return Request(**json.loads(data), output=output)


def _answer(asked: socket.socket, **told: int) -> None:
    asked.sendall(json.dumps(told).encode() + b"\n")


def _begin(request: Request, asked: socket.socket, parent: int) -> None:
    """In the fork: set up its own session, streams, environment, threads and random numbers, as in a new process."""
    die_with_parent(parent=parent)
    os.setsid()
    _answer(asked, pid=os.getpid())  # not earlier: once the client knows the id it may kill the group
    asked.close()
    for stream in (1, 2):
        os.dup2(request.output, stream)
    os.close(request.output)
    _disinherit()
    os.environ.clear()
    os.environ.update(request.env)
    _seed_anew(int(request.env.get("OMP_NUM_THREADS", 0)))


def _disinherit() -> None:
    """Leave this process's temporary directories to the process that forked it.

    Python removes a temporary directory when the process that made it ends, and a fork takes itself for that one.
    `_registry` is private to Python (3.11 and 3.12 have it).
    """
    for finalizer in list(weakref.finalize._registry):
        finalizer.atexit = False


def _seed_anew(threads: int) -> None:
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if threads and (torch := sys.modules.get("torch")):
        torch.set_num_threads(threads)  # OpenMP read its variable in the server process, and reads it only once


def _run(*arguments: str) -> None:
    """Like `python ARGUMENT …`, with a module or a script. The processes `accelerate launch` starts are forks too."""
    options = list(takewhile(lambda word: word in ("-u", "-m"), arguments))
    sys.argv = [*arguments[len(options) :]]
    name = sys.argv[0]
    if "-m" not in options:
        runpy.run_path(name, run_name="__main__")
    elif name == LAUNCHER:
        _launch()
    else:
        if not hasattr(sys.modules.get(name), "__path__"):  # for a package it runs __main__
            sys.modules.pop(name, None)  # runpy warns about a module that is already imported
        runpy.run_module(name, run_name="__main__", alter_sys=True)


def _launch() -> None:
    """Accelerate's `simple_launcher` and torchrun would start `python …` in an environment they prepare.

    For one process Accelerate 1.15 calls `simple_launcher(args)`, for several torchrun's `run`, which (PyTorch 2.13)
    gets entry point and `start_method` from `config_from_args`; a function is started without a new Python. If they
    look elsewhere, ranks are new processes again, and each imports the whole stack.
    """
    from accelerate.commands import launch
    from torch.distributed import run as torchrun

    def here(arguments: Namespace) -> None:
        command, env = launch.prepare_simple_launcher_cmd_env(arguments)
        os.environ.update(env)
        _run(*command[1:])

    def forked(arguments: Namespace, original: Any = torchrun.config_from_args) -> tuple[Any, Any, list[str]]:
        config, _, command = original(arguments)
        return replace(config, start_method="fork"), _rank, command

    launch.simple_launcher, torchrun.config_from_args = here, forked
    launch.main()


def _rank(*arguments: str) -> None:
    """One of the processes that torchrun starts; torchrun ends it when it returns, without running Python's exit
    handlers."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    _disinherit()
    try:
        _run(*arguments)
    finally:
        leave_to_others()
        atexit._run_exitfuncs()


if __name__ == "__main__":
    main(*sys.argv[1:])
