"""A whole run of one step on a CPU: what it costs beside the step.

    python benchmarks/run_start.py

`grpo-dist run` with the tiny model, twice: the base model is made, and it is copied from the user's cache (here a
cache of its own). Processor time is that of all processes. With `--before DIR`, the root of an older checkout, also the
first run of that one. Prints JSON, and writes it to `benchmarks/results/run_start-MACHINE.json`.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from publishing import publish, say

ROOT = Path(__file__).parents[1]
COMMAND = ("run", "configs/tiny-cpu.yaml", "--set", "grpo.max_steps=1", "--set", "evaluation.num_problems=24")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path)
    before = parser.parse_args().before
    found = {"now": measured(ROOT, "the first run", "the second run")}
    if before is not None:
        found["before"] = measured(before, "the first run")
    what = "a run of one step on a CPU, prepare to report: processor and wall seconds"
    load = {"load_of_the_machine": round(os.getloadavg()[0], 1)}
    publish("run_start", what, {**found, **load}, packages=("torch", "trl", "transformers"))


def measured(root: Path, *runs: str) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as place:
        env = {**os.environ, "PYTHONPATH": str(root), "XDG_CACHE_HOME": f"{place}/cache", "OMP_NUM_THREADS": "1"}
        return {name: run(root, Path(place) / name, env) for name in runs}


def run(root: Path, output: Path, env: dict[str, str]) -> dict[str, float]:
    say(f"{root}: {output.name}")
    began, before = time.perf_counter(), _spent()
    command = [sys.executable, "-m", "grpo_dist", *COMMAND, "--output", str(output)]
    subprocess.run(command, cwd=root, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return {"processor": round(_spent() - before, 1), "wall": round(time.perf_counter() - began, 1)}


def _spent() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
