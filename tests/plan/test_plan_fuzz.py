"""Whatever is stated: a plan that keeps its promises, or a refusal in words."""

from __future__ import annotations

from pathlib import Path

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planning import STATED, with_data
from pydantic import ValidationError

from grpo_dist.config import RunConfig, load_config
from grpo_dist.config.messages import all_settings
from grpo_dist.errors import ConfigError, PlanError
from grpo_dist.plan import LaunchPlan, plan_run

fuzzed = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@fuzzed
@given(STATED)
def test_a_plan_or_a_refusal(stated):
    try:
        config = RunConfig.model_validate(with_data(stated))
    except ValidationError:
        return
    try:
        plan = plan_run(config)
    except PlanError as refused:
        assert refused.message.strip()
        assert refused.hint, refused.message
        return
    check(config, plan)


def check(config: RunConfig, plan: LaunchPlan) -> None:
    batch, where, grpo = plan.batch, plan.topology, config.grpo
    assert LaunchPlan.from_json(plan.to_json()) == plan
    share = batch.per_device_train_batch_size * batch.gradient_accumulation_steps
    assert share * batch.num_processes == grpo.prompts_per_step * grpo.num_generations == batch.generation_batch_size
    assert batch.num_processes == where.num_processes
    assert batch.per_device_train_batch_size <= config.distributed.max_per_device_train_batch_size
    assert batch.per_device_eval_batch_size * batch.num_processes % batch.num_generations == 0
    assert plan.save_steps % grpo.num_iterations == 0
    for role in (plan.memory or {}).get("roles", {}).values():
        assert role["headroom_bytes"] is None or role["headroom_bytes"] >= 0
        assert sum(part["bytes"] for part in role["components"]) == role["total_bytes"]
    if plan.time is not None:
        assert plan.time["seconds_per_step"] > 0


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.sampled_from(all_settings()),
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text(max_size=6)
            | st.just("auto")
            | st.just([]),
        ),
        max_size=4,
    )
)
def test_from_a_file(tmp_path_factory, assigned):
    """Settings of any kind beside sound ones, through the loader."""
    tree = {
        "model": {"name_or_path": "embedded"},
        "data": {"name_or_path": "embedded"},
        "cluster": {"gpus_per_node": 2},
    }
    for path, value in assigned:
        inside = tree
        for key in path[:-1]:
            inside = inside.setdefault(key, {}) if isinstance(inside, dict) else {}
        if isinstance(inside, dict):
            inside[path[-1]] = value
    file = Path(tmp_path_factory.getbasetemp()) / "fuzz.yaml"
    file.write_bytes(yaml.safe_dump(tree).encode())
    try:
        config = load_config(file)
        check(config, plan_run(config))
    except ConfigError as refused:
        assert str(refused).strip()
