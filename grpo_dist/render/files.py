"""All files of a run that are known before it starts, and how a directory differs from them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from grpo_dist.config import RunConfig, dump_config
from grpo_dist.plan import LaunchPlan
from grpo_dist.render.accelerate import ACCELERATE_FILE, DEEPSPEED_FILE, accelerate_yaml, deepspeed_json, is_deepspeed
from grpo_dist.render.slurm import job_script
from grpo_dist.run.directory import CONFIG_FILE, JOB_FILE, PLAN_FILE

RENDERED = (CONFIG_FILE, PLAN_FILE, ACCELERATE_FILE, DEEPSPEED_FILE, JOB_FILE)
"""All file names `render_files` may return; any other file in a directory is left alone."""


def render_files(config: RunConfig, plan: LaunchPlan) -> dict[str, str]:
    """Name → text of each file of this plan; the same input gives the same bytes.

    Only ZeRO strategies have a deepspeed.json.

    Raises:
        PlanError: an option of cluster.sbatch contradicts the plan.
    """
    files = {
        CONFIG_FILE: dump_config(config),
        PLAN_FILE: plan.to_json(),
        ACCELERATE_FILE: accelerate_yaml(plan),
        JOB_FILE: job_script(config, plan),
    }
    if is_deepspeed(plan):
        files[DEEPSPEED_FILE] = deepspeed_json(config, plan)
    return files


LINES_SHOWN = 20


@dataclass(frozen=True)
class Difference:
    """One file that is not as rendered."""

    name: str
    kind: Literal["missing", "stale", "extra"]
    lines: tuple[str, ...] = ()
    """For a stale file, where it differs: a unified diff, shortened."""


def differences(there: Mapping[str, str], rendered: Mapping[str, str]) -> list[Difference]:
    """Compare the files of a directory with the rendered ones (name → text), in the order of the names."""
    return [found for name in sorted({**there, **rendered}) for found in _difference(name, there, rendered)]


def _difference(name: str, there: Mapping[str, str], rendered: Mapping[str, str]) -> Iterator[Difference]:
    if name not in there:
        yield Difference(name, "missing")
    elif name not in rendered:
        yield Difference(name, "extra")
    elif there[name] != rendered[name]:
        yield Difference(name, "stale", tuple(_diff(there[name], rendered[name])))


def _diff(there: str, rendered: str) -> list[str]:
    lines = list(difflib.unified_diff(there.splitlines(), rendered.splitlines(), "there", "rendered", n=1, lineterm=""))
    if len(lines) <= LINES_SHOWN:
        return lines or ["(line ends differ)"]
    return [*lines[:LINES_SHOWN], f"… {len(lines) - LINES_SHOWN} lines more"]
