"""The process that runs math-verify: `python symbolic_worker.py DESCRIPTOR`.

One JSON request per line on stdin, one JSON reply per line on the open file DESCRIPTOR:

    → {"guess": "1+x", "truth": "x+1", "timeout_s": 2.0}        ← {"equal": true}

The first line it writes is {"ready": true}, or {"missing": reason} when math-verify cannot be imported.
It is started as a file and imports nothing of this package, so it needs no import path of its own.

It never outlives its parent for long: idle, it ends when stdin closes; busy, the kernel ends it when
the CPU time of the request is used up. (PR_SET_PDEATHSIG is no help: it fires when the *thread* that
started the process ends.)
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace

MEMORY_BYTES = 1 << 30
DECIMALS = 12


def main() -> None:
    with os.fdopen(int(sys.argv[1]), "w", buffering=1) as replies:
        _set_soft_limit(resource.RLIMIT_AS, MEMORY_BYTES)
        _set_soft_limit(resource.RLIMIT_CORE, 0)
        try:
            equal = _load()
        except ImportError as error:
            print(json.dumps({"missing": str(error)}), file=replies)
            return
        print(json.dumps({"ready": True}), file=replies)
        for line in sys.stdin:
            print(json.dumps({"equal": _answer(equal, **json.loads(line))}), file=replies)


def _set_soft_limit(what: int, limit: int) -> None:
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _answer(equal: Callable[[str, str], bool], guess: str, truth: str, timeout_s: float) -> bool:
    """Whether they are equal; what math-verify cannot read or compute is not."""
    _set_soft_limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + timeout_s) + 1)
    try:
        return equal(guess, truth)
    except Exception:
        return False


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
