"""The debug run: what this machine has, a run directory of its own, the usual stages and one more."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

from grpo_dist.config import RunConfig
from grpo_dist.config.base import EMBEDDED
from grpo_dist.doctor.devices import seen_by_torch
from grpo_dist.doctor.hub import cached_snapshot, missing_files, obstacle_of
from grpo_dist.errors import LaunchError, ModelError, RolloutError, RunDirectoryError
from grpo_dist.findings import Finding, any_error
from grpo_dist.launch.checks import check_backend, check_packages, check_reward_settings
from grpo_dist.launch.forks import can_fork
from grpo_dist.launch.local import run_stages
from grpo_dist.launch.stages import QUIET, Stage, launch_command, stage_command, stages
from grpo_dist.plan import LaunchPlan, plan_run
from grpo_dist.plan.debug import Debug, DebugMachine, scaled_down
from grpo_dist.progress import Terminal
from grpo_dist.render.files import render_files
from grpo_dist.run import metrics
from grpo_dist.run.directory import RunDirectory, read_json, write_json
from grpo_dist.text import gib

MOST_CUT = 0.05
"""Share of completions cut at the length limit from which on it is a warning."""
MOST_EQUAL = 0.5
"""Share of groups with equal rewards, which teach nothing, from which on it is a warning."""
SAMPLE = "where the model fits, ask it: grpo-dist rewards CONFIG --set rewards.preflight_samples=16"
BAND = "grpo-dist filter CONFIG --output band.jsonl keeps problems that are sometimes solved; or more num_generations"


def plan_findings(plan: LaunchPlan) -> Iterator[Finding]:
    """The planner's warnings about the cluster, and the planned topology."""
    for warning in plan.warnings:
        yield Finding("plan", "warning", warning, "grpo-dist plan CONFIG")
    where = plan.topology
    what = f"{where.nodes} × {where.gpus_per_node} GPUs, {where.num_processes} training processes"
    yield Finding("plan", "ok", f"{where.num_processes} processes on CPU" if where.on_cpu else what)


def reward_findings(report: Mapping[str, Any] | None) -> Iterator[Finding]:
    """The findings of the reward preflight, unchanged."""
    if report is not None:
        found = [Finding(**finding) for finding in report["findings"]]
        yield from found or [Finding("rewards", "ok", "their preflight finds nothing against them")]


def step_findings(config: RunConfig, debug: Debug, steps: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Findings about the trained steps.

    Args:
        config: the configuration for the cluster.
        steps: lines of metrics.jsonl.
    """
    if not steps:
        return
    broken = [step["step"] for step in steps if step.get("loss") is None or step.get("grad_norm") is None]
    if broken:
        what = f"loss or gradient of step {broken[0]} is no finite number"
        yield Finding("loss", "error", what, "--set model.dtype=bfloat16, or a lower grpo.learning_rate")
    else:
        yield Finding("loss", "ok", f"loss and gradient are finite in {len(steps)} steps")
    yield _truncation(config, debug, _mean(steps, "completions/clipped_ratio"))
    yield _zero_variance(debug, _mean(steps, "frac_reward_zero_std"))


def _mean(steps: Sequence[Mapping[str, Any]], name: str) -> float:
    return fmean(step.get(name) or 0.0 for step in steps)


def _truncation(config: RunConfig, debug: Debug, share: float) -> Finding:
    name = "truncation"
    limit, cluster_limit = debug.config.grpo.max_completion_length, config.grpo.max_completion_length
    if debug.small:
        what = f"not known: random weights end by chance, {share:.0%} of completions not within {limit:,} tokens"
        return Finding(name, "warning", what, SAMPLE)
    what = f"{share:.0%} of completions are cut at {limit:,} tokens"
    if share <= MOST_CUT:
        return Finding(name, "ok", what)
    if limit < cluster_limit:
        what += f"; whether {cluster_limit:,} are enough this trial is too short to say"
        return Finding(name, "warning", what, SAMPLE)
    what += "; an answer after the cut cannot be paid"
    return Finding(name, "warning", what, f"--set grpo.max_completion_length={2 * limit}")


def _zero_variance(debug: Debug, share: float) -> Finding:
    name = "zero-variance"
    if debug.small:
        what = f"not known: with random weights {share:.0%} of groups have identical rewards"
        return Finding(name, "warning", what, SAMPLE)
    what = f"{share:.0%} of groups have identical rewards and teach nothing"
    return Finding(name, "warning", what, BAND) if share > MOST_EQUAL else Finding(name, "ok", what)


def longest_batch_findings(debug: Debug, planned: LaunchPlan, longest: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Findings about the step with the longest prompts and full completions.

    Args:
        planned: the plan for the cluster.
    """
    if longest is None:
        return
    name = "longest-batch"
    what = (
        f"one step of {longest['completions']} completions of {longest['completion_tokens']:,.0f} tokens "
        f"on prompts of up to {longest['prompt_tokens']:,} went through"
    )
    peak, planned_bytes = longest["peak_bytes"], _trainer_bytes(debug.plan)
    if peak is None:
        yield Finding(name, "ok", f"{what}; a CPU does not show a GPU's memory{_cluster_memory(planned)}")
    elif debug.small or planned_bytes is None:
        yield Finding(
            name, "ok", f"{what}; peak {gib(peak)}, which says nothing of the large model{_cluster_memory(planned)}"
        )
    elif peak <= planned_bytes:
        yield Finding(name, "ok", f"{what}; peak {gib(peak)}, planned {gib(planned_bytes)}")
    else:
        smaller = max(1, planned.batch.per_device_train_batch_size // 2)
        hint = f"leave more room: --set distributed.max_per_device_train_batch_size={smaller}"
        what = f"{what}; peak {gib(peak)}, more than the {gib(planned_bytes)} planned{_cluster_memory(planned)}"
        yield Finding(name, "warning", what, hint)


def _cluster_memory(plan: LaunchPlan) -> str:
    planned = _trainer_bytes(plan)
    if planned is None or not plan.memory["gpu_bytes"]:
        return ""
    room = plan.memory["gpu_bytes"]
    return f"; the cluster's plan counts {gib(planned)} of {gib(room)} for a trainer (grpo-dist plan CONFIG)"


def _trainer_bytes(plan: LaunchPlan) -> int | None:
    """The most memory that a role that trains uses on a GPU."""
    if plan.memory is None:
        return None
    roles = plan.memory["roles"]
    return roles["trainer"]["total_bytes"] if "trainer" in roles else max(r["total_bytes"] for r in roles.values())


TOKENIZER = "tokenizer.json"
"""As `missing_files` names a missing tokenizer."""


def this_machine(config: RunConfig, environ: Mapping[str, str]) -> DebugMachine:
    """The first GPU or the memory of this machine, and whether it can load the model of a configuration.

    Raises:
        LaunchError: PyTorch is missing or cannot be imported.
        ModelError: not even the tokenizer can be loaded.
    """
    seen = seen_by_torch(environ)
    if seen is None or isinstance(seen, Finding):
        what, hint = (seen.what, seen.hint) if seen else ("PyTorch is not installed", "pip install 'grpo-dist[train]'")
        raise LaunchError(what, hint=hint)
    lacks = _lacks_model(config, environ)
    vllm = find_spec("vllm") is not None
    if not seen["gpus"]:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return DebugMachine(None, memory, vllm=vllm, lacks_model=lacks)
    first = seen["gpus"][0]
    return DebugMachine(first["name"], first["total"], seen["bfloat16"], vllm, lacks)


def _lacks_model(config: RunConfig, environ: Mapping[str, str]) -> str | None:
    name = config.model.name_or_path
    if name == EMBEDDED:
        return None
    local = Path(name).expanduser()
    place = local if local.is_dir() else cached_snapshot(environ, name, config.model.revision)
    missing = missing_files(place) if place else ["everything"]
    if not missing:
        return None
    if place == local:
        obstacle = f"{name} lacks {', '.join(missing[:3])}"
    else:
        obstacle = obstacle_of(environ, "models", name)
        if obstacle is None:
            return None
        obstacle = f"it is not whole in the cache, and the Hub does not help: {obstacle}"
    if place is None or TOKENIZER in missing:
        raise ModelError(
            f"model.name_or_path: neither {name} nor its tokenizer can be had here: {obstacle}",
            hint=f"where there is a network: grpo-dist prefetch CONFIG, or for a trial with random weights "
            f"hf download {name} config.json tokenizer.json tokenizer_config.json; or --set model.name_or_path=PATH",
        )
    return obstacle


def open_debug(config: RunConfig, path: Path) -> tuple[RunDirectory, Debug]:
    """Scale the configuration down to this machine, and create the run directory in place of an earlier debug run.

    Raises:
        ConfigError: the configuration cannot run on its cluster, or Unsloth is asked for and not installed here.
        LaunchError: training is not installed here.
        ModelError: not even the tokenizer of the model can be loaded.
        RunDirectoryError: the directory holds a real run, or the earlier debug run is still active.
    """
    check_reward_settings(config)
    check_packages(())
    run = RunDirectory(path.absolute())
    _check_free(run)
    debug = scaled_down(config, this_machine(config, os.environ), str(run.model))
    check_backend(debug.config)
    if run.exists():
        shutil.rmtree(run.path)
    run.create({**render_files(debug.config, debug.plan), run.debug.name: json.dumps(_record(config, debug))})
    return run, debug


def debug(config: RunConfig, run: RunDirectory, made: Debug, terminal: Terminal) -> list[Finding]:
    """Run the stages as far as they go. Returns the findings, and writes them to the run directory.

    Raises:
        Interrupted: a signal ended it.
    """
    env, failure = {**os.environ, **QUIET}, None
    try:
        retry = "run the same command again"
        forked = can_fork(made.plan, made.config)
        run_stages(run, made.plan, _stages(run, made), env=env, terminal=terminal, retry=retry, forked=forked)
    except (LaunchError, RolloutError) as error:
        failure = error
    found = list(_findings(config, run, made))
    reported = any_error(found) and not run.prepared.exists()  # the reward preflight failed, and is a finding already
    if failure is not None and not reported:
        found.append(Finding("run", "error", failure.message, failure.hint))
    write_json(run.debug, {**_record(config, made), "findings": [finding.to_dict() for finding in found]})
    return found


def _check_free(run: RunDirectory) -> None:
    """Check that the directory is free or holds a debug run that has ended: nothing else may be replaced."""
    if not run.exists():
        return
    if not run.debug.exists():
        raise RunDirectoryError(
            f"{run.path}: there is a run already, and it is no debug run",
            hint="choose another place for this one with --output DIR",
        )
    with run.locked():
        pass


def _stages(run: RunDirectory, made: Debug) -> list[Stage]:
    found = stages(run, made.plan, made.config)
    if made.small:
        found.insert(0, Stage("small-model", stage_command("small-model", run), run.model, alone=True, generates=False))
    argv = launch_command("longest-batch", run, made.plan)
    return [*found, Stage("longest-batch", argv, run.longest_batch, alone=True, generates=False)]


def _findings(config: RunConfig, run: RunDirectory, made: Debug) -> Iterator[Finding]:
    planned = plan_run(config)
    yield from plan_findings(planned)
    yield from reward_findings(_json(run.rewards_preflight))
    yield from step_findings(config, made, metrics.read(run.metrics))
    yield from longest_batch_findings(made, planned, _json(run.longest_batch))


def _record(config: RunConfig, made: Debug) -> dict[str, Any]:
    """The content of `debug.json` without the findings."""
    return {
        "model": {"name_or_path": config.model.name_or_path, "revision": config.model.revision},
        "changes": [change._asdict() for change in made.changes],
        "remains": list(made.remains),
    }


def _json(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.exists() else None
