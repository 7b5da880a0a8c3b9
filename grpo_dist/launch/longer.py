"""Resuming a run with more optimizer steps than it was started with."""

from __future__ import annotations

import json
import math
import shutil

from grpo_dist.config import RunConfig
from grpo_dist.errors import RunDirectoryError
from grpo_dist.run.checkpoints import newest_complete, step_of
from grpo_dist.run.directory import RunDirectory

STEPS = "grpo.max_steps"
EXTENSIBLE_SCHEDULERS = ("constant", "constant_with_warmup", "inverse_sqrt")
"""Schedulers whose learning rate at a step does not depend on the number of steps."""
STATE_FILE = "trainer_state.json"


def check_longer(before: RunConfig, now: RunConfig, run: RunDirectory) -> None:
    """Check that the run can continue as if it had been started with the new number of steps.

    Raises:
        RunDirectoryError: it cannot.
    """
    scheduler, steps, planned = now.grpo.lr_scheduler_type, now.grpo.max_steps, planned_steps(before, run)
    start_over = f"start another run of {steps} steps with --output DIR"
    if steps < 1 or (planned is not None and steps < planned):
        done = "as many as its epochs have" if planned is None else planned
        raise RunDirectoryError(
            f"{run.path}: {STEPS} is {steps}, and the run has {done}: a run can be made longer, not shorter",
            hint=f"--set {STEPS}={(planned or 100) + 100}",
        )
    if scheduler not in EXTENSIBLE_SCHEDULERS:
        raise RunDirectoryError(
            f"{run.path}: {STEPS}: with grpo.lr_scheduler_type {scheduler} the learning rate follows from the number "
            f"of steps, so those that are done are not those of a run of {steps}",
            hint=f"{start_over}; only {', '.join(EXTENSIBLE_SCHEDULERS)} can be made longer",
        )
    warmups = [_warmup(one, of) for one, of in ((before, planned), (now, steps))]
    if scheduler != "constant" and warmups[0] != warmups[1]:
        done = "fewer" if warmups[0] is None else warmups[0]
        raise RunDirectoryError(
            f"{run.path}: {STEPS}: grpo.warmup_steps {now.grpo.warmup_steps:g} is a fraction of all steps, "
            f"{warmups[1]} of {steps}, and this run has warmed up in {done}",
            hint=f"{start_over}, or continue this one with its own warm-up: --set grpo.warmup_steps={warmups[0]}"
            if warmups[0]
            else start_over,
        )


def planned_steps(config: RunConfig, run: RunDirectory) -> int | None:
    """Optimizer steps the run was started for; None if they depend on epochs and no checkpoint exists yet."""
    if config.grpo.max_steps > 0:
        return config.grpo.max_steps
    checkpoint = newest_complete(run.checkpoints)
    if checkpoint is None:
        return None
    return int(json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))["max_steps"])


def archive_results(run: RunDirectory) -> None:
    """Copy the results of the finished run to `finished/step-N`, then make room for those of the longer run.

    The copy is complete before anything is removed, so an interruption at any time loses no result.
    """
    checkpoint = newest_complete(run.checkpoints)
    if not run.adapter.exists() or checkpoint is None:
        return
    kept = run.finished / f"step-{step_of(checkpoint)}"
    results = [path for path in (run.adapter, run.comparison, run.report, run.metrics) if path.exists()]
    if not kept.exists():
        draft = kept.with_name(f".{kept.name}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for path in results:
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, draft / path.name)
        draft.rename(kept)
    for path in (run.report, run.comparison):
        path.unlink(missing_ok=True)
    gone = run.adapter.with_name(".adapter.before")
    shutil.rmtree(gone, ignore_errors=True)
    run.adapter.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _warmup(config: RunConfig, steps: int | None) -> int | None:
    """Warm-up steps, as Transformers counts them (`TrainingArguments.get_warmup_steps`)."""
    warmup = config.grpo.warmup_steps
    if warmup >= 1:
        return int(warmup)
    return None if steps is None else math.ceil(steps * warmup)
