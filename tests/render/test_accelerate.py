from __future__ import annotations

import pytest
import yaml
from plans import LAYOUTS, layout, planned

from grpo_dist.render.accelerate import accelerate_yaml, launch_arguments


def rendered(name: str) -> dict:
    return yaml.safe_load(accelerate_yaml(layout(name)[1]))


@pytest.mark.parametrize(
    ("name", "distributed_type", "processes", "use_cpu"),
    [
        ("cpu", "NO", 1, True),
        ("two processes on CPU", "MULTI_GPU", 2, False),
        ("one GPU", "NO", 1, False),
        ("a node", "MULTI_GPU", 8, False),
        ("4 nodes, colocate", "MULTI_GPU", 32, False),
        ("zero2 on CPU", "DEEPSPEED", 2, False),
        ("zero3, 16 nodes", "DEEPSPEED", 128, False),
        ("fsdp2, 4 nodes", "FSDP", 32, False),
    ],
)
def test_never_the_type_that_falls_to_one_process(name, distributed_type, processes, use_cpu):
    settings = rendered(name)
    assert settings["distributed_type"] == distributed_type
    assert settings["num_processes"] == processes
    assert settings["use_cpu"] is use_cpu


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_plan_gives_the_same_text(name):
    assert accelerate_yaml(layout(name)[1]) == accelerate_yaml(layout(name)[1])


def test_one_node_takes_a_free_port_and_several_agree_on_one_at_launch():
    assert rendered("a node")["main_process_port"] == 0
    assert "main_process_port" not in rendered("fsdp2, 4 nodes")
    assert "--main_process_port" in accelerate_yaml(layout("fsdp2, 4 nodes")[1])


def test_only_training_gpus_are_seen_by_training():
    _, plan = layout("rollout GPUs")
    generating = {gpu for replica in plan.topology.replicas for gpu in replica.gpus}
    training = {int(gpu) for gpu in rendered("rollout GPUs")["gpu_ids"].split(",")}
    assert training and generating
    assert not training & generating
    assert rendered("a node")["gpu_ids"] == "all"


def test_deepspeed_keeps_its_settings_in_one_place():
    settings = rendered("zero3, 16 nodes")
    assert settings["deepspeed_config"] == {
        "deepspeed_config_file": "deepspeed.json",
        "deepspeed_multinode_launcher": "standard",
        "zero3_init_flag": True,
    }
    assert "mixed_precision" not in settings
    assert rendered("zero2 on CPU")["deepspeed_config"]["zero3_init_flag"] is False


def test_launch_arguments_name_the_files_wherever_they_lie():
    _, ddp = planned()
    assert launch_arguments(ddp, "/runs/a b") == ["--config_file", "/runs/a b/accelerate.yaml"]
    _, zero = planned(strategy="zero2")
    assert launch_arguments(zero, "/runs/a b")[2:] == ["--deepspeed_config_file", "/runs/a b/deepspeed.json"]
