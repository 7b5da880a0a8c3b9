"""What it costs to run a program in the sandbox of the reward `code`, besides the program itself.

    python benchmarks/sandbox.py

A batch of programs that pass two assertions, and one of programs that read and print twice, in each sandbox of this
machine; one program at a time. Processor time is that of the whole machine, so nothing else may run. Prints JSON, and
writes it to `benchmarks/results/sandbox-MACHINE.json`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from publishing import publish, say

from grpo_dist.rewards.programs import judge
from grpo_dist.rewards.programs.sandbox import Kind, _refusal

PROGRAMS = 128
KINDS: tuple[Kind, ...] = ("bubblewrap", "landlock")
BATCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "functions": (
        "def add(a, b):\n    return a + b",
        {"test_list": ["assert add(1, 2) == 3", "assert add(4, 4) == 8"]},
    ),
    "scripts": (
        "print(sum(map(int, input().split())))",
        {"tests": [{"input": "1 2", "output": "3"}, {"input": "4 4", "output": "8"}]},
    ),
}


def main() -> None:
    refused = {kind: _refusal(kind) for kind in KINDS}
    found = {kind: reason or {name: measured(kind, name) for name in BATCHES} for kind, reason in refused.items()}
    what = "a program in the sandbox: processor and wall milliseconds, one at a time"
    publish("sandbox", what, {"programs": PROGRAMS, **found}, packages=("torch",))


def measured(kind: Kind, name: str) -> dict[str, float]:
    say(f"{kind}: {name}")
    judge.available, judge.workers = lambda: (kind, ""), lambda: 1
    program, row = BATCHES[name]
    columns = {column: [value] * PROGRAMS for column, value in row.items()}
    began, before = time.perf_counter(), _busy_seconds()
    limits = {"pay": "all", "seconds": 4, "memory_mb": 1024, "sandbox": "required"}
    paid = judge.paid([f"```python\n{program}\n```"] * PROGRAMS, columns, **limits)
    assert paid == [1.0] * PROGRAMS
    wall = time.perf_counter() - began
    return {
        "processor": round(1000 * (_busy_seconds() - before) / PROGRAMS, 2),
        "wall": round(1000 * wall / PROGRAMS, 2),
    }


def _busy_seconds() -> float:
    """Of all processors, since the machine started: the kernel counts no children that a sandbox killed."""
    ticks = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]))
    idle = ticks[3] + ticks[4]
    return (sum(ticks[:8]) - idle) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
