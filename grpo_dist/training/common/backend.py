"""What trains a run: Unsloth, or TRL with PEFT. Chosen once, kept in `environment.json`, and imported first.

Nothing here imports trl, transformers or peft: Unsloth, which rewrites them, comes first.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any, Literal

from grpo_dist.doctor.packages import INSTALL_UNSLOTH, unsloth_missing
from grpo_dist.errors import LaunchError
from grpo_dist.plan.checks import obstacle
from grpo_dist.progress import say
from grpo_dist.run.checkpoints import newest_complete
from grpo_dist.run.directory import write_json
from grpo_dist.training.common.process import Run

ANOTHER_RUN = "mend it, or start another run with --set model.backend=trl --output DIR"
NAMES = {"unsloth": "Unsloth", "trl": "TRL and PEFT"}


@dataclass(frozen=True)
class Backend:
    """Who trains, and why."""

    name: Literal["unsloth", "trl"]
    reason: str


def select_backend(run: Run) -> Backend:
    """The back end of the run, Unsloth imported where it is that; to be called before anything it rewrites is imported.

    Where `auto` takes Unsloth and its import fails, that is said, TRL's is noted, and this process begins again: what
    half an import has patched would stay. What Unsloth has begun to train, TRL does not go on with.

    Raises:
        LaunchError: the plan is for a GPU and there is none, or Unsloth is asked for, or has begun, and cannot be had.
    """
    from grpo_dist.training.common.world import check_device

    # Before Unsloth: for a GPU it loads vLLM whole, which kills a process on a CPU without AVX-512.
    check_device(run.plan)
    backend = recorded(run) or choose(run)
    if backend.name == "trl":
        return backend
    environ = dict(os.environ)
    try:
        _import_unsloth(run)
    except Exception as error:
        reason = f"Unsloth cannot be imported: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
        if run.config.model.backend == "unsloth":
            raise LaunchError(f"model.backend: {reason}", hint=INSTALL_UNSLOTH) from error
        if _has_trained(run):
            raise LaunchError(f"model.backend: the run was begun with Unsloth. {reason}", hint=ANOTHER_RUN) from error
        say(f"back end: {reason}; starting again with TRL and PEFT")
        write_json(run.directory.environment, {**_noted(run), "backend": asdict(Backend("trl", reason))})
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)
    return backend


def recorded(run: Run) -> Backend | None:
    """The one the run has; None before it is chosen."""
    backend = _noted(run).get("backend")
    return Backend(**backend) if backend else None


def is_unsloth(run: Run) -> bool:
    """Whether Unsloth trains it."""
    backend = recorded(run)
    return backend is not None and backend.name == "unsloth"


def choose(run: Run) -> Backend:
    """As the configuration states it. `auto`: Unsloth where a single process trains on a GPU, which is all it sees.

    Raises:
        LaunchError: Unsloth is asked for, and not installed or of a version that is not supported.
    """
    stated, where = run.config.model.backend, run.plan.topology
    if stated == "trl":
        return Backend("trl", "model.backend is trl")
    missing = unsloth_missing(on_cpu=where.device == "cpu")
    if stated == "unsloth":
        if missing:
            raise LaunchError(f"model.backend: {missing}", hint=INSTALL_UNSLOTH)
        return Backend("unsloth", "model.backend is unsloth")
    if where.device == "cpu":
        return Backend("trl", "on a CPU Unsloth has to be asked for")
    in_the_way = obstacle(run.config, where)
    reason = in_the_way.what if in_the_way else missing
    return Backend("trl", reason) if reason else Backend("unsloth", "one process trains on one GPU")


def _has_trained(run: Run) -> bool:
    return run.directory.warm_start.exists() or newest_complete(run.directory.checkpoints) is not None


def _noted(run: Run) -> dict[str, Any]:
    path = run.directory.environment
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _import_unsloth(run: Run) -> None:
    os.environ["UNSLOTH_COMPILE_LOCATION"] = str(run.directory.unsloth_cache)
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")  # a download from the Hub at every load
    if run.config.rollout.enable_sleep_mode:
        os.environ["UNSLOTH_VLLM_STANDBY"] = "1"
    without_vllm = run.plan.topology.device == "cpu" and "vllm" not in sys.modules
    if without_vllm:
        # It tries out every compiled part of vLLM, and that for AVX-512 ends the process on a CPU without it.
        sys.modules["vllm"] = None
    try:
        import unsloth  # noqa: F401
    finally:
        if without_vllm:
            del sys.modules["vllm"]
    if run.plan.topology.device == "cpu":
        from grpo_dist.training.common.unsloth_arguments import keep_arguments

        keep_arguments()
