"""`python -m grpo_dist.supervisor.node`: the supervisor of a node, one task of a Slurm job on each.

The first node's is also the head. It reads its place from Slurm's variables, RUN and the attempt's log directory from
its arguments, and the job's token from GRPO_DIST_TOKEN.
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
from grpo_dist.supervisor.watchdog_process import guarded

TOKEN_VARIABLE = "GRPO_DIST_TOKEN"
HEAD_VARIABLE = "GRPO_DIST_HEAD"
"""Name of the first node, which the batch script runs on."""


def main(run: Path, attempt: Path) -> int:
    """The exit code of the attempt."""
    # Popped: what the node starts has no use for it.
    token, allocation = os.environ.pop(TOKEN_VARIABLE), Allocation.from_environ(os.environ)
    node, ports = int(os.environ["SLURM_PROCID"]), ports_of(allocation.job_id)
    member = NodeAgent(node, RunDirectory(run), attempt)

    async def supervise() -> int:
        try:
            if node == 0:
                with member.run.locked(f"job {allocation.job_id}"):
                    return await _head(member, attempt, ports, token, allocation.job_id)
            return await member.serve(_heads(os.environ), ports, token, JOIN_SECONDS)
        except GrpoDistError as error:
            print(f"Error: {error}", file=sys.stderr, flush=True)
            return error.exit_code

    return guarded(supervise)


async def _head(member: NodeAgent, attempt: Path, ports: range, token: str, job_id: str) -> int:
    """Conduct the attempt, and be its first node."""
    hub = CoordinatorServer(token)
    port = await hub.listen(ports)
    ours = asyncio.create_task(member.serve(["127.0.0.1"], range(port, port + 1), token, JOIN_SECONDS))
    outcome = await Coordinator(member.run, attempt, hub, ports, partial(kill_wait, job_id)).conduct()
    with contextlib.suppress(OSError):  # whoever closes the job finds out, and says so
        outcome.write(attempt)
    # Now, not when the job is closed: Slurm may end it before.
    print(outcome.why, file=sys.stderr, flush=True)
    hub.say_goodbye(outcome.code)
    await ours
    await hub.close()
    return outcome.code


def _heads(environ: Mapping[str, str]) -> list[str]:
    """The first node by name, and by the address Slurm itself started this task from."""
    stated = (environ.get(HEAD_VARIABLE), environ.get("SLURM_LAUNCH_NODE_IPADDR"))
    return list(dict.fromkeys(head for head in stated if head))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
