"""The process that runs math-verify: `python symbolic_worker.py DESCRIPTOR`.

One JSON request per line on stdin, one JSON reply per line on the open file DESCRIPTOR:

    → {"guess": "1+x", "truth": "x+1", "timeout_s": 2.0}        ← {"equal": true, "spent_s": 0.01}

The first line it writes is {"ready": true}, or {"missing": reason} when math-verify cannot be imported. It is started
as a file and imports nothing of this package, so it needs no import path.

Each request is handled in a forked child with its own limit on processor time. A request that takes too long ends with
that child: the process that has math-verify loaded remains, and the next request costs no more.

It never outlives its parent for long: if idle, it ends when stdin closes; if busy, the kernel kills the child when its
processor time is used up. (PR_SET_PDEATHSIG does not help between parent and worker: it fires when the *thread* that
started the process ends. The worker has one thread, so its own children may use it.)
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TextIO

MEMORY_BYTES = 1 << 30
DECIMALS = 12
_PR_SET_PDEATHSIG = 1


def main() -> None:
    with os.fdopen(int(sys.argv[1]), "w", buffering=1) as replies:
        _set_soft_limit(resource.RLIMIT_AS, MEMORY_BYTES)
        _set_soft_limit(resource.RLIMIT_CORE, 0)
        try:
            equal = _load()
        except ImportError as error:
            print(json.dumps({"missing": str(error)}), file=replies)
            return
        gc.freeze()  # the children share what is loaded
        print(json.dumps({"ready": True}), file=replies)
        for line in sys.stdin:
            _serve(equal, replies, json.loads(line))


def _set_soft_limit(what: int, limit: int) -> None:
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _serve(equal: Callable[[str, str], bool], replies: TextIO, request: dict[str, Any]) -> None:
    """Reply to one request; a child that ends without a verdict means not equal."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    verdict_end, child_end = os.pipe()
    child = os.fork()
    if child == 0:
        _judge(equal, child_end, **request)
    os.close(child_end)
    with os.fdopen(verdict_end, "rb") as verdict:
        found = verdict.read() == b"1"
    os.waitpid(child, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"equal": found, "spent_s": round(spent_s, 3)}), file=replies)


def _judge(equal: Callable[[str, str], bool], verdict: int, guess: str, truth: str, timeout_s: float) -> None:
    """In the child: write 1 for equal. Anything math-verify cannot read or compute is unequal. Does not return."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The kernel kills the process: a Python signal handler would wait for the end of a long C operation.
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, timeout_s)
        os.write(verdict, b"1" if equal(guess, truth) else b"0")
    finally:
        os._exit(0)


def _load() -> Callable[[str, str], bool]:
    """math-verify's comparison, warm: its first call builds the grammar's tables.

    Only its LaTeX reader is used. The reader of plain expressions ends in `eval`, and text written
    by a model must not get there.
    """
    from math_verify import LatexExtractionConfig, parse, verify

    latex = LatexExtractionConfig(boxed_match_priority=0)
    latex = replace(latex, normalization_config=replace(latex.normalization_config, units=False))

    def read(text: str) -> list[object]:
        return parse(f"\\boxed{{{text}}}", [latex], fallback_mode="no_fallback", parsing_timeout=None)

    def equal(guess: str, truth: str) -> bool:
        return bool(verify(read(truth), read(guess), float_rounding=DECIMALS, timeout_seconds=None))

    equal("x+1", "1+x")
    return equal


if __name__ == "__main__":
    main()
