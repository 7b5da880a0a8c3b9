"""What is told of an adapter before an engine is given it; a real engine in test_endpoint.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from grpo_dist.inference.adapters import LARGEST_UNKNOWN, AdapterRefused, check_adapter, largest_adapter
from grpo_dist.plan.specs import architecture_of

ARCHITECTURE = architecture_of("embedded")
TARGETS = ("q_proj", "down_proj")
R = 4
A = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")


def write(directory: Path, tensors: dict[str, torch.Tensor], **config: object) -> Path:
    stated = {"r": R, "lora_alpha": 8, "target_modules": list(TARGETS), **config}
    (directory / "adapter_config.json").write_text(json.dumps(stated))
    save_file(tensors, directory / "adapter_model.safetensors")
    return directory


def whole(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """An adapter on the embedded model, as PEFT names it."""
    adapted = {f"base_model.model.{n}": one for n, one in ARCHITECTURE.modules() if one.name in TARGETS}
    return {
        name: tensor.to(dtype)
        for module, linear in adapted.items()
        for name, tensor in (
            (f"{module}.lora_A.weight", torch.randn(R, linear.in_features)),
            (f"{module}.lora_B.weight", torch.zeros(linear.out_features, R)),
        )
    }


def refusal(directory: Path, architecture=ARCHITECTURE) -> str:
    with pytest.raises(AdapterRefused) as refused:
        check_adapter(directory, architecture)
    assert refused.value.status == 400
    return str(refused.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", [ARCHITECTURE, None])
def test_a_whole_adapter_passes(tmp_path, dtype, architecture):
    check_adapter(write(tmp_path, whole(dtype)), architecture)


@pytest.mark.parametrize(
    "targets", [r"model\.layers\.\d\.(self_attn\.q|mlp\.down)_proj", ["self_attn.q_proj", "mlp.down_proj"]]
)
def test_targets_are_read_as_peft_reads_them(tmp_path, targets):
    check_adapter(write(tmp_path, whole(), target_modules=targets), ARCHITECTURE)


def test_an_adapter_of_peft_passes(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {name: getattr(ARCHITECTURE, name) for name in ("hidden_size", "intermediate_size", "num_hidden_layers")}
    heads = {name: getattr(ARCHITECTURE, name) for name in ("num_attention_heads", "num_key_value_heads", "head_dim")}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **shape, **heads, vocab_size=107))
    lora = LoraConfig(r=R, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(model, lora).save_pretrained(tmp_path)
    check_adapter(tmp_path, ARCHITECTURE)


@pytest.mark.parametrize("architecture", [ARCHITECTURE, None], ids=["known", "unknown"])
@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        (A, torch.zeros(R + 1, 128), f"{A} has the shape 5 × 128 and must have 4 × "),
        (B, torch.zeros(128, R - 1), f"{B} has the shape 128 × 3 and must have "),
        (A, torch.zeros(R * 128), f"{A} has the shape 512 and must have 4 × "),
        (A, None, f"{A} is missing"),
        (B, None, f"{B} is missing"),
        (A, torch.full((R, 128), float("nan")), f"{A} holds NaN or infinity"),
        (B, torch.full((128, R), float("-inf"), dtype=torch.bfloat16), f"{B} holds NaN or infinity"),
        (A, torch.zeros(R, 128, dtype=torch.int8), f"{A} is of the type I8"),
        (A.replace("q_proj", "k_proj"), torch.zeros(R, 128), "k_proj.lora_A.weight is of no module"),
        ("base_model.model.lm_head.lora_magnitude_vector", torch.zeros(107), "magnitude_vector is of no module"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, tensor, words, architecture):
    tensors = whole()
    tensors.pop(name, None)
    if tensor is not None:
        tensors[name] = tensor
    message = refusal(write(tmp_path, tensors), architecture)
    assert words in message
    assert "\n" not in message


def test_shapes_are_those_of_the_model(tmp_path):
    tensors = whole() | {A: torch.zeros(R, 64)}
    assert refusal(write(tmp_path, tensors)) == f"{A} has the shape 4 × 64 and must have 4 × 128"


def test_a_module_that_is_targeted_has_tensors_in_every_layer(tmp_path):
    halved = {name: tensor for name, tensor in whole().items() if name not in (A, B)}
    assert f"{A} is missing" in refusal(write(tmp_path, halved))
    more = ["q_proj", "down_proj", "v_proj"]
    assert "layers.0.self_attn.v_proj.lora_A.weight is missing" in refusal(
        write(tmp_path, whole(), target_modules=more)
    )


def test_a_target_without_a_module_is_named(tmp_path):
    message = refusal(write(tmp_path, whole(), target_modules=[*TARGETS, "gate_proj"]), None)
    assert "'gate_proj'" in message


@pytest.mark.parametrize(
    ("config", "field"),
    [({"r": 0}, "r: "), ({"lora_alpha": float("nan")}, "lora_alpha: "), ({"target_modules": []}, "target_modules: ")],
)
def test_the_configuration_is_read_too(tmp_path, config, field):
    assert f"adapter_config.json: {field}" in refusal(write(tmp_path, whole(), **config))


def test_files_that_are_cut_are_told(tmp_path):
    weights = write(tmp_path, whole()) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert "adapter_model.safetensors cannot be read" in refusal(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    assert "adapter_config.json: " in refusal(tmp_path)


def test_the_largest_adapter_has_room_for_any(tmp_path):
    adapted = {f"base_model.model.{name}": one for name, one in ARCHITECTURE.modules()}
    tensors = {f"{n}.lora_A.weight": torch.zeros(8, one.in_features) for n, one in adapted.items()}
    tensors |= {f"{n}.lora_B.weight": torch.zeros(one.out_features, 8) for n, one in adapted.items()}
    save_file(tensors, tmp_path / "largest")
    size = (tmp_path / "largest").stat().st_size
    assert size < largest_adapter(ARCHITECTURE, 8) < size + 2**20
    assert largest_adapter(None, 8) == LARGEST_UNKNOWN > largest_adapter(architecture_of("Qwen/Qwen3-32B"), 512)
