"""`grpo-dist serve`: the rollout servers of a run on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option("--node", type=click.IntRange(min=0), default=0, show_default=True, help="Whose replicas of the plan.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at, and to be reached by.")
def serve(run: Path, node: int, host: str) -> None:
    """Start the vLLM servers of a run, until interrupted.

    RUN is a prepared run directory. When all servers are ready, one line of JSON says where they are and where their
    key is. A server that fails is started again.
    """
    from grpo_dist.inference.registry import KEY
    from grpo_dist.launch.process import Interrupted, signals_raise
    from grpo_dist.launch.serve import supervisor_of
    from grpo_dist.progress import Terminal
    from grpo_dist.run.directory import ATTEMPT_VARIABLE

    logs = Path(os.environ.get(ATTEMPT_VARIABLE, run.absolute() / "logs" / "serve"))
    try:
        with (
            signals_raise(),
            supervisor_of(run, node, host, logs, Terminal().show) as supervisor,
            supervisor,
        ):
            replicas = [
                {"name": entry.name, "url": entry.url, "pid": entry.pid, "log": entry.log}
                for entry in supervisor.entries()
            ]
            key_file = str(run.absolute() / "replicas" / KEY)
            click.echo(json.dumps({"replicas": replicas, "key_file": key_file}))
            supervisor.wait()
    except Interrupted as stop:
        click.echo(f"stopped by {stop}", err=True)
