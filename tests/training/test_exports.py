"""Exports and comparisons of a really trained model."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from program import Program
from safetensors.torch import load_file, save_file
from waiting import until

from grpo_dist.errors import ModelError
from grpo_dist.export.push import ExportRequest
from grpo_dist.run.checkpoints import find_model
from grpo_dist.training.stages import export as exporting
from grpo_dist.training.stages.export import check_finite

heavy = pytest.mark.heavy


@pytest.fixture
def trained(finished) -> Program:
    """`grpo-dist` in a directory with a finished run of six steps, `run`."""
    return finished[0]


def record(directory: Path) -> dict:
    return json.loads((directory / "export.json").read_text())


@heavy
def test_a_merged_model_is_the_base_plus_the_adapter_and_loads_by_itself(trained, embedded_model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = trained.cwd / "run" / "exports" / "merged"
    result = trained("export", "run", "--to", "merged")
    assert result.stdout == f"{out}\n"
    [check] = record(out)["checks"]
    assert check["mean_gap"] < 1e-6 < check["base_gap"]
    assert "allowed 1e-04" in result.stderr
    name = "model.layers.0.self_attn.q_proj"
    adapter = load_file(trained.cwd / "run" / "adapter" / "adapter_model.safetensors")
    lora = [adapter[f"base_model.model.{name}.lora_{side}.weight"] for side in "BA"]
    expected = load_file(embedded_model / "model.safetensors")[f"{name}.weight"] + 64 / 32 * lora[0] @ lora[1]
    torch.testing.assert_close(load_file(out / "model.safetensors")[f"{name}.weight"], expected)
    assert AutoTokenizer.from_pretrained(out).chat_template
    assert AutoModelForCausalLM.from_pretrained(out).generation_config.eos_token_id
    assert "## Recipe" in (out / "README.md").read_text()
    assert sorted(path.name for path in out.parent.iterdir()) == ["merged"]


@heavy
def test_a_checkpoint_in_16_bits_says_what_rounding_took(trained):
    result = trained("export", "run/checkpoints/checkpoint-4", "--to", "merged", "--dtype", "bfloat16")
    out = trained.cwd / "run" / "exports" / "merged-checkpoint-4"
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    [check] = record(out)["checks"]
    assert 1e-5 < check["mean_gap"] <= check["tolerance"]
    assert ("warning: in bfloat16 rounding is" in result.stderr) == (check["mean_gap"] > check["base_gap"] / 2)
    assert "as it was after step 4" in (out / "README.md").read_text()


@heavy
def test_all_kinds_of_models_answer_the_same_problems(trained):
    trained("export", "run", "--to", "adapter", "--output", "out/adapter")
    result = trained("compare", "base", "run", "run/checkpoints/checkpoint-6", "out/adapter", "--json")
    found = json.loads(result.stdout)
    run = json.loads((trained.cwd / "run" / "comparison.json").read_text())
    base, ours, checkpoint, export = found["models"]
    assert [model["name"] for model in found["models"]] == ["base", "run", "run/checkpoint-6", "adapter"]
    for model, key in ((base, "base"), (ours, "trained"), (checkpoint, "trained"), (export, "trained")):
        assert {name: model[name] for name in run[key]} == run[key]
    assert ours["difference"]["greedy_accuracy"] == export["difference"]["greedy_accuracy"] == run["difference"]
    assert not list((trained.cwd / "run" / "comparisons").glob("*.log"))


@heavy
def test_other_problems_are_read_like_the_runs_own(trained):
    import pyarrow.parquet

    known = pyarrow.parquet.read_table(trained.cwd / "run" / "data" / "train.parquet").to_pylist()[:3]
    rows = [{"q": row["prompt"][-1]["content"], "a": row["answer"]} for row in known] + [{"q": "1+1=", "a": "2"}]
    (trained.cwd / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = "data.columns={prompt: q, answer: a}"
    result = trained("compare", "run", "--checkpoints", "--data", "more.jsonl", "--set", columns, "--output", "c.json")
    found = json.loads((trained.cwd / "c.json").read_text())
    assert found["problems"] == 4
    assert [problem["answer"] for problem in found["per_problem"]] == [row["a"] for row in rows]
    known = [(model["name"], model["trained_on"]) for model in found["models"]]
    assert known[0] == ("base", 0)
    assert known[1:] == [("run/checkpoint-4", 3), ("run/checkpoint-6", 3)]
    assert "run/checkpoint-4 was trained on 3 of these 4 problems" in result.stderr
    assert "run/checkpoint-6" in result.stdout


@heavy
def test_an_export_that_is_not_the_trained_model_is_not_kept(trained, monkeypatch):
    """The one mistake to fear: base weights under the trained model's name."""

    def forgets(model, *_):
        return model.unload()

    monkeypatch.setattr(exporting, "_merged", forgets)
    output, draft = trained.cwd / "wrong", trained.cwd / ".wrong.draft-0"
    source = find_model(trained.cwd / "run")
    with pytest.raises(ModelError, match="is not the trained one"):
        exporting.export(ExportRequest(source, "merged", "float32", str(output), str(draft)))
    assert not output.exists()


@heavy
def test_a_stopped_export_leaves_nothing(trained):
    process = trained.start("export", "run", "--to", "merged", "--output", "stopped/here")
    place = trained.cwd / "stopped"
    until(lambda: list(place.glob(".here.draft-*")) or process.poll() is not None, 300)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert list(place.iterdir()) == []


@heavy
def test_vllm_reads_its_export_as_transformers_does(trained, missing):
    from importlib.util import find_spec

    if find_spec("vllm") is None:
        missing("vLLM is not installed")
    trained("export", "run", "--to", "vllm")
    checks = record(trained.cwd / "run" / "exports" / "vllm")["checks"]
    assert [check["reader"] for check in checks] == ["transformers", "vllm"]
    assert all(check["mean_gap"] <= check["tolerance"] for check in checks)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"a.lora_A": torch.ones(2), "a.lora_B": torch.zeros(2)}, "a.lora_B is all zero: it was never trained"),
        ({"a.lora_A": torch.tensor([1.0, float("nan")])}, "a.lora_A holds values that are not finite"),
        ({}, "holds no tensor"),
    ],
)
def test_an_adapter_that_learned_nothing_is_no_export(tmp_path, tensors, words):
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=words):
        check_finite(tmp_path / "w.safetensors")


def test_a_torn_adapter_is_refused_and_an_expert_nobody_asked_is_not(tmp_path):
    weights = tmp_path / "w.safetensors"
    save_file({"a.lora_B": torch.ones(2), "mlp.experts.3.lora_B": torch.zeros(2)}, weights)
    check_finite(weights)
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ModelError, match="not a readable adapter"):
        check_finite(weights)


def test_a_merge_sums_in_float32_and_keeps_each_dtype():
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
    base = Qwen3ForCausalLM(Qwen3Config(vocab_size=32, num_hidden_layers=1, head_dim=8, **shape)).bfloat16()
    base.model.norm.float()
    dtypes = {name: parameter.dtype for name, parameter in base.named_parameters()}
    before = base.model.layers[0].mlp.up_proj.weight.float().clone()
    model = get_peft_model(base.float(), LoraConfig(r=2, target_modules=["up_proj"], init_lora_weights=False))
    delta = model.base_model.model.model.layers[0].mlp.up_proj.get_delta_weight("default").detach()
    merged = exporting._merged(model, dtypes, "bfloat16", "float16")
    assert merged.model.norm.weight.dtype == torch.float32
    assert torch.equal(merged.model.layers[0].mlp.up_proj.weight, (before + delta).half())
