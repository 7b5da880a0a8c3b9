"""Training without the learning: steps, checkpoints, heartbeats, stops and adapter as the real stages have them.

The adapter is a chain of digests over the steps: it comes out the same only if every step was done once, in order, from
the newest complete checkpoint. `fault` in the run directory makes one node misbehave once: `NODE STEP WHAT`.
Light as well: many are started at a time, on few cores.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import time
from hashlib import sha256
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import yaml

from grpo_dist.errors import RolloutsGone
from grpo_dist.inference.registry import ReplicaEntry, read_replicas, wait_until_started, write_replica
from grpo_dist.procs.tree import die_with_parent, survive_sigterm
from grpo_dist.progress import say_error, say_passing
from grpo_dist.run.checkpoints import discard_after, newest_complete, seal, step_of
from grpo_dist.run.control import note_stop, stop_requested
from grpo_dist.run.directory import ATTEMPT_VARIABLE, RunDirectory

STEP_SECONDS = 0.25
UNSHARED = "unshared"
"""In a run directory: ranks hold no shared memory."""


def main(what: str, node: str, path: str) -> int:
    die_with_parent()
    run = RunDirectory(Path(path))
    if what == "serve":
        return serve(run, int(node))
    survive_sigterm()
    faulthandler.register(signal.SIGUSR2)
    return train(run, int(node))


def train(run: RunDirectory, rank: int) -> int:
    held = None if (run.path / UNSHARED).exists() else SharedMemory(create=True, size=4096)
    config = yaml.safe_load(run.config.read_text())
    max_steps, save_steps = config["grpo"]["max_steps"], config["grpo"]["save_steps"]
    checkpoint = newest_complete(run.checkpoints)
    step = 0 if checkpoint is None else step_of(checkpoint)
    state = "" if checkpoint is None else (checkpoint / "state").read_text()
    served = config["rollout"]["mode"] == "server"
    if served:
        wait_until_started(run.replicas)
    if rank == 0:
        discard_after(run.checkpoints, step)
    while step < max_steps:
        step, state = step + 1, sha256(f"{state} {step + 1}".encode()).hexdigest()
        time.sleep(STEP_SECONDS)
        misbehave(run, rank, step)
        if served and rank == 0 and not read_replicas(run.replicas):
            save(run, step, state)
            say_error("all rollout servers are gone", RolloutsGone.exit_code)
            return RolloutsGone.exit_code
        if rank:
            if run.adapter.exists() or (Path(os.environ[ATTEMPT_VARIABLE]) / "stopped.json").exists():
                break
            step = min(step, max_steps - 1)  # the others follow the first
            continue
        run.heartbeat.write_text(json.dumps({"step": step}))
        with open(run.metrics, "a") as lines:
            lines.write(json.dumps({"step": step}) + "\n")
        say_passing(f"step {step}/{max_steps}")
        asked = step < max_steps and stop_requested(run)
        if asked or step % save_steps == 0 or step == max_steps:
            save(run, step, state)
        if asked:
            note_stop(Path(os.environ[ATTEMPT_VARIABLE]), step)
            break
    else:
        if rank == 0:  # another may begin when the last checkpoint stands already
            run.adapter.mkdir()
            (run.adapter / "adapter_model.safetensors").write_text(state)
    if held:
        held.close()
        held.unlink()
    return 0


def save(run: RunDirectory, step: int, state: str) -> None:
    checkpoint = run.checkpoints / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state").write_text(state)
    seal(checkpoint)


def misbehave(run: RunDirectory, rank: int, step: int) -> None:
    fault = run.path / "fault"
    while (what := due(fault, rank, step)) == "wait":  # until the file says something else
        time.sleep(0.05)
    if what is None:
        return
    fault.unlink()
    if what == "hang":
        time.sleep(3600)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "raise":
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if what == "slow":  # to save
        (run.checkpoints / f"checkpoint-{step}").mkdir()
        time.sleep(3600)
    if what == "reward":
        say_error("rewards: mine.py:fussy raised")
        sys.exit(1)


def due(fault: Path, rank: int, step: int) -> str | None:
    try:
        node, when, what = fault.read_text().split(maxsplit=2)
    except FileNotFoundError:
        return None
    return what if rank == int(node) and step >= int(when) else None


def serve(run: RunDirectory, node: int) -> int:
    from grpo_dist.inference.supervisor import replicas_of_node
    from grpo_dist.plan import LaunchPlan

    held = SharedMemory(create=True, size=4096)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    run.replicas.mkdir(exist_ok=True)
    plan = LaunchPlan.from_json(run.plan.read_text())
    for replica in replicas_of_node(plan.topology, node):
        write_replica(run.replicas, ReplicaEntry(replica.name, "", "", os.getpid(), 0, "ready", ""))
    print(json.dumps({"replicas": [], "key_file": ""}), flush=True)
    try:
        while True:
            misbehave(run, 100, 1)
            time.sleep(STEP_SECONDS)
    finally:
        held.close()
        held.unlink()


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # as the real stages do: while Python takes itself apart a SIGTERM of Slurm would end it
