"""What a step takes when servers write the next batches meanwhile: `rollout.max_staleness` 0, 1, 2 and 4.

    python benchmarks/overlap.py

Prints JSON, and writes it to `benchmarks/results/overlap-MACHINE.json`. Whole runs of the real program: only the
engines and the training step are replaced by time that passes, so that the processor does not decide. A server has a
number of slots; a completion waits for one and holds it for as long as its length, which follows from its seed and has
a long tail. A reward function that sleeps stands for training: the servers go on meanwhile, as they do in a step.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

REPLICAS, SLOTS = 2, 8
PROMPTS, GROUP = 8, 8
MEAN_SECONDS, SPREAD, LONGEST_SECONDS = 0.35, 0.8, 3.5
"""Of a completion: log-normal, cut off."""
STALENESS = (0, 1, 2, 4)
TOKENS = 8
FORK = multiprocessing.get_context("fork")


def trains(completions: list[Any], seconds: float, **_: Any) -> list[float]:
    """A reward function in place of training; the preflight, with fewer completions, does not wait."""
    if len(completions) == PROMPTS * GROUP:
        time.sleep(seconds)
    return [0.0] * len(completions)


def main() -> None:
    from publishing import publish, say

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--training", type=float, default=2.4, help="seconds of a step in place of training")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        model = _model(Path(place) / "model")
        found = {}
        for staleness in STALENESS:
            say(f"max_staleness {staleness}: {arguments.steps} steps")
            run = Path(place) / f"run-{staleness}"
            with _servers(Path(place) / f"replicas-{staleness}") as registry:
                _train(model, run, registry, staleness, arguments.steps, arguments.training)
            found[staleness] = _measured(run, staleness)
    alone = found[0]
    longer = max(alone["generation_seconds"], alone["step_seconds"] - alone["generation_seconds"])
    rows = [
        {"max_staleness": staleness, **row, "of_the_longer": row["step_seconds"] / longer}
        | {"times_as_fast": alone["step_seconds"] / row["step_seconds"]}
        for staleness, row in found.items()
    ]
    shown = [{name: round(value, 3) for name, value in row.items()} for row in rows]
    publish("overlap", "seconds of a step, medians", {"rows": shown}, packages=("torch", "trl"))


def _measured(run: Path, staleness: int) -> dict[str, float]:
    """Medians over the steps in which as many batches as possible are on their way."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steady = lines[staleness + 1 : len(lines) - staleness]
    walls = [line["time"] - before["time"] for before, line in pairwise(steady)]
    names = ("generation_seconds", "wait_seconds", "sync_seconds")
    return {"step_seconds": statistics.median(walls)} | {
        name: statistics.median(line[f"perf/{name}"] for line in steady) for name in names
    }


def _model(path: Path) -> Path:
    from grpo_dist.embedded.base_cache import build

    build(path, 11, lambda _: None, _steps=1)
    return path


def _train(model: Path, run: Path, registry: Path, staleness: int, steps: int, seconds: float) -> None:
    """A run on servers that are up, in a process of its own."""
    stated = run.with_suffix(".yaml")
    stated.write_text(yaml.safe_dump(_config(model, staleness, steps, seconds)))
    process = FORK.Process(target=_run, args=(stated, run, registry))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"the run with max_staleness {staleness} failed")


def _config(model: Path, staleness: int, steps: int, seconds: float) -> dict[str, Any]:
    slow = {"name": f"{Path(__file__).resolve()}:trains", "kwargs": {"seconds": seconds}}
    return {
        "model": {"name_or_path": str(model), "dtype": "float32", "max_length": 64},
        "data": {"name_or_path": "embedded", "system_prompt": "none", "chat_template": "tokenizer"},
        "grpo": {
            "prompts_per_step": PROMPTS,
            "num_generations": GROUP,
            "max_completion_length": TOKENS,
            "max_steps": steps,
            "gradient_checkpointing": False,
        },
        "distributed": {"max_per_device_train_batch_size": PROMPTS * GROUP},
        "rewards": {"functions": ["check_answer", slow], "allow": ["never-varies"]},
        "cluster": {"gpus_per_node": 0},
        "evaluation": {"enabled": False},
        "rollout": {
            "backend": "vllm",
            "mode": "server",
            "replicas": REPLICAS,
            "canary_steps": 0,
            "max_staleness": staleness,
        },
    }


def _run(stated: Path, run: Path, registry: Path) -> None:
    from grpo_dist.config import load_config
    from grpo_dist.inference.registry import lock_of
    from grpo_dist.launch.local import execute, open_run
    from grpo_dist.progress import Terminal

    config = load_config(stated, ())
    directory, plan = open_run(config, run, resume=False)
    directory.replicas.symlink_to(registry)
    with open(lock_of(registry, 0), "a") as lock:  # as if `grpo-dist serve` held it
        fcntl.flock(lock, fcntl.LOCK_EX)
        execute(directory, plan, config, Terminal())


@contextmanager
def _servers(registry: Path) -> Iterator[Path]:
    from grpo_dist.inference.registry import ReplicaEntry, make_key, write_replica

    registry.mkdir()
    make_key(registry)
    running = []
    for number in range(REPLICAS):
        here, there = FORK.Pipe()
        process = FORK.Process(target=_serve, args=(there,), daemon=True)
        process.start()
        running.append(process)
        url = f"http://127.0.0.1:{here.recv()}"
        write_replica(registry, ReplicaEntry(str(number), url, "127.0.0.1", process.pid, 0, "ready", "log"))
    try:
        yield registry
    finally:
        for process in running:
            process.kill()


def _serve(listening: Any) -> None:
    async def serve() -> None:
        runner = web.AppRunner(Replica().application())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        listening.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    with suppress(KeyboardInterrupt):
        asyncio.run(serve())


class Replica:
    """A rollout server with slots in place of an engine."""

    def __init__(self) -> None:
        self.adapters: set[str] = set()
        self.slots = asyncio.Semaphore(SLOTS)
        """Taken in the order of the requests, as vLLM does."""

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/grpo-dist/status", self._status)
        app.router.add_post("/grpo-dist/generate", self._generate)
        app.router.add_post("/grpo-dist/adapters/{name}", self._load)
        app.router.add_delete("/grpo-dist/adapters/{name}", self._unload)
        return app

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"incarnation": 0, "busy_seconds": 0.0, "stalled_seconds": 0.0, "adapters": [*self.adapters]}
        )

    async def _load(self, request: web.Request) -> web.Response:
        self.adapters.add(request.match_info["name"])
        return web.json_response({})

    async def _unload(self, request: web.Request) -> web.Response:
        self.adapters.discard(request.match_info["name"])
        return web.json_response({})

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        from grpo_dist.inference.wire_format import LENGTH, encode

        body = await request.json()
        response = web.StreamResponse()
        await response.prepare(request)

        async def write(index: int) -> None:
            seed = body["seed"] + index
            async with self.slots:
                await asyncio.sleep(_seconds(seed))
            ids = [(seed + place) % 50 for place in range(TOKENS)]
            await response.write(encode(index, ids, [-1.0] * TOKENS, LENGTH))

        await asyncio.gather(*map(write, range(body["n"])))
        await response.write_eof()
        return response


def _seconds(seed: int) -> float:
    """Of the completion with this seed."""
    drawn = random.Random(seed).lognormvariate(0.0, SPREAD)
    return min(LONGEST_SECONDS, MEAN_SECONDS * drawn)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
