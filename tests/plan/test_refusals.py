"""Impossible wishes: one explanation with numbers, and a fix that works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from planning import COLOCATE, QWEN3_4B, SERVER, STATED, cluster, config, planned, with_data
from pydantic import ValidationError

from grpo_dist.config import RunConfig, dump_config, load_config
from grpo_dist.errors import ConfigError, PlanError
from grpo_dist.plan import plan_run

BIG = "Qwen/Qwen3-32B"
NODE = cluster(1, 8)
WHOLE = {"vllm_importance_sampling_mode": "sequence_mask"}

WISHES: list[tuple[str, dict[str, Any], str]] = [
    (
        "the model fits nowhere",
        {"model": BIG},
        r"Qwen3-32B does not fit: .* 88\.6 GiB.* 79\.1 GiB; the most is weights: 61",
    ),
    ("nor beside an engine", {"model": BIG, "cluster": NODE, "rollout": COLOCATE}, r"beside a vLLM engine"),
    (
        "nor in a replica",
        {"model": BIG, "model_section": {"dtype": "float16"}, "cluster": cluster(1, 4, "t4"), "rollout": SERVER},
        r"a vLLM replica on 2 GPUs .* has 13\.2 GiB of each t4, holds 30\.\d GiB of weights",
    ),
    (
        "a thousand GPUs for one prompt",
        {"cluster": cluster(125, 8), "rollout": COLOCATE, "grpo": {"prompts_per_step": 1}},
        r"1 prompt × 8 completions = 8 completions .* 1000 processes .*: 8 = 0 × 1000 \+ 8; there are more processes",
    ),
    (
        "a signal before the job begins",
        {"cluster": {**NODE, "time": "00:10:00", "signal_seconds": 600}},
        r"saves 600 s before its end, and cluster\.time gives it 600 s",
    ),
    ("an odd grid", {"cluster": cluster(3, 6)}, r"64 = 3 × 18 \+ 10; 64 lacks the factor 9 of 18"),
    ("an odd grid of servers", {"cluster": cluster(3, 6), "rollout": SERVER}, r"divide over none of the numbers"),
    (
        "heads that do not divide",
        {"cluster": NODE, "rollout": {**COLOCATE, "tensor_parallel_size": 3}},
        r"tensor_parallel_size: 3, but .* has 32 attention heads, 8 key-value heads",
    ),
    (
        "a replica over two nodes",
        {"cluster": cluster(2, 8), "rollout": {**SERVER, "tensor_parallel_size": 16}},
        r"16, but a node has 8 GPUs, and a replica never spans nodes",
    ),
    (
        "a rank vLLM does not serve",
        {"cluster": NODE, "rollout": COLOCATE, "lora": {"r": 640}},
        r"lora\.r: .* 512, not 640",
    ),
    (
        "a rank vLLM does not serve, on CPU",
        {"cluster": cluster(1, 0), "rollout": COLOCATE, "lora": {"r": 513}},
        r"lora\.r: .* 512, not 513",
    ),
    (
        "a rank vLLM does not serve, to a pool",
        {"cluster": NODE, "rollout": {**SERVER, "replicas": 4}, "lora": {"r": 640}},
        r"lora\.r: .* 512, not 640",
    ),
    (
        "merged weights of such a rank to a pool",
        {"cluster": NODE, "rollout": {**SERVER, "replicas": 4, "sync": "merged"}, "lora": {"r": 640}},
        r"TRL sends merged weights to one server, and there are 4",
    ),
    (
        "positions",
        {"grpo": {"max_completion_length": 32_768}},
        r"202 \+ .* 32,768: 32,970 tokens, but .* 32,768 positions",
    ),
    ("room", {"model_section": {"max_length": 100_000}}, r"model\.max_length: 100,000 tokens, but .* 32,768 positions"),
    ("evaluation", {"evaluation": {"max_completion_length": 40_000}}, r"evaluation\.max_completion_length: 40,202"),
    ("sharding over one", {"distributed": {"strategy": "zero3"}}, r"strategy: zero3 shards .*, and there is 1"),
    (
        "fsdp2 on CPU",
        {"cluster": cluster(1, 0), "distributed": {"strategy": "fsdp2", "num_processes": 2}},
        r"runs fsdp2 on CPU as plain DDP",
    ),
    (
        "merged weights on CPU",
        {"cluster": cluster(1, 0), "rollout": {**COLOCATE, "sync": "merged"}},
        r"merged weights travel by NCCL, which needs CUDA",
    ),
    (
        "merged weights to a pool",
        {"cluster": cluster(1, 8), "rollout": {**SERVER, "sync": "merged", "replicas": 4}},
        r"TRL sends merged weights to one server, and there are 4",
    ),
    (
        "an adapter on the embedding",
        {"cluster": NODE, "rollout": COLOCATE, "lora": {"target_modules": ["q_proj", "embed_tokens"]}},
        r"vLLM serves no adapter on embed_tokens",
    ),
    (
        "quantised weights in parts",
        {
            "cluster": NODE,
            "model_section": {"model_init_kwargs": {"quantization_config": {"load_in_4bit": True}}},
            "distributed": {"strategy": "zero3"},
        },
        r"strategy: zero3 shards weights, and those of .* are 4bit ones",
    ),
    (
        "too large for one GPU and an engine of one",
        {"model": BIG, "cluster": cluster(1, 1, "a100-40gb"), "rollout": COLOCATE},
        r"beside a vLLM engine for one sequence needs 135\.8",
    ),
    (
        "vespo",
        {"cluster": NODE, "rollout": COLOCATE, "grpo": {"loss_type": "vespo", **WHOLE}},
        r"vespo .* is sequence_mask",
    ),
    ("bfloat16 on a T4", {"cluster": cluster(1, 1, "t4")}, r"model\.dtype: t4 has no bfloat16"),
    (
        "a server that takes what CUDA has taken",
        {"cluster": NODE, "rollout": {**SERVER, "gpu_memory_utilization": 0.995}},
        r"0\.995 of 79\.1 GiB and what CUDA and NCCL take before vLLM begins are 80\.\d GiB",
    ),
    ("no GPU left to train", {"rollout": SERVER}, r"a server takes the only GPU"),
    (
        "no node left",
        {"cluster": cluster(2, 8), "rollout": {**SERVER, "nodes": 2}},
        r"2 of 2 nodes generate, none is left",
    ),
    (
        "uneven replicas",
        {"cluster": cluster(2, 8), "rollout": {**SERVER, "nodes": 0, "replicas": 3}},
        r"2 nodes × 8 GPUs cannot be shared out with rollout\.replicas=3, rollout\.nodes=0",
    ),
    (
        "uneven processes",
        {"cluster": cluster(2, 8), "distributed": {"num_processes": 7}},
        r"7 processes do not share out",
    ),
    (
        "too many processes",
        {"cluster": NODE, "distributed": {"num_processes": 9}},
        r"9 processes are set, but 1 node × 8",
    ),
    (
        "layers updated in many processes",
        {"cluster": NODE, "grpo": {"optim": "galore_adamw_layerwise", "optim_target_modules": "all-linear"}},
        r"galore_adamw_layerwise updates layer by layer in one process, and 8 train",
    ),
    (
        "Unsloth in many processes",
        {"cluster": NODE, "model_section": {"backend": "unsloth"}},
        r"model\.backend: Unsloth trains in one process, and 8 are planned",
    ),
    (
        "Unsloth beside a server",
        {"cluster": cluster(1, 2), "rollout": SERVER, "model_section": {"backend": "unsloth"}},
        r"model\.backend: Unsloth generates in the training process, and rollout\.mode is server",
    ),
    (
        "Unsloth's vLLM on CPU",
        {"cluster": cluster(1, 0), "rollout": COLOCATE, "model_section": {"backend": "unsloth"}},
        r"model\.backend: Unsloth's vLLM needs a GPU",
    ),
    ("an unknown GPU", {"cluster": cluster(1, 1, "H900")}, r"cluster\.gpu: GPU 'H900' is not in the table"),
    ("an unknown link", {"cluster": cluster(1, 1, inter_node_link="rope")}, r"cluster\.inter_node_link: link 'rope'"),
    ("layers there are not", {"lora": {"target_modules": ["query"]}}, r"no linear layer named query"),
]


def refusal(wish: dict[str, Any]) -> PlanError:
    with pytest.raises(PlanError) as caught:
        planned(**wish)
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize(("wish", "message"), [pytest.param(w, m, id=name) for name, w, m in WISHES])
def test_one_explanation_with_numbers(wish, message):
    assert re.search(message, refusal(wish).message), refusal(wish).message


def fixes(hint: str) -> list[list[str]]:
    """The overrides of each suggestion."""
    lines = hint.splitlines()[1:] if "\n" in hint else re.split(r", or |; |\(|, ", hint)
    return [found for line in lines if (found := re.findall(r"--set ([\w.]+=[^\s,)]+)", line))]


@pytest.mark.parametrize("wish", [pytest.param(w, id=name) for name, w, _ in WISHES])
def test_every_fix_works(wish, tmp_path):
    hint = refusal(wish).hint
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config(**{"model": QWEN3_4B, **wish})))
    for overrides in fixes(hint):
        follow(path, overrides, at_once=hint.startswith("nearest that can run"))
    assert fixes(hint) or refusal(wish).message.startswith(("cluster.gpu", "cluster.inter_node_link"))


def test_whole_weights_are_named_only_where_they_can_be_sent():
    rank = {"lora": {"r": 640}}
    assert "rollout.sync=merged" in refusal({"cluster": NODE, "rollout": COLOCATE, **rank}).hint
    for rollout in (COLOCATE, SERVER):
        assert "merged" not in refusal({"cluster": cluster(1, 0), "rollout": rollout, **rank}).hint


def follow(path: Path, overrides: list[str], *, at_once: bool) -> None:
    """Type what the hint says, and where it promises no more, what the next refusal says."""
    for _ in range(0 if at_once else 2):
        try:
            plan_run(load_config(path, overrides))
        except PlanError as another:
            overrides = overrides + fixes(another.hint)[0]
    plan_run(load_config(path, overrides))


@settings(max_examples=80, deadline=None)
@given(STATED)
def test_what_is_said_to_run_runs(tmp_path_factory, stated):
    """Typed as the hint says, on configurations nobody chose."""
    try:
        asked = RunConfig.model_validate(with_data(stated))
        plan_run(asked)
    except ValidationError:
        return
    except PlanError as refused:
        if not refused.hint or not refused.hint.startswith("nearest that can run"):
            return
        path = tmp_path_factory.getbasetemp() / "refused.yaml"
        path.write_text(dump_config(asked))
        for overrides in fixes(refused.hint):
            plan_run(load_config(path, overrides))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"grpo": {"num_generations": 1}}, r"grpo\.num_generations: must be a whole number ≥ 2"),
        ({"cluster": {"nodes": 0}}, r"cluster\.nodes: must be a whole number"),
        ({"cluster": {"nodes": 10**6}}, r"cluster\.nodes: must be a whole number"),
        ({"rollout": {"mode": "server"}}, r"rollout\.mode: .* set rollout\.backend: vllm"),
        ({"rollout": {"replicas": 2}}, r"rollout\.replicas: .* set rollout\.backend: vllm"),
        ({"rollout": {**COLOCATE, "nodes": 1}}, r"rollout\.nodes: .* set rollout\.mode: server"),
        ({"rollout": {**SERVER, "enable_sleep_mode": True}}, r"enable_sleep_mode: .* need not sleep"),
        ({"cluster": {"gpu_overrides": {"memori": 1}}}, r"did you mean cluster\.gpu_overrides\.memory"),
        ({"distributed": {"strategy": "zero4"}}, r"distributed\.strategy: must be one of"),
        ({"model": {"name_or_path": "embedded", "attn_implementation": "flash_attn2"}}, r"must be one of .* sdpa, "),
    ],
)
def test_what_is_wrong_whatever_the_machines(sections, message, tmp_path):
    path = tmp_path / "config.yaml"
    embedded = {"name_or_path": "embedded"}
    path.write_text(yaml.safe_dump({"model": embedded, "data": embedded, **sections}))
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert caught.value.exit_code == 2


def typed_back(wish: dict[str, Any], path: Path) -> list[list[str]]:
    """Every suggestion, each planned as it would be typed."""
    suggested = fixes(refusal(wish).hint)
    path.write_text(dump_config(config(**{"model": QWEN3_4B, **wish})))
    for overrides in suggested:
        plan_run(load_config(path, overrides))
    return suggested


LONG = {"prompts_per_step": 64, "num_generations": 16, "max_completion_length": 7168}


@pytest.mark.parametrize(
    ("wish", "first"),
    [
        (
            {"model": BIG, "cluster": cluster(2, 8), "rollout": COLOCATE, "grpo": LONG},
            ["distributed.strategy=zero3"],
        ),
        (
            {"cluster": cluster(1, 8, "a10"), "rollout": COLOCATE, "grpo": {**LONG, "gradient_checkpointing": False}},
            ["grpo.gradient_checkpointing=true"],
        ),
        (
            {"cluster": cluster(2, 8), "rollout": {**COLOCATE, "gpu_memory_utilization": 0.9}, "grpo": LONG},
            ["rollout.gpu_memory_utilization=auto"],
        ),
        (
            {
                "model": BIG,
                "cluster": cluster(1, 8, "l40s"),
                "rollout": {**SERVER, "tensor_parallel_size": 1},
                "distributed": {"strategy": "zero3"},
            },
            ["rollout.tensor_parallel_size=auto"],
        ),
        ({"cluster": cluster(1, 8, "H10O"), "rollout": COLOCATE}, ["cluster.gpu=h100"]),
    ],
    ids=["sharding", "checkpointing", "utilization", "tensor parallel", "a misspelt GPU"],
)
def test_a_single_free_setting_comes_first(wish, first, tmp_path):
    assert typed_back(wish, tmp_path / "config.yaml")[0] == first


def test_two_faults_are_mended_at_once(tmp_path):
    wish = {"cluster": cluster(3, 6, "t4"), "rollout": {**SERVER, "tensor_parallel_size": 5}}
    found = typed_back(wish, tmp_path / "config.yaml")
    assert found
    assert all(len(overrides) > 1 for overrides in found)


def test_a_stated_utilization_is_in_the_numbers():
    grpo, rollout = LONG, {**COLOCATE, "gpu_memory_utilization": 0.9}
    message = refusal({"cluster": cluster(2, 8), "rollout": rollout, "grpo": grpo}).message
    needed, has = (float(number) for number in re.findall(r"([\d.]+) GiB", message)[:2])
    assert needed > has
    assert "rollout.gpu_memory_utilization 0.9" in message


def test_the_utilization_stops_where_seconds_stop_falling():
    def at(utilization):
        rollout = {**COLOCATE, "gpu_memory_utilization": utilization}
        return planned(cluster=cluster(2, 8), rollout=rollout, grpo={**LONG, "max_completion_length": 2048})

    chosen = at("auto")
    share, seconds = chosen.gpu_memory_utilization, chosen.time["seconds_per_step"]
    assert seconds <= 1.01 * at(round(share + 0.1, 2)).time["seconds_per_step"]
    assert seconds < 0.999 * at(round(share - 0.05, 2)).time["seconds_per_step"]
