"""The planner accepts what TRL's `GRPOConfig` accepts, with the same numbers: installed TRL and oldest supported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from planning import COLOCATE, SERVER, cluster, config

from grpo_dist.errors import PlanError
from grpo_dist.plan import plan_run

CASES = 300
FOLDER = Path(__file__).parent
OLDEST = "1.15.0"
"""Of the range in setup.cfg."""


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


@pytest.fixture(scope="module")
def planned() -> list[dict[str, Any]]:
    random = Random(3407)
    found = [case for case in (accepted(random_sections(random)) for _ in range(2 * CASES)) if case]
    assert len(found) >= CASES
    return found


@pytest.fixture(scope="module")
def impossible() -> list[dict[str, Any]]:
    random = Random(3407)
    return [refused(random) for _ in range(CASES // 3)]


@pytest.fixture
def oldest(tmp_path: Path, missing: Callable[[str], None]) -> Path:
    """The oldest TRL that is supported, in a directory of its own; the packages it needs are the installed ones."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path)]
    done = subprocess.run([*command, f"trl=={OLDEST}"], capture_output=True, text=True)
    if done.returncode:
        missing(f"TRL {OLDEST} cannot be installed: {done.stderr.strip()[-300:]}")
    return tmp_path


def verdicts(cases: list[dict[str, Any]], path: Path | None) -> list[dict[str, Any]]:
    """What TRL says to each: the one in a directory, or the installed one."""
    env = dict(os.environ) if path is None else {**os.environ, "PYTHONPATH": str(path)}
    asked = json.dumps([{"world_size": case["world_size"], "arguments": case["arguments"]} for case in cases])
    done = subprocess.run(
        [sys.executable, str(FOLDER / "trl_contract.py")], input=asked, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert path is None or (answer["version"] == OLDEST and Path(answer["file"]).is_relative_to(path))
    return answer["verdicts"]


def check(planned: list[dict[str, Any]], impossible: list[dict[str, Any]], path: Path | None = None) -> None:
    found = verdicts([*planned, *impossible], path)
    for case, verdict in zip(planned, found, strict=False):
        assert verdict == case["derived"], case
    assert all("refused" in verdict for verdict in found[len(planned) :])


@pytest.mark.heavy
def test_trl_derives_what_was_planned_and_refuses_what_was_refused(planned, impossible):
    check(planned, impossible)


@pytest.mark.heavy
def test_so_does_the_oldest_trl(planned, impossible, oldest):
    check(planned, impossible, oldest)
