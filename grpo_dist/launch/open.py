"""Making a run directory, or taking up the run that stands there, perhaps on other machines."""

from __future__ import annotations

from collections.abc import Sequence

from grpo_dist.config import RunConfig, config_differences, load_config
from grpo_dist.config.load import Difference
from grpo_dist.errors import PlanError, RunDirectoryError
from grpo_dist.launch.longer import STEPS, check_longer, put_aside
from grpo_dist.plan import LaunchPlan
from grpo_dist.render.files import RENDERED, render_files
from grpo_dist.render.slurm import CONFIG_FILE
from grpo_dist.run.checkpoints import newest_complete, step_of
from grpo_dist.run.directory import RunDirectory, write_atomically

OF_THE_MACHINES = ("cluster.", "distributed.num_processes", "distributed.max_per_device_train_batch_size")
"""Settings that may change between attempts: where a run is done, not what it computes."""
OF_THE_SERVERS = ("rollout.replicas", "rollout.nodes", "rollout.tensor_parallel_size", "rollout.timeouts.")


def create_or_resume(config: RunConfig, plan: LaunchPlan, run: RunDirectory, *, again: str) -> None:
    """Make the run directory, or render a started run's files for the machines it now has.

    Args:
        again: what to type to continue the run that stands there.

    Raises:
        RunDirectoryError: another configuration's run stands there, or another process holds it.
        PlanError: its state cannot be continued on this number of processes.
    """
    if not run.exists():
        run.create(render_files(config, plan))
        return
    with run.locked():
        longer = _check_same_run(config, run, again)
        _check_size(plan, run)
        if longer:
            put_aside(run)
        _render(config, plan, run)


def _render(config: RunConfig, plan: LaunchPlan, run: RunDirectory) -> None:
    files = render_files(config, plan)
    for name in RENDERED:
        path = run.path / name
        if name not in files:
            path.unlink(missing_ok=True)
        elif name == CONFIG_FILE or not path.exists() or path.read_text(encoding="utf-8") != files[name]:
            write_atomically(path, files[name])


def _check_same_run(config: RunConfig, run: RunDirectory, again: str) -> bool:
    """Whether it is the same but for having more steps."""
    before = load_config(run.config)
    differences = [found for found in config_differences(before, config) if not _of_machines(found)]
    longer = any(name == STEPS for name, _, _ in differences)
    # Of one warm-up there are two spellings: a fraction of the steps there were, and their number.
    others = [found for found in differences if found[0] not in ((STEPS, "grpo.warmup_steps") if longer else ())]
    if longer and not others:
        check_longer(before, config, run)
    elif differences:
        raise RunDirectoryError(
            f"{run.path}: the run was started with another configuration:\n{_listed(differences)}",
            hint=f"resume with what it was started with ({again}), or start another run with --output DIR",
        )
    return longer


def _of_machines(difference: Difference) -> bool:
    return difference[0].startswith((*OF_THE_MACHINES, *OF_THE_SERVERS))


def _listed(differences: Sequence[Difference]) -> str:
    return "\n".join(f"  {name}: {before!r} in the run, {now!r} now" for name, before, now in differences)


def _check_size(plan: LaunchPlan, run: RunDirectory) -> None:
    """ZeRO and FSDP write the optimizer in as many parts as there are processes; only DDP writes it whole."""
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
