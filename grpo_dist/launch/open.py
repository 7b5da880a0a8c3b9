"""Creating a run directory, or resuming the run in it, possibly on other machines."""

from __future__ import annotations

from collections.abc import Sequence

from grpo_dist.config import RunConfig, config_differences, load_config
from grpo_dist.config.load import Difference
from grpo_dist.errors import PlanError, RunDirectoryError
from grpo_dist.launch.longer import STEPS, archive_results, check_longer
from grpo_dist.plan import LaunchPlan
from grpo_dist.render.files import RENDERED, render_files
from grpo_dist.render.slurm import CONFIG_FILE
from grpo_dist.run.checkpoints import newest_complete, step_of
from grpo_dist.run.directory import RunDirectory, write_atomically

MACHINE_SETTINGS = ("cluster.", "distributed.num_processes", "distributed.max_per_device_train_batch_size")
"""Settings that may change between attempts: they say where a run computes, not what."""
SERVER_SETTINGS = ("rollout.replicas", "rollout.nodes", "rollout.tensor_parallel_size", "rollout.timeouts.")


def create_or_resume(config: RunConfig, plan: LaunchPlan, run: RunDirectory, *, resume_command: str) -> None:
    """Create the run directory, or render the files of an existing run for the machines it has now.

    Args:
        resume_command: what to type to continue the run in the directory.

    Raises:
        RunDirectoryError: the directory holds a run of another configuration, or another process holds the run.
        PlanError: its state cannot be continued on this number of processes.
    """
    if not run.exists():
        run.create(render_files(config, plan))
        return
    with run.locked():
        longer = _check_same_run(config, run, resume_command)
        _check_process_count(plan, run)
        if longer:
            archive_results(run)
        _render(config, plan, run)


def _render(config: RunConfig, plan: LaunchPlan, run: RunDirectory) -> None:
    files = render_files(config, plan)
    for name in RENDERED:
        path = run.path / name
        if name not in files:
            path.unlink(missing_ok=True)
        elif name == CONFIG_FILE or not path.exists() or path.read_text(encoding="utf-8") != files[name]:
            write_atomically(path, files[name])


def _check_same_run(config: RunConfig, run: RunDirectory, resume_command: str) -> bool:
    """Check that the configuration is that of the run. Returns whether it only has more steps.

    Raises:
        RunDirectoryError: it differs otherwise.
    """
    before = load_config(run.config)
    differences = [found for found in config_differences(before, config) if not _may_change(found)]
    longer = any(name == STEPS for name, _, _ in differences)
    # The same warm-up may be given as a fraction of the earlier steps, and now as a number of steps.
    others = [found for found in differences if found[0] not in ((STEPS, "grpo.warmup_steps") if longer else ())]
    if longer and not others:
        check_longer(before, config, run)
    elif differences:
        raise RunDirectoryError(
            f"{run.path}: the run was started with another configuration:\n{_listed(differences)}",
            hint=f"resume with what it was started with ({resume_command}), or start another run with --output DIR",
        )
    return longer


def _may_change(difference: Difference) -> bool:
    return difference[0].startswith((*MACHINE_SETTINGS, *SERVER_SETTINGS))


def _listed(differences: Sequence[Difference]) -> str:
    return "\n".join(f"  {name}: {before!r} in the run, {now!r} now" for name, before, now in differences)


def _check_process_count(plan: LaunchPlan, run: RunDirectory) -> None:
    """Refuse another number of processes for ZeRO and FSDP, which save the optimizer in one shard for each process."""
    checkpoint = newest_complete(run.checkpoints)
    before = LaunchPlan.from_json(run.plan.read_text(encoding="utf-8"))
    was, now = before.topology.num_processes, plan.topology.num_processes
    if checkpoint is None or plan.strategy == "ddp" or was == now:
        return
    raise PlanError(
        f"{run.path}: the optimizer of step {step_of(checkpoint)} lies in {was} parts, one for each process of "
        f"distributed.strategy {plan.strategy}; {now} processes cannot take it up",
        hint=f"continue on {before.topology.nodes} nodes × {before.topology.gpus_per_node} GPUs, "
        f"or start a new run with --output DIR",
    )
