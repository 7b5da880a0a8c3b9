"""The stages of a run without their work. Light, for they are started often; those that go on are in fake_ranks.py."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from grpo_dist.run.directory import RunDirectory

RANKS = str(Path(__file__).with_name("fake_ranks.py"))


def main(arguments: list[str]) -> int:
    run = RunDirectory(Path(arguments[-1]))
    if "serve" in arguments:
        node, path = arguments[arguments.index("--node") + 1], arguments[arguments.index("serve") + 1]
        os.execv(sys.executable, [sys.executable, RANKS, "serve", node, path])
    if "prepare" in arguments:
        run.prepared.write_text("{}")
        return 0
    if "report" in arguments:
        run.report.write_text("")
        return 0
    if "compare" in arguments:
        time.sleep(3600)
    return launch(arguments, run)


def launch(arguments: list[str], run: RunDirectory) -> int:
    """One rank in a session of its own, as torchrun starts it."""
    rank = arguments[arguments.index("--machine_rank") + 1] if "--machine_rank" in arguments else "0"
    print(*arguments)
    code = subprocess.Popen([sys.executable, RANKS, "rank", rank, str(run.path)], start_new_session=True).wait()
    if code:
        print(f"  exitcode  : {code} (pid: 1)")  # torchrun's words
    return 1 if code else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
