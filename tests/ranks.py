"""Several ranks of a process group from one script, which imports once what all of them need, and forks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

ENVIRONMENT = {
    "MASTER_ADDR": "127.0.0.1",
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "ACCELERATE_TORCH_DEVICE": "cpu",
    "DS_ACCELERATOR": "cpu",
}


def run_script(script: Path, *arguments: object) -> None:
    """Run a script that calls `in_ranks`; it may import what lies in this directory and beside it."""
    paths = (str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))
    env = {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(script), *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def in_ranks(processes: int, work: Callable[[], None]) -> None:
    """Do the work once in each rank, in processes of their own; none of them may fail."""
    ranks = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_PORT": str(_free_port())}
    children = [_fork({**ranks, "RANK": str(rank), "LOCAL_RANK": str(rank)}, work) for rank in range(processes)]
    codes = [os.waitpid(child, 0)[1] for child in children]
    assert codes == [0] * processes, codes


def _fork(env: dict[str, str], work: Callable[[], None]) -> int:
    if child := os.fork():
        return child
    code = 1
    try:
        os.environ.update(env)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
