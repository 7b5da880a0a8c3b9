"""`python -m grpo_dist.supervisor.node RUN ATTEMPT`: the agent of a node, started once on each node by srun.

On the first node it also runs the coordinator. The node's number comes from Slurm's variables, the job's token from
GRPO_DIST_TOKEN; RUN is the run directory, ATTEMPT the log directory of the attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from grpo_dist.errors import GrpoDistError
from grpo_dist.procs.ports import ports_of
from grpo_dist.run.directory import RunDirectory
from grpo_dist.slurm.client import Allocation, kill_wait
from grpo_dist.supervisor.agent import NodeAgent
from grpo_dist.supervisor.coordinator import JOIN_SECONDS, Coordinator
from grpo_dist.supervisor.rpc import CoordinatorServer
from grpo_dist.supervisor.watchdog_process import watched

TOKEN_VARIABLE = "GRPO_DIST_TOKEN"
HEAD_VARIABLE = "GRPO_DIST_HEAD"
"""Name of the first node, on which the batch script runs."""


def main(run: Path, attempt: Path) -> int:
    """Run this node's share of the attempt, and return the exit code of the attempt."""
    # Popped, so that processes started on the node do not inherit it.
    token, allocation = os.environ.pop(TOKEN_VARIABLE), Allocation.from_environ(os.environ)
    node, ports = int(os.environ["SLURM_PROCID"]), ports_of(allocation.job_id)
    agent = NodeAgent(node, RunDirectory(run), attempt)

    async def supervise() -> int:
        try:
            if node == 0:
                with agent.run.locked(f"job {allocation.job_id}"):
                    return await _coordinate(agent, attempt, ports, token, allocation.job_id)
            return await agent.serve(_heads(os.environ), ports, token, JOIN_SECONDS)
        except GrpoDistError as error:
            print(f"Error: {error}", file=sys.stderr, flush=True)
            return error.exit_code

    return watched(supervise)


async def _coordinate(agent: NodeAgent, attempt: Path, ports: range, token: str, job_id: str) -> int:
    """Run the coordinator, and the agent of the first node beside it."""
    server = CoordinatorServer(token)
    port = await server.listen(ports)
    agent_task = asyncio.create_task(agent.serve(["127.0.0.1"], range(port, port + 1), token, JOIN_SECONDS))
    outcome = await Coordinator(agent.run, attempt, server, ports, partial(kill_wait, job_id)).run_attempt()
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
