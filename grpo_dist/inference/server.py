"""What starts one replica: plain `vllm serve`, its arguments and environment; nothing is started here.

One incarnation of a replica as a process: held on a leash, its words in a log.

Short questions to one rollout server, each with an end.
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
from grpo_dist.plan.memory.vllm import RolloutSetup, served_rank
from grpo_dist.plan.topology import Topology, visible_gpus

# Options and variables are those of vLLM 0.31. It refuses an option it does not know, but ignores a variable that is
# not in `vllm.envs`: sockets then get names that are too long, or every engine on a CPU starts a second process.
MIDDLEWARE = "grpo_dist.inference.middleware.RolloutMiddleware"
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


GRACE_SECONDS = 10.0
"""For a server to end by itself."""
LEASH_SECONDS = 10.0
"""For the leash to clean up after it."""
LONGEST_PARENT = 40
"""Characters of a directory for scratch ones; a socket's whole path has at most 107."""


def make_scratch() -> Path:
    """A private directory for sockets, temporary files and pushed adapters."""
    parent = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="grpo-dist-", dir=parent if len(parent) <= LONGEST_PARENT else "/tmp"))


class ReplicaProcess:
    """A started server. The thread that makes this must live as long as the server is wanted (`cluster/leash.py`).

    Args:
        argv: the server's command.
        log: what it prints is added here.
        scratch: removed when it has ended.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], log: Path, scratch: Path) -> None:
        self.scratch, self._log = scratch, log
        readable, writable = os.pipe()
        leash = (sys.executable, "-m", "grpo_dist.procs.reaper", str(os.getpid()), str(writable))
        with open(log, "ab") as record, open(readable, encoding="ascii") as pid:
            self._from = record.tell()
            try:
                self._leash = subprocess.Popen(
                    [*leash, str(GRACE_SECONDS), str(scratch), "--", *argv],
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
        return self._leash.poll()

    def printed(self) -> str:
        """What this incarnation wrote to the log."""
        with open(self._log, encoding="utf-8", errors="replace") as record:
            record.seek(self._from)
            return record.read()

    def terminate(self) -> None:
        """Ask it to end; returns at once."""
        self._tell(signal.SIGTERM)

    def wait(self) -> None:
        """Return when it has ended, by itself or at the end of its grace, and nothing of it is left."""
        try:
            self._leash.wait(GRACE_SECONDS + LEASH_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it now, even when it is frozen; return when nothing of it is left."""
        self._tell(signal.SIGCONT)
        self._tell(signal.SIGQUIT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._leash.wait(LEASH_SECONDS)
        self._leash.kill()
        if self._leash.wait() < 0:  # the leash was itself killed, and could not do its part
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _tell(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._leash.send_signal(signum)


VLLM_VERSIONS = ((0, 22), (0, 31))
"""Oldest and newest vLLM whose inner parts the endpoint knows."""
UNREACHED = (OSError, http.client.HTTPException, ValueError)
"""What a question ends with when nobody answers, or not in time, or not as one of our servers would."""


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the key it asks for."""

    host: str
    port: int
    key: str

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def healthy(address: Address, timeout: float) -> bool:
    """`GET /health` answers 200.

    Raises:
        OSError, HTTPException: nobody answers.
    """
    return _ask(address, "GET", "/health", timeout)[0] == 200


def status(address: Address, timeout: float) -> dict[str, Any]:
    """What the server says of itself.

    Raises:
        OSError, HTTPException, ValueError: it does not.
    """
    code, body = _ask(address, "GET", "/grpo-dist/status", timeout)
    if code != 200:
        raise ValueError(f"/grpo-dist/status answers {code}: {body[:200].decode(errors='replace')}")
    return json.loads(body)


def warm_up(address: Address, timeout: float) -> None:
    """One short completion: what the first request pays for is paid before there is a batch.

    Raises:
        OSError, HTTPException, ValueError: there is none.
    """
    request = {"prompt_token_ids": [1], "n": 1, "seed": 0, "sampling": {"max_tokens": 2}}
    code, body = _ask(address, "POST", "/grpo-dist/generate", timeout, json.dumps(request))
    if code != 200:
        raise ValueError(f"/grpo-dist/generate answers {code}: {body[:200].decode(errors='replace')}")
    if not any(frame.finish for frame in FrameDecoder().feed(body)):
        raise ValueError("a completion of two tokens did not end")


def mismatch(settings: ServerSettings, found: dict[str, Any]) -> str | None:
    """What of the server is not as planned, in words; None when all is."""
    version = tuple(int(part) for part in found["vllm_version"].split("+")[0].split(".")[:2])
    oldest, newest = (".".join(map(str, limit)) for limit in VLLM_VERSIONS)
    wanted = {
        "model": (settings.model, found["model"]),
        "dtype": (settings.dtype, found["dtype"]),
        "logprobs_mode": (LOGPROBS_MODE, found["logprobs_mode"]),
    }
    if not VLLM_VERSIONS[0] <= version <= VLLM_VERSIONS[1]:
        return f"it is vLLM {found['vllm_version']}; supported are {oldest} to {newest}"
    for name, (planned, served) in wanted.items():
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
