"""What trains a run: Unsloth, or TRL with PEFT. Chosen once, kept in `environment.json`, and imported first.

Nothing here imports trl, transformers or peft: Unsloth, which rewrites them, comes first.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from typing import Any, Literal

from grpo_dist.doctor.packages import INSTALL_UNSLOTH, unsloth_missing
from grpo_dist.errors import LaunchError
from grpo_dist.plan.checks import obstacle
from grpo_dist.progress import say
from grpo_dist.run.checkpoints import newest_complete
from grpo_dist.run.directory import read_json, write_json
from grpo_dist.text import first_line
from grpo_dist.training.common.process import Run

ANOTHER_RUN = "fix it, or start another run with --set model.backend=trl --output DIR"
NAMES = {"unsloth": "Unsloth", "trl": "TRL and PEFT"}


@dataclass(frozen=True)
class Backend:
    """Which backend trains, and why."""

    name: Literal["unsloth", "trl"]
    reason: str


def select_backend(run: Run) -> Backend:
    """The run's backend, with Unsloth imported if it is that one; call it before importing anything Unsloth rewrites.

    If `auto` picks Unsloth and its import fails, the reason is reported, TRL is recorded as the backend, and this
    process restarts itself: whatever a partial import patched would remain. TRL does not continue a run that Unsloth
    began.

    Raises:
        LaunchError: the plan is for a GPU and there is none; or Unsloth is requested, or already trained this run, and
            is not available.
    """
    from grpo_dist.training.common.world import check_device

    # Before Unsloth: on a GPU it imports all of vLLM, which kills a process on a CPU without AVX-512.
    check_device(run.plan)
    backend = recorded(run) or choose_backend(run)
    if backend.name == "trl":
        return backend
    environ = dict(os.environ)
    try:
        _import_unsloth(run)
    except Exception as error:
        reason = f"Unsloth cannot be imported: {first_line(error)}"
        if run.config.model.requires_unsloth:
            raise LaunchError(f"model.backend: {reason}", hint=INSTALL_UNSLOTH) from error
        if _has_trained(run):
            raise LaunchError(f"model.backend: the run was started with Unsloth. {reason}", hint=ANOTHER_RUN) from error
        say(f"backend: {reason}; starting again with TRL and PEFT")
        write_json(run.directory.environment, {**_noted(run), "backend": asdict(Backend("trl", reason))})
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)
    return backend


def recorded(run: Run) -> Backend | None:
    """The backend recorded for the run; None before it is chosen."""
    backend = _noted(run).get("backend")
    return Backend(**backend) if backend else None


def is_unsloth(run: Run) -> bool:
    """Whether Unsloth trains the run."""
    backend = recorded(run)
    return backend is not None and backend.name == "unsloth"


def choose_backend(run: Run) -> Backend:
    """The backend that the configuration selects. `auto`: Unsloth if a single process trains on a GPU, which is all it
    supports.

    Raises:
        LaunchError: Unsloth is requested, and not installed or of a version that is not supported.
    """
    stated, where = run.config.model.backend, run.plan.topology
    if stated == "trl":
        return Backend("trl", "model.backend is trl")
    missing = unsloth_missing(on_cpu=where.on_cpu)
    if stated == "unsloth":
        if missing:
            raise LaunchError(f"model.backend: {missing}", hint=INSTALL_UNSLOTH)
        return Backend("unsloth", "model.backend is unsloth")
    if where.on_cpu:
        return Backend("trl", "Unsloth is opt-in on a CPU")
    in_the_way = obstacle(run.config, where)
    reason = in_the_way.what if in_the_way else missing
    return Backend("trl", reason) if reason else Backend("unsloth", "one process trains on one GPU")


def _has_trained(run: Run) -> bool:
    return run.directory.warm_start.exists() or newest_complete(run.directory.checkpoints) is not None


def _noted(run: Run) -> dict[str, Any]:
    path = run.directory.environment
    return read_json(path) if path.exists() else {}


def _import_unsloth(run: Run) -> None:
    os.environ["UNSLOTH_COMPILE_LOCATION"] = str(run.directory.unsloth_cache)
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")  # it would download from the Hub at every load
    if run.config.rollout.enable_sleep_mode:
        os.environ["UNSLOTH_VLLM_STANDBY"] = "1"
    without_vllm = run.plan.topology.on_cpu and "vllm" not in sys.modules
    if without_vllm:
        # It imports every compiled extension of vLLM; the AVX-512 one kills the process on a CPU without it.
        sys.modules["vllm"] = None
    try:
        import unsloth  # noqa: F401
    finally:
        if without_vllm:
            del sys.modules["vllm"]
    if run.plan.topology.on_cpu:
        from grpo_dist.training.common.unsloth_arguments import keep_arguments

        keep_arguments()
