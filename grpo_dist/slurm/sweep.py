"""A sweep: one run for each combination of values, all in one job array."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from grpo_dist.config import load_config
from grpo_dist.config.cluster import SiteSection
from grpo_dist.errors import ConfigError, PlanError, RunDirectoryError
from grpo_dist.launch.open import started_files
from grpo_dist.render.slurm import comparison_script
from grpo_dist.report.record import SWEEP_FILE
from grpo_dist.run.directory import RunDirectory
from grpo_dist.slurm import client
from grpo_dist.slurm.status import read_job, write_job
from grpo_dist.slurm.submit import (
    PlannedRun,
    cancelled_on_failure,
    check_mounts,
    created,
    planned,
    submit_lock,
)

ARRAY_FILE, COMPARE_FILE = "array.sh", "compare.sh"
LONGEST_NAME = 80
OWN_OPTIONS = ("--job-name", "--output")
"""Options that differ between the scripts of the runs; the array sets its own."""


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    name: str
    """Name of its directory in that of the sweep."""
    settings: tuple[str, ...]
    """The varied settings with their values, as given to --set."""
    planned: PlannedRun


def sweep_runs(config: str, overrides: Sequence[str], site: SiteSection | None) -> list[SweepRun]:
    """All runs of a sweep, planned.

    Raises:
        ConfigError: an override is malformed, or some runs cannot run; the message names all of them.
    """
    choices = [_choices(override) for override in overrides]
    varied = [len(choice) > 1 for choice in choices]
    combinations = list(product(*choices))
    width = len(str(len(combinations) - 1))
    found, refused = [], []
    for index, combination in enumerate(combinations):
        settings = tuple(setting for setting, varies in zip(combination, varied, strict=True) if varies)
        name = _name(f"{index:0{width}}", settings)
        try:
            found.append(SweepRun(name, settings, planned(load_config(config, combination, site))))
        except ConfigError as error:
            refused.append(f"{' '.join(settings) or config}: {error}")
    if refused:
        what = f"{len(refused)} of {len(combinations)} runs of this sweep cannot run; none is submitted"
        raise ConfigError("\n".join([what, *refused]), hint="fix these, or leave their values out")
    return found


def array_script(found: Sequence[SweepRun]) -> str:
    """The script of the job array: the common options, and the directory of each task.

    Raises:
        PlanError: the runs need different options.
    """
    options = _common_options(found)
    names = "\n".join(f"  {run.name}" for run in found)
    return f"""#!/usr/bin/env bash
{options}
#
# Written by `grpo-dist sweep`. Task N of the array is the run in the Nth directory, done by that run's own script.
set -euo pipefail
runs=(
{names}
)
cd -- "${{runs[SLURM_ARRAY_TASK_ID]}}"
exec >>"slurm-${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID.out" 2>&1
exec bash job.sh
"""


def submit_sweep(path: Path, config: str, found: Sequence[SweepRun], throttle: int | None) -> str:
    """Create the directories of all runs, queue them as one array, and return its job id.

    If Slurm refuses, everything is removed again. At most `throttle` runs run at a time.

    Raises:
        RunDirectoryError: the directory exists already.
        PlanError: as `array_script`.
        SlurmError: there is no Slurm, or it refuses the array.
    """
    sweep = RunDirectory(path.absolute())
    check_mounts(sweep, found[0].planned)
    if sweep.path.exists():
        job = read_job(sweep)
        raise RunDirectoryError(
            f"{path}: already exists{f', submitted as job {job.job_id}' if job else ''}",
            hint="start another sweep with --output DIR; one run of a sweep is continued with "
            "grpo-dist submit RUN/config.yaml --output RUN --resume",
        )
    with created(sweep, _files(config, found)), submit_lock(sweep):
        limit = f"%{throttle}" if throttle else ""
        options = [f"--array=0-{len(found) - 1}{limit}", f"--job-name={_job_name(path)}", "--output=array-%A_%a.out"]
        job_id = client.submit(sweep.path / ARRAY_FILE, sweep.path, options)
        with cancelled_on_failure(job_id):
            # The output of a task goes to its run; Slurm knows only that of the array.
            fields = client.show_job(job_id) | {"StdOut": ""}
            for index, run in enumerate(found):
                write_job(RunDirectory(sweep.path / run.name), f"{job_id}_{index}", fields)
            write_job(sweep, job_id, fields)
    return job_id


def submit_comparison(path: Path, job_id: str) -> str:
    """Queue the comparison of a sweep's runs, to start when the array has ended, and return its job id.

    Raises:
        SlurmError: Slurm refuses it.
    """
    sweep = path.absolute()
    options = [f"--dependency=afterany:{job_id}", f"--job-name={_job_name(path)}-compare"]
    return client.submit(sweep / COMPARE_FILE, sweep, options)


def split_values(text: str) -> list[str]:
    """Split `8,16,[a, b],"c,d"` at the commas that are not in brackets or quotes."""
    values, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and (depth or not values[-1].strip()):
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == "," and depth <= 0:
            values.append("")
            continue
        values[-1] += character
    return [value.strip() for value in values]


def _choices(override: str) -> list[str]:
    name, equals, text = override.partition("=")
    if not equals:
        return [override]
    values = split_values(text)
    if "" in values and len(values) > 1:
        raise ConfigError(f"--set {override}: a value is missing between two commas", hint=f"--set {name}=1,2,3")
    if repeated := next((value for value in values if values.count(value) > 1), None):
        raise ConfigError(f"--set {override}: {repeated} is there twice", hint="remove one")
    return [f"{name}={value}" for value in values]


def _name(index: str, settings: Sequence[str]) -> str:
    """`03-num_generations-8-learning_rate-1e-5`."""
    words = [setting.partition("=")[0].rpartition(".")[2] + "-" + setting.partition("=")[2] for setting in settings]
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join([index, *words]))
    return plain[:LONGEST_NAME].rstrip("-.")


def _job_name(path: Path) -> str:
    return "grpo-" + re.sub(r"[^A-Za-z0-9._-]+", "-", path.absolute().name)


def _files(config: str, found: Sequence[SweepRun]) -> dict[str, str]:
    """All files of a sweep: path in its directory → text."""
    listed = {
        "config": config,
        "members": [
            {"name": run.name, "settings": dict(setting.split("=", 1) for setting in run.settings)} for run in found
        ],
    }
    return {
        SWEEP_FILE: json.dumps(listed, indent=2, ensure_ascii=False) + "\n",
        ARRAY_FILE: array_script(found),
        COMPARE_FILE: comparison_script(found[0].planned.config),
        **{f"{run.name}/{name}": text for run in found for name, text in _files_of(run).items()},
    }


def _files_of(run: SweepRun) -> dict[str, str]:
    return {**run.planned.files, **started_files(run.planned.config)}


def _common_options(found: Sequence[SweepRun]) -> str:
    first, *others = found
    common = list(_options(first))
    if "#SBATCH hetjob" in common:
        raise PlanError(
            "a heterogeneous job cannot be a job array", hint="submit its runs one by one: grpo-dist submit"
        )
    for run in others:
        if differing := set(common) ^ set(_options(run)):
            listed = ", ".join(sorted(line.removeprefix("#SBATCH ") for line in differing))
            raise PlanError(
                f"the tasks of a job array ask Slurm for the same, and {first.name} and {run.name} do not: {listed}",
                hint="submit runs of different sizes one by one: grpo-dist submit CONFIG --set … --output DIR",
            )
    return "\n".join(common)


def _options(run: SweepRun) -> Iterator[str]:
    for line in run.planned.script.splitlines():
        if line.startswith("#SBATCH ") and not re.match(rf"#SBATCH '?({'|'.join(OWN_OPTIONS)})=", line):
            yield line
