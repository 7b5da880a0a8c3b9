"""One replica, a plain `vllm serve` process: its command and environment, the process itself, and probes of it.

The process runs below a reaper (`procs/reaper.py`), which cleans up after it. The probes are short HTTP requests with a
time-out: is it healthy, does it serve what was planned, does it generate.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grpo_dist.config import RunConfig
from grpo_dist.inference.wire_format import FrameDecoder
from grpo_dist.plan import LaunchPlan, plan_run
from grpo_dist.plan.memory.vllm import RolloutSetup, served_loras, served_rank
from grpo_dist.plan.topology import Topology, visible_gpus

# Options and variables are those of vLLM 0.31. It refuses an option it does not know, but ignores a variable that is
# not in `vllm.envs`: sockets then get names that are too long, or every engine on a CPU starts a second process.
COMMAND = "vllm.entrypoints.cli.main"
CPU_COMMAND = "grpo_dist.inference.cpu_serve"
MIDDLEWARE = "grpo_dist.inference.middleware.RolloutMiddleware"
LOGPROBS_MODE = "processed_logprobs"
"""Log-probabilities after temperature and top-k/top-p: those the token was sampled with."""
SPARE_LORAS = 2
"""Adapters an engine keeps beyond those of one batch. It evicts the oldest beyond that, and would reload it from a
directory that is gone."""
ON_CPU = ("--enforce-eager", "--no-enable-chunked-prefill")
"""Compiling takes minutes on a CPU and gains little. A seeded request with a chunked prefill would end the engine: vLLM
0.31 rewinds the generator, which PyTorch's CPU generator does not support ("CPU Generator does not use offset")."""
KEY_VARIABLE = "VLLM_API_KEY"
ADAPTERS_VARIABLE = "GRPO_DIST_ADAPTERS"
"""Directory that pushed adapters are written to."""
INCARNATION_VARIABLE = "GRPO_DIST_INCARNATION"
"""Number of earlier starts of the replica."""


@dataclass(frozen=True)
class ServerSettings:
    """Settings common to all replicas of a run, in vLLM's spelling."""

    model: str
    """Name or directory, as Transformers would load it."""
    tokenizer: str
    revision: str | None
    trust_remote_code: bool
    dtype: str
    max_model_len: int | None
    """Tokens of prompt plus completion; None: vLLM uses the model's maximum."""
    max_num_seqs: int
    gpu_memory_utilization: float | None
    tensor_parallel_size: int
    max_lora_rank: int
    """Rounded up to a rank vLLM supports; 0 with merged weights."""
    max_loras: int
    sync: Literal["adapter", "merged"]
    seed: int
    device: Literal["cpu", "cuda"]

    @property
    def merges(self) -> bool:
        """Whether TRL sends whole merged weights."""
        return self.sync == "merged"


def server_settings(config: RunConfig, plan: LaunchPlan, model: str, tokenizer: str) -> ServerSettings:
    """The settings of a planned run.

    Args:
        model: the configured model, or the directory of the embedded one.
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
        max_lora_rank=served_rank(config.lora.r) if rollout.syncs_adapter else 0,
        max_loras=served_loras(rollout.max_staleness),
        sync=rollout.sync,
        seed=config.grpo.seed,
        device=plan.topology.device,
    )


def argv(settings: ServerSettings, host: str, port: int) -> list[str]:
    """The command of one replica. The key is not part of it: every user of a machine can read command lines."""
    return [
        *(sys.executable, "-m", CPU_COMMAND if settings.device == "cpu" else COMMAND, "serve", settings.model),
        *("--host", host, "--port", str(port), "--api-server-count", "1"),
        *("--middleware", MIDDLEWARE),
        *("--tokenizer", settings.tokenizer, "--dtype", settings.dtype, "--seed", str(settings.seed)),
        # With the model's own generation config, defaults such as top_k would apply where the request sets nothing.
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
        gpus: its GPUs, as indices into the GPUs visible on the node.
        environ: the environment to start from.
        scratch: an empty directory for this replica alone. Its path must be short: it holds sockets, and Linux limits
            their paths to 107 characters.

    Raises:
        PlanError: fewer GPUs are visible than planned.
    """
    own = {
        KEY_VARIABLE: key,
        ADAPTERS_VARIABLE: str(scratch / "adapters"),
        INCARNATION_VARIABLE: str(incarnation),
        "TMPDIR": str(scratch),
        "VLLM_RPC_BASE_PATH": str(scratch),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",  # the routes of RolloutMiddleware do it, and require the key
        "VLLM_SERVER_DEV_MODE": "1" if settings.merges else "0",
        "PYTHONUNBUFFERED": "1",
    }
    return {**environ, **own, **_devices(topology, gpus, environ)}


def longest_text(config: RunConfig) -> int | None:
    """Most tokens of prompt plus completion in the engines of a configuration; None: the model's own maximum."""
    return plan_run(config).max_model_len


def _option(name: str, value: object) -> tuple[str, ...]:
    return () if value is None else (name, str(value))


def _weights(settings: ServerSettings) -> tuple[str, ...]:
    """Options for the weight sync: LoRA adapters, or whole merged weights over NCCL (as TRL sends them)."""
    if settings.merges:
        return ("--weight-transfer-config", '{"backend": "nccl"}', "--max-logprobs", "-1")
    rank, loras = str(settings.max_lora_rank), str(settings.max_loras)
    kept = str(settings.max_loras + SPARE_LORAS)
    return ("--enable-lora", "--max-lora-rank", rank, "--max-loras", loras, "--max-cpu-loras", kept)


def _devices(topology: Topology, gpus: tuple[int, ...], environ: Mapping[str, str]) -> dict[str, str]:
    if not topology.on_cpu:
        visible = visible_gpus(topology.gpus_per_node, environ.get("CUDA_VISIBLE_DEVICES"))
        return {"CUDA_VISIBLE_DEVICES": ",".join(visible[gpu] for gpu in gpus)}
    on_node = max(Counter(replica.node for replica in topology.replicas).values())
    cores = len(os.sched_getaffinity(0)) // on_node
    cpu_settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; by default each replica takes a share of the machine's memory
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # by default every engine is bound to the same cores
        "OMP_NUM_THREADS": str(max(1, cores)),
        "OMP_WAIT_POLICY": "PASSIVE",
        # Even with --enforce-eager g++ compiles two small functions, for ten seconds in each replica's own TMPDIR.
        "TORCH_COMPILE_DISABLE": "1",
    }
    if "VLLM_CPU_OMP_THREADS_BIND" not in environ:
        # The engine computes itself, instead of starting another process that imports vLLM for ten seconds. On a CPU
        # vLLM needs that process only to bind threads to cores.
        cpu_settings["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return {"CUDA_VISIBLE_DEVICES": "", **{name: value for name, value in cpu_settings.items() if name not in environ}}


GRACE_SECONDS = 10.0
"""For a server to shut down by itself."""
REAPER_SECONDS = 10.0
"""For the reaper to clean up after it."""
LONGEST_PARENT = 40
"""Characters of the directory that scratch directories are made in; a socket path has at most 107."""


def make_scratch() -> Path:
    """A private directory for sockets, temporary files and pushed adapters."""
    parent = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="grpo-dist-", dir=parent if len(parent) <= LONGEST_PARENT else "/tmp"))


class ReplicaProcess:
    """A started server and its reaper. Both end with the thread that starts them (`procs/tree.py`).

    Args:
        argv: the server's command.
        log: its output is appended to this file.
        scratch: removed after it has ended.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], log: Path, scratch: Path) -> None:
        self.scratch, self._log = scratch, log
        readable, writable = os.pipe()
        reaper = (sys.executable, "-m", "grpo_dist.procs.reaper", str(os.getpid()), str(writable))
        with open(log, "ab") as record, open(readable, encoding="ascii") as pid:
            self._log_start = record.tell()
            try:
                self._reaper = subprocess.Popen(
                    [*reaper, str(GRACE_SECONDS), str(scratch), "--", *argv],
                    env=dict(env),
                    stdin=subprocess.DEVNULL,
                    stdout=record,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=(writable,),
                )
            finally:
                os.close(writable)
            self.pid = int(pid.readline() or 0)

    @property
    def ended(self) -> int | None:
        """Its exit code, 128 + n for signal n; None while it runs."""
        return self._reaper.poll()

    def printed(self) -> str:
        """The output of this incarnation, from the log."""
        with open(self._log, encoding="utf-8", errors="replace") as record:
            record.seek(self._log_start)
            return record.read()

    def terminate(self) -> None:
        """Ask it to shut down, without waiting."""
        self._signal(signal.SIGTERM)

    def wait(self) -> None:
        """Return when it has ended, by itself or after its grace time, and everything is cleaned up."""
        try:
            self._reaper.wait(GRACE_SECONDS + REAPER_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it now, even if it is frozen; return when everything is cleaned up."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGQUIT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._reaper.wait(REAPER_SECONDS)
        self._reaper.kill()
        if self._reaper.wait() < 0:  # the reaper was killed itself, and did not clean up
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _signal(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._reaper.send_signal(signum)


VLLM_VERSIONS = ((0, 22), (0, 31))
"""Oldest and newest vLLM whose internals `engine.py` supports."""
UNREACHED = (OSError, http.client.HTTPException, ValueError)
"""Raised when no server answers, or not in time, or not as a rollout server would."""


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the key it requires."""

    host: str
    port: int
    key: str

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def healthy(address: Address, timeout: float) -> bool:
    """Whether `GET /health` answers 200.

    Raises:
        OSError, HTTPException: no answer.
    """
    return _ask(address, "GET", "/health", timeout)[0] == 200


def status(address: Address, timeout: float) -> dict[str, Any]:
    """The answer of the status route.

    Raises:
        OSError, HTTPException, ValueError: no answer, or another one than 200.
    """
    code, body = _ask(address, "GET", "/grpo-dist/status", timeout)
    if code != 200:
        raise ValueError(f"/grpo-dist/status answers {code}: {body[:200].decode(errors='replace')}")
    return json.loads(body)


def warm_up(address: Address, timeout: float) -> None:
    """Sample one short completion, so that the one-time costs of the first request do not fall into a training step.

    Raises:
        OSError, HTTPException, ValueError: no completion came.
    """
    request = {"prompt_token_ids": [1], "n": 1, "seed": 0, "sampling": {"max_tokens": 2}}
    code, body = _ask(address, "POST", "/grpo-dist/generate", timeout, json.dumps(request))
    if code != 200:
        raise ValueError(f"/grpo-dist/generate answers {code}: {body[:200].decode(errors='replace')}")
    if not any(frame.finish for frame in FrameDecoder().feed(body)):
        raise ValueError("a completion of two tokens did not end")


def mismatch(settings: ServerSettings, found: dict[str, Any]) -> str | None:
    """How the server differs from the plan, for an error message; None if it does not."""
    version = tuple(int(number) for number in found["vllm_version"].split("+")[0].split(".")[:2])
    oldest, newest = (".".join(map(str, limit)) for limit in VLLM_VERSIONS)
    expected = {
        "model": (settings.model, found["model"]),
        "dtype": (settings.dtype, found["dtype"]),
        "logprobs_mode": (LOGPROBS_MODE, found["logprobs_mode"]),
    }
    if not VLLM_VERSIONS[0] <= version <= VLLM_VERSIONS[1]:
        return f"it is vLLM {found['vllm_version']}; supported are {oldest} to {newest}"
    for name, (planned, served) in expected.items():
        if planned != served:
            return f"it serves {name} {served!r}, planned is {planned!r}"
    if found["max_lora_rank"] < settings.max_lora_rank:
        return f"it serves adapters up to rank {found['max_lora_rank']}, needed is {settings.max_lora_rank}"
    return None


def _ask(address: Address, method: str, path: str, timeout: float, body: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout)
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {address.key}"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
