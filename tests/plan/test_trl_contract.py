"""The planner accepts what TRL's `GRPOConfig` accepts, with the same numbers, on every TRL there is here.

The installed one, and those unpacked in the directories of GRPO_DIST_TRL_PATHS (separated by colons):
`pip download trl==1.15.0 --no-deps && unzip -d trl-1.15 trl-1.15.0-*.whl`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from planning import COLOCATE, SERVER, cluster, config

from grpo_dist.errors import PlanError
from grpo_dist.plan import plan_run

CASES = 300
FOLDER = Path(__file__).parent
PATHS = ["", *filter(None, os.environ.get("GRPO_DIST_TRL_PATHS", "").split(":"))]


def random_sections(random: Random) -> dict[str, Any]:
    nodes, gpus = random.choice([1, 1, 2, 3, 4, 16]), random.choice([0, 1, 2, 4, 6, 7, 8])
    rollouts = [{}] if gpus == 0 else [{}, COLOCATE, SERVER, {**SERVER, "nodes": 1}, {**SERVER, "nodes": 0}]
    return {
        "model": random.choice(["embedded", "unknown/model"]),
        "data": {"max_prompt_length": 100},
        "cluster": cluster(nodes, gpus),
        "rollout": random.choice(rollouts),
        "distributed": {"max_per_device_train_batch_size": random.choice([1, 3, 8, 16, 64])},
        "grpo": {
            "prompts_per_step": random.choice([1, 2, 3, 6, 8, 12, 21, 48, 64, 100]),
            "num_generations": random.choice([2, 3, 4, 7, 8, 16, 64]),
            "num_iterations": random.choice([1, 2, 3]),
            "max_completion_length": 64,
        },
    }


def accepted(sections: dict[str, Any]) -> dict[str, Any] | None:
    """A planned batch as TRL is to be given it, evaluation included, and what it has to derive."""
    stated = config(**sections)
    try:
        batch = plan_run(stated).batch
    except PlanError:
        return None
    arguments = {
        **stated.grpo.trl_fields(),
        "per_device_train_batch_size": batch.per_device_train_batch_size,
        "gradient_accumulation_steps": batch.gradient_accumulation_steps,
        "steps_per_generation": batch.steps_per_generation,
        "per_device_eval_batch_size": batch.per_device_eval_batch_size,
        "bf16": False,
        "eval_strategy": "steps",
        "do_eval": True,
        "eval_steps": 1,
    }
    derived = {
        "generation_batch_size": batch.generation_batch_size,
        "steps_per_generation": batch.steps_per_generation,
        "num_generations": batch.num_generations,
    }
    return {"world_size": batch.num_processes, "arguments": arguments, "derived": derived}


def refused(random: Random) -> dict[str, Any]:
    """A step that does not divide over its processes, stated to TRL in whatever portions."""
    while True:
        prompts, group, processes = random.randint(1, 50), random.randint(2, 20), random.randint(2, 40)
        if prompts * group % processes:
            break
    sections = {"cluster": cluster(1, 0), "distributed": {"num_processes": processes}}
    with pytest.raises(PlanError, match="do not divide over"):
        plan_run(config("unknown/model", **sections, grpo={"prompts_per_step": prompts, "num_generations": group}))
    arguments = {
        "generation_batch_size": prompts * group,
        "num_generations": group,
        "per_device_train_batch_size": random.randint(1, 4),
        "bf16": False,
    }
    return {"world_size": processes, "arguments": arguments}


def verdicts(path: str, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    env = {**os.environ, "PYTHONPATH": path} if path else dict(os.environ)
    asked = json.dumps([{"world_size": case["world_size"], "arguments": case["arguments"]} for case in cases])
    done = subprocess.run(
        [sys.executable, str(FOLDER / "trl_contract.py")], input=asked, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["file"].startswith(path)
    return answer["verdicts"]


@pytest.mark.heavy
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path or "installed")
def test_trl_derives_what_was_planned_and_refuses_what_was_refused(path):
    random = Random(3407)
    planned = [case for case in (accepted(random_sections(random)) for _ in range(2 * CASES)) if case]
    assert len(planned) >= CASES
    for case, verdict in zip(planned, verdicts(path, planned), strict=True):
        assert verdict == case["derived"], case
    impossible = [refused(random) for _ in range(CASES // 3)]
    assert all("refused" in verdict for verdict in verdicts(path, impossible))
