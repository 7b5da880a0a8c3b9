"""A whole run on servers that are up already: python on_engines.py CONFIG RUN REGISTRY [A.B=V …]"""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path

from grpo_dist.config import load_config
from grpo_dist.errors import GrpoDistError
from grpo_dist.inference.registry import lock_of
from grpo_dist.launch.local import execute, open_run
from grpo_dist.progress import Terminal


def main(config: str, path: str, registry: str, *overrides: str) -> int:
    stated = load_config(config, overrides)
    run, plan = open_run(stated, Path(path), resume=True)
    if not run.replicas.exists():
        run.replicas.symlink_to(registry)
    with open(lock_of(run.replicas, 0), "a") as lock:  # as if `grpo-dist serve` held it
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            execute(run, plan, stated, Terminal())
        except GrpoDistError as error:
            print(f"Error: {error}", file=sys.stderr)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
