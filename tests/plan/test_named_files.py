"""Which adapters a run may continue, and which arguments its chat template reads; all without the training stack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from planning import config

from grpo_dist.errors import GrpoDistError, PlanError
from grpo_dist.plan.named_files import check_adapter, check_files

BASE = "Qwen/Qwen3-4B-Base"
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
STATED = {
    "peft_type": "LORA",
    "r": 32,
    "lora_alpha": 64,
    "target_modules": MODULES,
    "base_model_name_or_path": BASE,
    "bias": "none",
}


def adapter(place: Path, **changed: object) -> str:
    place.mkdir(parents=True, exist_ok=True)
    (place / "adapter_config.json").write_text(json.dumps({**STATED, **changed}))
    (place / "adapter_model.safetensors").write_bytes(b"weights")
    return str(place)


def checked(path: str, model: str = BASE, **sections: object) -> None:
    check_adapter(config(model, model_section={"adapter": path}, **sections))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"target_modules": MODULES[::-1]},
        {"base_model_name_or_path": "/models/Qwen3-4B-Base"},
        {"base_model_name_or_path": "/hub/models--Qwen--Qwen3-4B-Base/snapshots/0a1b"},
        {"base_model_name_or_path": "unsloth/qwen3-4b-base"},
        {"lora_dropout": 0.1},
    ],
)
def test_an_adapter_of_the_same_kind_is_continued(tmp_path, changed):
    checked(adapter(tmp_path / "a", **changed))


def test_the_layers_of_all_linear_are_not_compared(tmp_path):
    checked(adapter(tmp_path / "a"), lora={"target_modules": "all-linear"})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"r": 16}, "its r is 16, lora.r is 32\n  → --set lora.r=16"),
        ({"r": 8, "lora_alpha": 16}, "→ --set lora.r=8 --set lora.lora_alpha=16"),
        ({"use_rslora": True}, "--set lora.use_rslora=true"),
        ({"target_modules": ["v_proj", "q_proj"]}, "--set 'lora.target_modules=[q_proj, v_proj]'"),
        ({"peft_type": "IA3"}, "is of kind IA3"),
        ({"use_dora": True}, "uses use_dora"),
        ({"modules_to_save": ["lm_head"]}, "uses modules_to_save"),
        ({"bias": "all"}, "uses bias"),
        ({"base_model_name_or_path": "org/other-7B"}, "trained on org/other-7B, and model.name_or_path is Qwen/Qwen3"),
    ],
)
def test_another_kind_of_adapter_is_refused(tmp_path, changed, says):
    with pytest.raises(PlanError) as refused:
        checked(adapter(tmp_path / "a", **changed))
    assert says in str(refused.value)


def test_what_is_no_adapter_is_told_with_what_there_is(tmp_path):
    with pytest.raises(GrpoDistError, match="no such directory"):
        checked(str(tmp_path / "nowhere"))
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "config.json").write_text("{}")
    with pytest.raises(PlanError, match=r"whole model\n.*--set model\.name_or_path="):
        checked(str(tmp_path / "whole"))
    (Path(adapter(tmp_path / "a")) / "adapter_model.safetensors").unlink()
    with pytest.raises(PlanError, match=r"has no adapter_model\.safetensors"):
        checked(str(tmp_path / "a"))


@pytest.mark.parametrize("where", [".", "adapter"])
def test_a_run_stands_for_its_adapter_and_names_its_base(tmp_path, where):
    adapter(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "model"))
    run = "model: {name_or_path: embedded}\ndata: {name_or_path: embedded}\ngrpo: {seed: 5}\n"
    (tmp_path / "config.yaml").write_text(run)
    embedded = {"data": {"name_or_path": "embedded"}, "cluster": {"gpus_per_node": 0}}
    checked(str(tmp_path / where), "embedded", grpo={"seed": 5}, **embedded)
    with pytest.raises(PlanError, match=r"--set grpo\.seed=5"):
        checked(str(tmp_path / where), "embedded", grpo={"seed": 6}, **embedded)
    with pytest.raises(PlanError, match=r"was trained on embedded, and model\.name_or_path is Qwen"):
        checked(str(tmp_path / where))


def test_a_template_that_does_not_read_an_argument_is_told(tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text("{% if enable_thinking %}<think>{% endif %}{{ messages[0].content }}")

    def files_of(**arguments: object) -> None:
        check_files(config(data={"chat_template": str(template)}, grpo={"chat_template_kwargs": arguments}))

    files_of(enable_thinking=False)
    with pytest.raises(PlanError, match="does not read thinking, so it would have no effect"):
        files_of(thinking=False)
