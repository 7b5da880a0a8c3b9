"""Configurations of clusters, scaled down to one machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from planning import GIB, QWEN3_4B, SERVER, STATED, cluster, config, with_data
from pydantic import ValidationError

from grpo_dist.config import RunConfig, config_differences, load_config
from grpo_dist.errors import PlanError
from grpo_dist.plan import plan_run
from grpo_dist.plan.debug import DebugMachine, scaled_down, small
from grpo_dist.plan.specs import architecture_of
from grpo_dist.plan.specs.architecture import FAMILIES, from_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
SMALL = "/runs/x-debug/model"
CPU = DebugMachine(None, 24 * GIB)
BARE_CPU = DebugMachine(None, 24 * GIB, lacks_model="not in the cache")
H100 = DebugMachine("NVIDIA H100 80GB HBM3", int(79.1 * GIB), vllm=True)
A10 = DebugMachine("NVIDIA A10", int(22 * GIB), vllm=True)
T4 = DebugMachine("Tesla T4", int(14.7 * GIB), bfloat16=False)
UNHEARD_OF = DebugMachine("Wombat 3000", 48 * GIB)
MACHINES = [CPU, BARE_CPU, H100, A10, T4, UNHEARD_OF]


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_run_as_one_process_and_list_changes(path, machine):
    stated = load_config(path)
    debug = scaled_down(stated, machine, SMALL)
    assert (debug.plan.topology.nodes, debug.plan.topology.num_processes) == (1, 1)
    assert (debug.plan.topology.device == "cpu") == (machine.gpu is None)
    differ = {name for name, _, _ in config_differences(stated, debug.config)}
    assert {change.setting.split(".")[0] for change in debug.changes} == {name.split(".")[0] for name in differ}
    settings = [change.setting for change in debug.changes]
    assert len(settings) == len(set(settings))
    assert differ <= {*settings, "rewards.functions"}
    assert [f.name for f in debug.config.rewards.functions] == [f.name for f in stated.rewards.functions]
    assert debug.config.data == stated.data
    assert debug.config.lora == stated.lora


@given(stated=STATED)
def test_whatever_can_be_planned_can_be_debugged_on_a_cpu(stated):
    try:
        whole = RunConfig.model_validate(with_data(stated))
        plan_run(whole)
    except (ValidationError, PlanError):
        return
    debug = scaled_down(whole, CPU, SMALL)
    assert debug.plan.batch.generation_batch_size <= 8


def test_a_model_too_large_or_not_there_is_stood_in_for():
    def model(machine: DebugMachine, name: str = QWEN3_4B) -> tuple[bool, str]:
        debug = scaled_down(config(name, cluster=cluster(2, 8), rollout=SERVER), machine, SMALL)
        return debug.small, debug.config.model.name_or_path

    assert model(CPU) == (True, SMALL)
    assert model(CPU, "Qwen/Qwen3-0.6B") == (False, "Qwen/Qwen3-0.6B")
    assert model(BARE_CPU, "Qwen/Qwen3-0.6B") == (True, SMALL)
    assert model(H100) == (False, QWEN3_4B)
    assert model(A10, "Qwen/Qwen3-14B") == (True, SMALL)
    assert model(BARE_CPU, "embedded") == (False, "embedded")
    with pytest.raises(PlanError, match="some/body cannot be debugged here: not in the cache") as refused:
        model(BARE_CPU, "some/body")
    assert "grpo-dist prefetch" in refused.value.hint


def test_servers_become_an_engine_of_the_gpu_or_transformers():
    shape = {"cluster": cluster(4, 8), "grpo": {"prompts_per_step": 24}}
    whole = config(**shape, rollout={**SERVER, "nodes": 1}, distributed={"strategy": "zero3"})
    debug = scaled_down(whole, H100, SMALL)
    assert (debug.plan.backend, debug.plan.topology.mode) == ("vllm", "colocate")
    assert "zero3 is not tried" in "\n".join(debug.remains)
    assert "8 servers on GPUs of their own" in "\n".join(debug.remains)
    on_cpu = scaled_down(whole, CPU, SMALL)
    assert on_cpu.plan.backend == "transformers"
    assert "not vLLM" in "\n".join(on_cpu.remains)


def test_what_trains_here_is_what_trains_on_the_cluster():
    many, alone = config(cluster=cluster(2, 8)), config(cluster=cluster(1, 1))
    on_gpu = scaled_down(many, H100, SMALL)
    assert on_gpu.config.model.backend == "trl"  # auto would take Unsloth for one process
    assert "16 are planned" in next(change.why for change in on_gpu.changes if change.setting == "model.backend")
    assert scaled_down(alone, H100, SMALL).config.model.backend == "auto"
    said = ["\n".join(scaled_down(whole, CPU, SMALL).remains) for whole in (many, alone)]
    assert ["not Unsloth" in remains for remains in said] == [False, True]


def test_the_overlong_punishment_still_ends_where_completions_are_cut():
    function = {"name": "soft_overlong_punishment", "kwargs": {"max_completion_length": 1000, "soft_punish_cache": 200}}
    whole = config(rewards={"functions": ["strict", function]}, grpo={"max_completion_length": 1000})
    debug = scaled_down(whole, CPU, SMALL)
    kwargs = debug.config.rewards.functions[1].kwargs
    assert kwargs == {"max_completion_length": debug.config.grpo.max_completion_length, "soft_punish_cache": 12}
    assert "rewards.functions.1.kwargs.soft_punish_cache" in {change.setting for change in debug.changes}


def test_what_needs_a_gpu_is_taken_away_on_a_cpu_and_kept_on_a_gpu():
    grpo = {"optim": "adamw_8bit", "tf32": True, "use_liger_kernel": True}
    whole = config(grpo=grpo, model_section={"attn_implementation": "flash_attention_2"})
    on_cpu, on_gpu = (scaled_down(whole, machine, SMALL).config for machine in (CPU, H100))
    assert (on_cpu.grpo.optim, on_cpu.model.attn_implementation) == ("adamw_torch", None)
    assert not {"tf32", "use_liger_kernel"} & set(on_cpu.grpo.model_extra)
    assert (on_gpu.grpo.optim, on_gpu.grpo.model_extra["tf32"]) == ("adamw_8bit", True)
    assert scaled_down(config(), T4, SMALL).config.model.dtype == "float16"


def test_a_configuration_that_cannot_run_on_its_cluster_is_refused():
    with pytest.raises(PlanError, match="do not divide"):
        scaled_down(config(cluster=cluster(3, 7)), CPU, SMALL)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_small_one_is_of_the_same_family(family):
    sizes = {"hidden_size": 4096, "intermediate_size": 9000, "num_hidden_layers": 30, "num_attention_heads": 32}
    whole = {"model_type": family, **sizes, "num_key_value_heads": 8, "vocab_size": 500, "max_position_embeddings": 99}
    large = from_config(whole, family)
    tiny = small(large)
    assert tiny.parameters() < large.parameters() / 100
    assert [linear.name for linear in tiny.linears()] == [linear.name for linear in large.linears()]
    assert (tiny.vocab_size, tiny.head_dim) == (500, large.head_dim)
    assert tiny.num_key_value_heads < tiny.num_attention_heads


def test_qwen3_4b_becomes_a_few_million():
    assert small(architecture_of(QWEN3_4B)).parameters() < 50e6
