"""What starts one replica: plain `vllm serve`, its arguments and environment; nothing is started here."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grpo_dist.config import RunConfig
from grpo_dist.plan import LaunchPlan, plan_run
from grpo_dist.plan.gpu_mask import visible_gpus
from grpo_dist.plan.memory.rollout import RolloutSetup, served_rank
from grpo_dist.plan.topology import Topology

MIDDLEWARE = "grpo_dist.rollout.endpoint.Endpoint"
LOGPROBS_MODE = "processed_logprobs"
"""Log-probabilities after temperature and the rest: what the token was really sampled with."""
MAX_LORAS = 2
"""Adapters of one batch: the newest, and the one before it while its last requests end."""
MAX_CPU_LORAS = 4
"""Adapters an engine keeps. One more would push the oldest out, which is read again, from a directory gone by then."""
ON_CPU = ("--enforce-eager", "--no-enable-chunked-prefill")
"""Compiling takes minutes there and gains little. A seeded request whose prompt is computed in pieces ends the engine:
vLLM 0.31 sets its generator back, which PyTorch's for the CPU cannot be ("CPU Generator does not use offset")."""
KEY_VARIABLE = "VLLM_API_KEY"
ADAPTERS_VARIABLE = "GRPO_DIST_ADAPTERS"
"""Directory that pushed adapters are written to."""
INCARNATION_VARIABLE = "GRPO_DIST_INCARNATION"
"""Times the replica was started before."""


@dataclass(frozen=True)
class ServerSettings:
    """What all replicas of a run have in common; vLLM's spellings."""

    model: str
    """Name or directory, as Transformers would load it."""
    tokenizer: str
    revision: str | None
    trust_remote_code: bool
    dtype: str
    max_model_len: int | None
    """Tokens of prompt plus completion; vLLM takes the model's positions when None."""
    max_num_seqs: int
    gpu_memory_utilization: float | None
    tensor_parallel_size: int
    max_lora_rank: int
    """Rounded up to what vLLM serves; 0 with merged weights."""
    sync: Literal["adapter", "merged"]
    seed: int
    device: Literal["cpu", "cuda"]


def server_settings(config: RunConfig, plan: LaunchPlan, model: str, tokenizer: str) -> ServerSettings:
    """The servers of a planned run.

    Args:
        model: the stated model, or the directory of the run's own.
        tokenizer: directory of the run's tokenizer.
    """
    rollout = config.rollout
    return ServerSettings(
        model=model,
        tokenizer=tokenizer,
        revision=config.model.revision,
        trust_remote_code=config.model.trust_remote_code,
        dtype=config.model.dtype,
        max_model_len=plan.max_model_len,
        max_num_seqs=RolloutSetup.max_num_seqs,
        gpu_memory_utilization=plan.gpu_memory_utilization,
        tensor_parallel_size=plan.topology.tensor_parallel_size,
        max_lora_rank=served_rank(config.lora.r) if rollout.sync == "adapter" else 0,
        sync=rollout.sync,
        seed=config.grpo.seed,
        device=plan.topology.device,
    )


def argv(settings: ServerSettings, host: str, port: int) -> list[str]:
    """The command of one replica. The key is not in it: every user of a machine can read a command line."""
    return [
        *(sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", settings.model),
        *("--host", host, "--port", str(port), "--api-server-count", "1"),
        *("--middleware", MIDDLEWARE),
        *("--tokenizer", settings.tokenizer, "--dtype", settings.dtype, "--seed", str(settings.seed)),
        # The model's own sampling defaults would change what is not stated, e.g. top_k.
        *("--generation-config", "vllm", "--logprobs-mode", LOGPROBS_MODE, "--enable-prefix-caching"),
        *("--max-num-seqs", str(settings.max_num_seqs)),
        *("--tensor-parallel-size", str(settings.tensor_parallel_size)),
        *_option("--revision", settings.revision),
        *_option("--max-model-len", settings.max_model_len),
        *_option("--gpu-memory-utilization", settings.gpu_memory_utilization if settings.device == "cuda" else None),
        *(("--trust-remote-code",) if settings.trust_remote_code else ()),
        *(ON_CPU if settings.device == "cpu" else ()),
        *_weights(settings),
        *("--disable-uvicorn-access-log", "--uvicorn-log-level", "warning"),
    ]


def environment(
    settings: ServerSettings,
    topology: Topology,
    gpus: tuple[int, ...],
    environ: Mapping[str, str],
    *,
    key: str,
    scratch: Path,
    incarnation: int,
) -> dict[str, str]:
    """The whole environment of one replica.

    Args:
        gpus: its GPUs by their number on the node; names of an outer `CUDA_VISIBLE_DEVICES` stand for them.
        environ: ours.
        scratch: an empty directory of its own with a short name: sockets lie in it, whose paths Linux limits to 107
            characters.

    Raises:
        PlanError: fewer GPUs are visible than planned.
    """
    ours = {
        KEY_VARIABLE: key,
        ADAPTERS_VARIABLE: str(scratch / "adapters"),
        INCARNATION_VARIABLE: str(incarnation),
        "TMPDIR": str(scratch),
        "VLLM_RPC_BASE_PATH": str(scratch),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",  # our own routes do it, and ask for the key
        "VLLM_SERVER_DEV_MODE": "1" if settings.sync == "merged" else "0",
        "PYTHONUNBUFFERED": "1",
    }
    return {**environ, **ours, **_devices(topology, gpus, environ)}


def longest_text(config: RunConfig) -> int | None:
    """Tokens the engines of a configuration have room for in one text; None: vLLM takes the model's positions."""
    return plan_run(config).max_model_len


def _option(name: str, value: object) -> tuple[str, ...]:
    return () if value is None else (name, str(value))


def _weights(settings: ServerSettings) -> tuple[str, ...]:
    """How new weights come: adapters beside the model, or over the model's own (TRL's NCCL engine)."""
    if settings.sync == "merged":
        return ("--weight-transfer-config", '{"backend": "nccl"}', "--max-logprobs", "-1")
    rank, loras, kept = str(settings.max_lora_rank), str(MAX_LORAS), str(MAX_CPU_LORAS)
    return ("--enable-lora", "--max-lora-rank", rank, "--max-loras", loras, "--max-cpu-loras", kept)


def _devices(topology: Topology, gpus: tuple[int, ...], environ: Mapping[str, str]) -> dict[str, str]:
    if topology.device == "cuda":
        visible = visible_gpus(topology.gpus_per_node, environ.get("CUDA_VISIBLE_DEVICES"))
        return {"CUDA_VISIBLE_DEVICES": ",".join(visible[gpu] for gpu in gpus)}
    here = max(Counter(replica.node for replica in topology.replicas).values())
    cores = len(os.sched_getaffinity(0)) // here
    threads = {
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; vLLM's own choice is a share of the machine's memory for each replica
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # it binds every engine to the same cores
        "OMP_NUM_THREADS": str(max(1, cores)),
        "OMP_WAIT_POLICY": "PASSIVE",
        # Two small functions are compiled even so, by g++ for ten seconds, and anew in each replica's TMPDIR.
        "TORCH_COMPILE_DISABLE": "1",
    }
    if "VLLM_CPU_OMP_THREADS_BIND" not in environ:
        # The engine's process computes itself, instead of starting another that imports vLLM for ten seconds. vLLM
        # wants that one only to bind its threads to cores.
        threads["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return {"CUDA_VISIBLE_DEVICES": "", **{name: value for name, value in threads.items() if name not in environ}}
