"""`python -m grpo_dist.supervisor.node RUN ATTEMPT`: the agent of a node, started once on each node by srun.

On the first node it also runs the coordinator. The node's number comes from Slurm's variables, the job's token from
GRPO_DIST_TOKEN; RUN is the run directory, ATTEMPT the log directory of the attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import re
import select
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from grpo_dist.errors import GrpoDistError, LaunchError
from grpo_dist.procs.ports import ports_of
from grpo_dist.procs.shared_memory import LOOK_SECONDS, SharedMemory
from grpo_dist.procs.tree import become_subreaper, descendants, die_with_parent, end_all
from grpo_dist.run.checkpoints import newest_step
from grpo_dist.run.control import AttemptOutcome
from grpo_dist.run.directory import RunDirectory
from grpo_dist.slurm.client import Allocation, kill_wait, time_left
from grpo_dist.supervisor.agent import SURVIVED_SIGNALS, NodeAgent, announced, head_places
from grpo_dist.supervisor.coordinator import JOIN_SECONDS, Coordinator
from grpo_dist.supervisor.rpc import HEARTBEAT_SECONDS, CoordinatorServer, Secret

SILENCE_SECONDS = 60.0
"""Longer than LOST_SECONDS: an agent that waits for a slow file server is no reason to lose a run."""


def watched(supervise: Callable[[], Coroutine[Any, Any, int]], silence: float = SILENCE_SECONDS) -> int:
    """Run `supervise` in a child process; returns its exit code, 128 + n for signal n.

    Args:
        silence: seconds without a turn of its event loop after which it counts as frozen.
    """
    parent = os.getpid()
    shared = SharedMemory(lambda: descendants(parent))
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        die_with_parent(signal.SIGKILL, parent)
        os.close(readable)
        sys.exit(asyncio.run(_with_heartbeats(supervise, writable)))
    os.close(writable)
    for signum in SURVIVED_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    become_subreaper()
    if not _closes(readable, silence, shared):
        print(f"the supervisor of this node is frozen: silent for {silence:.0f} s", file=sys.stderr, flush=True)
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    shared.look()
    end_all(lambda: descendants(parent))
    shared.remove()
    return code if code >= 0 else 128 - code


async def _with_heartbeats(supervise: Callable[[], Coroutine[Any, Any, int]], writable: int) -> int:
    """Await it, sending heartbeats meanwhile."""

    async def send_heartbeats() -> None:
        while True:
            os.write(writable, b".")
            await asyncio.sleep(HEARTBEAT_SECONDS)

    heartbeats = asyncio.create_task(send_heartbeats())
    try:
        return await supervise()
    finally:
        heartbeats.cancel()


def _closes(readable: int, silence: float, shared: SharedMemory) -> bool:
    """Whether the child closes its end before it has been silent for this many seconds. Looks at `shared` meanwhile."""
    silent = 0.0
    while silent < silence:  # counted in ticks: a job that Slurm suspends freezes as a whole, and may resume
        if not select.select([readable], [], [], LOOK_SECONDS)[0]:
            silent += LOOK_SECONDS
            shared.look()
        elif os.read(readable, 4096):
            silent = 0.0
        else:
            return True
    return False


TOKEN_VARIABLE = "GRPO_DIST_TOKEN"
LOOPBACK = "127.0.0.1"
HEAD_VARIABLE = "GRPO_DIST_HEAD"
"""Name of the first node, on which the batch script runs."""


def main(run: Path, attempt: Path) -> int:
    """Run this node's share of the attempt, and return the exit code of the attempt."""
    try:
        token, node, allocation = _stated(os.environ)
    except GrpoDistError as error:
        print(f"Error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    del os.environ[TOKEN_VARIABLE]  # processes started on the node do not inherit it
    ports = ports_of(allocation.job_id)
    agent = NodeAgent(node, RunDirectory(run), attempt)
    secret = Secret(token, allocation.job_id, attempt.name)

    async def supervise() -> int:
        try:
            if node == 0:
                with agent.run.locked(f"job {allocation.job_id}"):
                    return await _coordinate(agent, attempt, ports, secret, alone=allocation.nodes == 1)
            return await agent.serve(head_places(attempt, _heads(os.environ), ports), secret, JOIN_SECONDS)
        except GrpoDistError as error:
            print(f"Error: {error}", file=sys.stderr, flush=True)
            if node == 0:  # without an outcome it would count as killed, and be tried again
                with contextlib.suppress(OSError):
                    AttemptOutcome(error.exit_code, str(error), newest_step(agent.run.checkpoints)).write(attempt)
            return error.exit_code

    return watched(supervise)


def _stated(environ: Mapping[str, str]) -> tuple[str, int, Allocation]:
    """The job's token, the node's number and the job.

    Raises:
        LaunchError: a variable is missing or odd.
    """
    for name, pattern in {TOKEN_VARIABLE: "[0-9a-f]{32,}", "SLURM_PROCID": "[0-9]{1,9}"}.items():
        if not re.fullmatch(pattern, environ.get(name, "")):
            what = "is not what it should be" if environ.get(name) else "is not set"
            raise LaunchError(
                f"{name} in the environment {what}",
                hint="it comes from the job script and srun: submit a script that `grpo-dist render` writes",
            )
    return environ[TOKEN_VARIABLE], int(environ["SLURM_PROCID"]), Allocation.from_environ(environ)


async def _coordinate(agent: NodeAgent, attempt: Path, ports: range, secret: Secret, *, alone: bool) -> int:
    """Run the coordinator, and the agent of the first node beside it. `alone`: the job has no other node."""
    server = CoordinatorServer(secret)
    port = await server.listen(ports, LOOPBACK if alone else None)
    agent_task = asyncio.create_task(agent.serve(lambda: [(LOOPBACK, port)], secret, JOIN_SECONDS))
    with announced(attempt, port, [platform.node()]):
        asked = partial(kill_wait, secret.job), partial(time_left, secret.job)
        outcome = await Coordinator(agent.run, attempt, server, ports, *asked).run_attempt()
    with contextlib.suppress(OSError):  # `close_attempt` notices and reports it
        outcome.write(attempt)
    # Printed now and not when the job is closed: Slurm may end the job before that.
    print(outcome.why, file=sys.stderr, flush=True)
    server.end_agents(outcome.code)
    await agent_task
    await server.close()
    return outcome.code


def _heads(environ: Mapping[str, str]) -> list[str]:
    """The first node: its name, and the address from which Slurm started this task."""
    known = (environ.get(HEAD_VARIABLE), environ.get("SLURM_LAUNCH_NODE_IPADDR"))
    return list(dict.fromkeys(head for head in known if head))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
