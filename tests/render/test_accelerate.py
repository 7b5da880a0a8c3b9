from __future__ import annotations

import pytest
import yaml

from grpo_dist.config import RunConfig
from grpo_dist.plan import plan_run
from grpo_dist.render.accelerate import accelerate_yaml


def rendered(processes: int, gpus: int) -> dict:
    config = RunConfig.model_validate(
        {
            "model": {"name_or_path": "embedded"},
            "data": {"name_or_path": "embedded"},
            "cluster": {"gpus_per_node": gpus},
            "distributed": {"num_processes": processes},
        }
    )
    text = accelerate_yaml(plan_run(config))
    assert text == accelerate_yaml(plan_run(config))
    return yaml.safe_load(text)


@pytest.mark.parametrize(
    ("processes", "gpus", "distributed_type", "use_cpu"),
    [(1, 0, "NO", True), (2, 0, "MULTI_GPU", False), (1, 1, "NO", False), (4, 4, "MULTI_GPU", False)],
)
def test_never_the_type_that_falls_to_one_process(processes, gpus, distributed_type, use_cpu):
    settings = rendered(processes, gpus)
    assert settings["distributed_type"] == distributed_type
    assert settings["num_processes"] == processes
    assert settings["use_cpu"] is use_cpu


@pytest.mark.heavy
@pytest.mark.parametrize(("processes", "gpus"), [(1, 0), (2, 0), (1, 1), (4, 4)])
def test_accelerate_loads_what_is_written(processes, gpus, tmp_path):
    from accelerate.commands.config.config_args import load_config_from_file

    path = tmp_path / "accelerate.yaml"
    path.write_text(yaml.safe_dump(rendered(processes, gpus)))
    loaded = load_config_from_file(str(path))
    assert loaded.num_processes == processes
    assert loaded.main_process_port == 0
