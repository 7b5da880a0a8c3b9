"""A run that is to have more optimizer steps than it was started with."""

from __future__ import annotations

import json
import math
import shutil

from grpo_dist.config import RunConfig
from grpo_dist.errors import RunDirectoryError
from grpo_dist.run.checkpoints import newest_complete, step_of
from grpo_dist.run.directory import RunDirectory

STEPS = "grpo.max_steps"
OF_ANY_LENGTH = ("constant", "constant_with_warmup", "inverse_sqrt")
"""Schedulers whose learning rate at a step does not depend on how many steps there are."""
STATE_FILE = "trainer_state.json"


def check_longer(before: RunConfig, now: RunConfig, run: RunDirectory) -> None:
    """Whether the run can go on as if it had been started with so many steps.

    Raises:
        RunDirectoryError: it cannot.
    """
    scheduler, steps, planned = now.grpo.lr_scheduler_type, now.grpo.max_steps, planned_steps(before, run)
    anew = f"start another run of {steps} steps with --output DIR"
    if steps < 1 or (planned is not None and steps < planned):
        done = "as many as its epochs have" if planned is None else planned
        raise RunDirectoryError(
            f"{run.path}: {STEPS} is {steps}, and the run has {done}: a run can be made longer, not shorter",
            hint=f"--set {STEPS}={(planned or 100) + 100}",
        )
    if scheduler not in OF_ANY_LENGTH:
        raise RunDirectoryError(
            f"{run.path}: {STEPS}: with grpo.lr_scheduler_type {scheduler} the learning rate follows from the number "
            f"of steps, so those that are done are not those of a run of {steps}",
            hint=f"{anew}; only {', '.join(OF_ANY_LENGTH)} can be made longer",
        )
    warm = [_warmup(one, of) for one, of in ((before, planned), (now, steps))]
    if scheduler != "constant" and warm[0] != warm[1]:
        raise RunDirectoryError(
            f"{run.path}: {STEPS}: grpo.warmup_steps {now.grpo.warmup_steps:g} is a fraction of all steps, "
            f"{warm[1]} of {steps}, and this run has warmed up in {warm[0] if warm[0] is not None else 'fewer'}",
            hint=f"{anew}, or continue this one with its own warm-up: --set grpo.warmup_steps={warm[0]}"
            if warm[0]
            else anew,
        )


def planned_steps(config: RunConfig, run: RunDirectory) -> int | None:
    """All optimizer steps of the run as it was started; None where they follow from epochs and none was saved yet."""
    if config.grpo.max_steps > 0:
        return config.grpo.max_steps
    checkpoint = newest_complete(run.checkpoints)
    if checkpoint is None:
        return None
    return int(json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))["max_steps"])


def put_aside(run: RunDirectory) -> None:
    """Copy what the finished run has come to into `finished/step-N`, then take it from where the longer run's will be.

    The copy comes first, and whole: whenever this is cut off, the results stand in one of the places.
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
    """Steps of warm-up, as Transformers counts them (`TrainingArguments.get_warmup_steps`)."""
    stated = config.grpo.warmup_steps
    if stated >= 1:
        return int(stated)
    return None if steps is None else math.ceil(steps * stated)
