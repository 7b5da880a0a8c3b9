"""The rollout servers of a run, for as long as they are needed: `grpo-dist serve` as a process of ours."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from grpo_dist.cluster.lifeline import die_with_parent
from grpo_dist.cluster.process import end_group, signals_raise
from grpo_dist.errors import RolloutError
from grpo_dist.progress import Terminal
from grpo_dist.run_directory import RunDirectory


@contextmanager
def serving(run: RunDirectory, *, env: Mapping[str, str], logs: Path, terminal: Terminal) -> Iterator[None]:
    """Within, all servers of this machine are ready; after it, none is left.

    Raises:
        RolloutError: they cannot be started; its words are those of `grpo-dist serve`.
        Interrupted: a signal came while they started.
    """
    process = subprocess.Popen(
        (sys.executable, "-m", "grpo_dist", "serve", str(run.path)),
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    said: list[str] = []
    ending = threading.Event()
    arguments = (process, said, logs / "serve.log", terminal, ending)
    listener = threading.Thread(target=_listen, args=arguments, daemon=True)
    listener.start()
    try:
        with signals_raise():
            ready = process.stdout.readline()
        if not ready:
            listener.join()
            raise RolloutError("\n".join(said).removeprefix("Error: ") or f"the rollout servers ended; log: {logs}")
        yield
    finally:
        ending.set()
        end_group(process)
        terminal.finish()


def _listen(
    process: subprocess.Popen[str], said: list[str], log: Path, terminal: Terminal, ending: threading.Event
) -> None:
    """Keep what the servers' keeper says, and show it until we end it ourselves."""
    with open(log, "a", encoding="utf-8", buffering=1) as record:
        for line in process.stderr:
            record.write(line)
            text = line.rstrip("\n")
            if text.startswith("Error: ") or said:
                said.append(text)
            elif not ending.is_set():
                terminal.show(text)
