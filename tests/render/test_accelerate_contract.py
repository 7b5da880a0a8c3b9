"""What Accelerate itself makes of the files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from plans import LAYOUTS, layout, planned

from grpo_dist.config import RunConfig
from grpo_dist.errors import PlanError
from grpo_dist.launch.forks import LAUNCHER, Forks
from grpo_dist.launch.stages import launch_command
from grpo_dist.plan import LaunchPlan
from grpo_dist.render import render_files
from grpo_dist.run.directory import RunDirectory

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

pytestmark = pytest.mark.heavy

STRATEGIES = ("ddp", "zero1", "zero2", "zero3")
WORKER = Path(__file__).with_name("launched_world.py")


def written(config: RunConfig, plan: LaunchPlan, directory: Path) -> list[str]:
    """Put the files there; returns the arguments each node launches them with."""
    for name, text in render_files(config, plan).items():
        (directory / name).write_text(text)
    node = ["--main_process_ip", "first-node", "--main_process_port", "20123"]
    return [*launch_command("train", RunDirectory(directory), plan)[3:-4], *node]


def launch_of(arguments: list[str], rank: int) -> tuple[LaunchConfig | None, dict[str, str]]:
    """What `accelerate launch` would hand torchrun on a node (None: it starts one process itself), and the
    environment of the processes."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import launch
    from torch.distributed import run

    args = launch_command_parser().parse_args([*arguments, "--machine_rank", str(rank), "train.py"])
    args, defaults, _ = _validate_launch_command(args)
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        command, env = launch.prepare_deepspeed_cmd_env(args)
        assert command is None, "the launch would go through pdsh"
    elif args.use_fsdp or args.multi_gpu:
        env = launch.prepare_multi_gpu_env(args)
    else:
        return None, launch.prepare_simple_launcher_cmd_env(args)[1]
    args = launch._filter_args(args, run.get_args_parser(), ["--training_script", "train.py"])
    return run.config_from_args(args)[0], env


def check(config: RunConfig, plan: LaunchPlan, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, nodes = written(config, plan, directory), plan.topology.trainer_nodes
    found, env = launch_of(arguments, rank=nodes - 1)
    if found is None:
        assert plan.topology.num_processes == 1
    else:
        assert found.min_nodes * found.nproc_per_node == plan.topology.num_processes
        assert (found.min_nodes, found.max_nodes, found.rdzv_backend) == (nodes, nodes, "static")
        assert found.logs_specs.root_log_dir == os.devnull
    if nodes > 1:
        assert (found.rdzv_endpoint, found.rdzv_configs["rank"]) == ("first-node:20123", nodes - 1)
    with monkeypatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        check_plugin(plan)


def check_plugin(plan: LaunchPlan) -> None:
    """The strategy as the training process reads it from its environment."""
    from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin

    assert (os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true") == plan.strategy.startswith("zero")
    assert (os.environ.get("ACCELERATE_USE_FSDP") == "true") == (plan.strategy == "fsdp2")
    if plan.strategy == "fsdp2":
        plugin = FullyShardedDataParallelPlugin()
        assert plugin.fsdp_version == 2
        assert plugin.reshard_after_forward is True
        assert "FULL_STATE_DICT" in str(plugin.state_dict_type)
    elif plan.strategy.startswith("zero"):
        plugin = DeepSpeedPlugin()
        assert plugin.zero_stage == int(plan.strategy[-1])
        assert plugin.zero3_init_flag is (plan.strategy == "zero3")
        assert plugin.gradient_accumulation_steps == plan.batch.gradient_accumulation_steps


@pytest.mark.parametrize("name", LAYOUTS)
def test_accelerate_would_launch_the_planned_world(name, tmp_path, monkeypatch):
    check(*layout(name), tmp_path, monkeypatch)


@given(
    nodes=st.integers(1, 20),
    gpus=st.integers(0, 10),
    strategy=st.sampled_from(["ddp", "zero1", "zero2", "zero3", "fsdp2"]),
    rollout=st.sampled_from([{}, {"backend": "vllm", "mode": "server"}, {"backend": "vllm", "mode": "colocate"}]),
    prompts=st.integers(1, 512),
)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])
def test_accelerate_would_launch_any_plan(nodes, gpus, strategy, rollout, prompts, tmp_path, monkeypatch):
    grpo = {"prompts_per_step": prompts * nodes, "num_generations": 8, "max_completion_length": 512}
    try:
        config, plan = planned(nodes=nodes, gpus=gpus, strategy=strategy, rollout=rollout, grpo=grpo)
    except PlanError:
        assume(False)
    check(config, plan, tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Strategy → what each of two processes on this CPU said of its world. Accelerate is imported once for all."""
    directories = {strategy: tmp_path_factory.mktemp(strategy) for strategy in STRATEGIES}
    commands = {strategy: command(strategy, directory) for strategy, directory in directories.items()}
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_TORCH_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    env["TMPDIR"] = str(temporary := tmp_path_factory.mktemp("temporary"))
    with Forks(directories["ddp"], env) as forks:

        @cache
        def launch(strategy: str) -> list[dict[str, Any]]:
            process = forks.start(commands[strategy], env)
            told = process.stdout.read().decode(errors="replace")
            assert process.wait() == 0, told
            assert not list(temporary.glob("torchelastic_*"))
            return [json.loads((directories[strategy] / f"world-{rank}.json").read_text()) for rank in range(2)]

        yield launch


def command(strategy: str, directory: Path) -> list[str]:
    grpo = {"prompts_per_step": 8, "num_generations": 2, "max_completion_length": 32, "max_grad_norm": 0}
    config, plan = planned(gpus=0, num_processes=2, strategy=strategy, grpo=grpo, model={"dtype": "float32"})
    worker = [str(WORKER), str(directory), str(plan.batch.per_device_train_batch_size)]
    return [sys.executable, "-m", LAUNCHER, *written(config, plan, directory), *worker]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_launched_world_is_the_planned_one(strategy, launched):
    first, second = launched(strategy)
    for world in (first, second):
        assert world["num_processes"] == 2
        assert world["distributed_type"] == ("MULTI_CPU" if strategy == "ddp" else "DEEPSPEED")
        assert world["zero_stage"] == (None if strategy == "ddp" else int(strategy[-1]))
    assert first["losses"][0] != second["losses"][0], "both processes saw the same rows"


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3"])
def test_deepspeed_steps_as_ddp_does(strategy, launched):
    for sharded, whole in zip(launched(strategy), launched("ddp"), strict=True):
        assert sharded["losses"] == pytest.approx(whole["losses"], rel=1e-5)
