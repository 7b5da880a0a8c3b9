"""Creating a run directory, or resuming the run in it, possibly on other machines or with more optimizer steps."""

from __future__ import annotations

import math
import shlex
import shutil
from collections.abc import Mapping
from hashlib import sha256

from grpo_dist.config import RunConfig, config_differences, dump_config, load_config
from grpo_dist.config.base import seconds_of
from grpo_dist.config.load import Difference, listed_differences
from grpo_dist.errors import PlanError, RunDirectoryError
from grpo_dist.plan import LaunchPlan
from grpo_dist.plan.launch import read_plan
from grpo_dist.render.files import RENDERED, render_files
from grpo_dist.run.checkpoints import newest_complete, newest_sealed, step_of, trained_seconds
from grpo_dist.run.directory import (
    CONFIG_FILE,
    DIGEST_FILE,
    STARTED_FILE,
    RunDirectory,
    mode_of,
    read_json,
    read_text,
    write_atomically,
)

STEPS, EPOCHS, TIME = "grpo.max_steps", "grpo.num_train_epochs", "grpo.max_time"
LENGTHS = (STEPS, EPOCHS)
EXTENSIBLE_SCHEDULERS = ("constant", "constant_with_warmup", "inverse_sqrt")
"""Schedulers whose learning rate at a step does not depend on the number of steps."""


def check_longer(before: RunConfig, now: RunConfig, run: RunDirectory) -> None:
    """Check that the run can continue as if it had been started with the new number of steps or epochs.

    Raises:
        RunDirectoryError: it cannot.
    """
    scheduler, planned = now.grpo.lr_scheduler_type, planned_steps(before, run)
    setting = STEPS if now.grpo.max_steps > 0 or before.grpo.max_steps > 0 else EPOCHS
    steps = now.grpo.max_steps if setting == STEPS else planned_steps(now, run)
    start_over = f"start another run of {steps} steps with --output DIR"
    if steps is None or steps < 1 or (planned is not None and steps < planned):
        done = "as many as its epochs have" if planned is None else planned
        raise RunDirectoryError(
            f"{run.path}: {setting}: {steps or 'unknown'} steps, and the run has {done}: it can be made longer, not "
            f"shorter",
            hint=f"--set {STEPS}={(planned or 100) + 100}",
        )
    if scheduler not in EXTENSIBLE_SCHEDULERS:
        raise RunDirectoryError(
            f"{run.path}: {setting}: with grpo.lr_scheduler_type {scheduler} the learning rate follows from the number "
            f"of steps, so those that are done are not those of a run of {steps}",
            hint=f"{start_over} (--set model.adapter={shlex.quote(str(run.path))} begins it with what this one has "
            f"learnt); only {', '.join(EXTENSIBLE_SCHEDULERS)} can be made longer",
        )
    warmups = [_warmup(one, of) for one, of in ((before, planned), (now, steps))]
    if scheduler != "constant" and warmups[0] != warmups[1]:
        done = "fewer" if warmups[0] is None else warmups[0]
        raise RunDirectoryError(
            f"{run.path}: {setting}: grpo.warmup_steps {now.grpo.warmup_steps:g} is a fraction of all steps, "
            f"{warmups[1]} of {steps}, and this run has warmed up in {done}",
            hint=f"{start_over}, or continue this one with its own warm-up: --set grpo.warmup_steps={warmups[0]}"
            if warmups[0]
            else start_over,
        )


def planned_steps(config: RunConfig, run: RunDirectory) -> int | None:
    """Optimizer steps of the run with this configuration; None if they depend on epochs and no data is prepared."""
    if config.grpo.max_steps > 0:
        return config.grpo.max_steps
    try:
        problems = int(read_json(run.prepared)["train"])
    except (RunDirectoryError, KeyError, TypeError, ValueError):
        return None
    # TRL 1.16 leaves out what fills no whole step (`RepeatSampler`).
    per_epoch = max(1, problems // config.grpo.prompts_per_step * config.grpo.num_iterations)
    return math.ceil(config.grpo.num_train_epochs * per_epoch)


def asks_for_more(config: RunConfig, run: RunDirectory) -> bool:
    """Whether the configuration differs from that of the run in how long it trains."""
    before = load_config(run.started if run.started.exists() else run.config)
    return any(name in (*LENGTHS, TIME) for name, _, _ in config_differences(before, config))


def _has_more_time(before: RunConfig, now: RunConfig, run: RunDirectory) -> bool:
    """Whether grpo.max_time ended the run, and the new one lets it continue."""
    checkpoint, limit = newest_sealed(run.checkpoints), now.grpo.max_time
    if before.grpo.max_time == limit or checkpoint is None or not run.adapter.exists():
        return False
    steps = planned_steps(now, run)
    unfinished = steps is None or step_of(checkpoint) < steps
    return unfinished and (limit is None or trained_seconds(checkpoint) < seconds_of(limit))


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


MACHINE_SETTINGS = ("cluster.", "distributed.num_processes", "distributed.max_per_device_train_batch_size")
"""Settings that may change between attempts: they say where a run computes, not what."""
WRITTEN = (*RENDERED, STARTED_FILE, DIGEST_FILE)
"""All files that opening a run may write."""
SERVER_SETTINGS = ("rollout.replicas", "rollout.nodes", "rollout.tensor_parallel_size", "rollout.timeouts.")


def create_or_resume(
    config: RunConfig,
    plan: LaunchPlan,
    run: RunDirectory,
    *,
    resume_command: str,
    rendered: Mapping[str, str] | None = None,
) -> None:
    """Create the run directory, or render the files of an existing run for the machines it has now.

    Args:
        resume_command: what to type to continue the run in the directory.
        rendered: what `render_files` gives for this configuration and plan, if that is known already.

    Raises:
        RunDirectoryError: the directory holds a run of another configuration, or another process holds the run.
        PlanError: its state cannot be continued on this number of processes.
    """
    files = {**(render_files(config, plan) if rendered is None else rendered), **started_files(config)}
    if not run.exists():
        run.create(files)
        return
    with run.locked():
        longer = _check_same_run(config, run, resume_command)
        _check_process_count(plan, run)
        if longer:
            archive_results(run)
        _replace(run, files)


def started_files(config: RunConfig) -> dict[str, str]:
    """Name → text of the files that record what a run is trained with."""
    text = dump_config(config)
    digest = sha256(text.encode()).hexdigest()
    return {STARTED_FILE: text, DIGEST_FILE: f"{digest}  {STARTED_FILE}\n"}


def check_as_started(run: RunDirectory) -> None:
    """Check that nobody has changed `config.yaml` since the run was started, but for the machines.

    Raises:
        ConfigError: a configuration is damaged.
        RunDirectoryError: it was changed; the message lists the differences.
    """
    if differences := _edited(run):
        raise RunDirectoryError(
            f"{run.config} was edited after the run was started:\n{listed_differences(differences, 'in the run')}",
            hint=f"take it back: cp {shlex.quote(str(run.started))} {shlex.quote(str(run.config))}; "
            f"or start another run with it: --output DIR",
        )


def _edited(run: RunDirectory) -> list[Difference]:
    if not run.started.exists() or run.started.read_bytes() == run.config.read_bytes():
        return []
    found = config_differences(load_config(run.started), load_config(run.config))
    return [difference for difference in found if not _may_change(difference)]


def _replace(run: RunDirectory, files: Mapping[str, str]) -> None:
    for name in WRITTEN:
        path = run.path / name
        if name not in files:
            path.unlink(missing_ok=True)
        elif name == CONFIG_FILE or not path.exists() or read_text(path) != files[name]:
            write_atomically(path, files[name], mode_of(name, files[name]))


def _check_same_run(config: RunConfig, run: RunDirectory, resume_command: str) -> bool:
    """Check that the configuration is that of the run. Returns whether it only has more steps.

    Raises:
        RunDirectoryError: it differs otherwise.
    """
    edited = _edited(run)
    if edited and config_differences(load_config(run.config), config):
        check_as_started(run)
    before = load_config(run.started if run.started.exists() else run.config)
    differences = [found for found in config_differences(before, config) if not _may_change(found)]
    longer = any(name in LENGTHS for name, _, _ in differences)
    # The same warm-up may be given as a fraction of the earlier steps, and now as a number of steps.
    others = [found for found in differences if found[0] not in ((*LENGTHS, "grpo.warmup_steps") if longer else ())]
    if longer and not others:
        check_longer(before, config, run)
    elif differences:
        listed = listed_differences(differences, "in the run")
        raise RunDirectoryError(
            f"{run.path}: the run was started with another configuration:\n{listed}",
            hint=f"resume with what it was started with ({resume_command}), or start another run with --output DIR",
        )
    return longer or _has_more_time(before, config, run)


def _may_change(difference: Difference) -> bool:
    return difference[0] == TIME or difference[0].startswith((*MACHINE_SETTINGS, *SERVER_SETTINGS))


def _check_process_count(plan: LaunchPlan, run: RunDirectory) -> None:
    """Refuse another number of processes for ZeRO and FSDP, which save the optimizer in one shard for each process."""
    if plan.strategy == "ddp" or (checkpoint := newest_complete(run.checkpoints)) is None:  # which is read whole
        return
    before = read_plan(run)
    was, now = before.topology.num_processes, plan.topology.num_processes
    if was == now:
        return
    raise PlanError(
        f"{run.path}: the optimizer of step {step_of(checkpoint)} is in {was} parts, one for each process of "
        f"distributed.strategy {plan.strategy}; {now} processes cannot take it up",
        hint=f"continue on {before.topology.nodes} nodes × {before.topology.gpus_per_node} GPUs, "
        f"or start a new run with --output DIR",
    )
