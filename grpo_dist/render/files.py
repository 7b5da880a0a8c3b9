"""All the files of a run that are known before it starts."""

from __future__ import annotations

from grpo_dist.config import RunConfig, dump_config
from grpo_dist.plan import LaunchPlan
from grpo_dist.render.accelerate import ACCELERATE_FILE, DEEPSPEED_FILE, accelerate_yaml, is_deepspeed
from grpo_dist.render.deepspeed import deepspeed_json
from grpo_dist.render.slurm import CONFIG_FILE, job_script

PLAN_FILE, JOB_FILE = "plan.json", "job.sh"
RENDERED = (CONFIG_FILE, PLAN_FILE, ACCELERATE_FILE, DEEPSPEED_FILE, JOB_FILE)
"""Every name `render_files` may give; nothing else in a directory is its own."""


def render_files(config: RunConfig, plan: LaunchPlan) -> dict[str, str]:
    """Name → text of each file of this plan; the same input gives the same bytes.

    deepspeed.json is there for ZeRO only.

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
