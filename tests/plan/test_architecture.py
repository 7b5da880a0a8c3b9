"""Counts against the real model classes on the meta device, and where an architecture is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from grpo_dist.errors import PlanError
from grpo_dist.plan.specs import Architecture, architecture_of
from grpo_dist.plan.specs.architecture import FAMILIES, from_config
from grpo_dist.plan.specs.lookup import KNOWN, hub_cache

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NOWHERE = {"HF_HUB_CACHE": "/nonexistent"}
TINY = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def on_meta(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def qwen3(size: str) -> Architecture:
    return architecture_of(f"Qwen/Qwen3-{size}", environ=NOWHERE)


class TestCounts:
    @pytest.mark.parametrize("name", KNOWN)
    def test_known_models_are_the_real_ones(self, name):
        architecture = KNOWN[name]
        names = (*TINY, "head_dim", "tie_word_embeddings")
        shape = {key: getattr(architecture, key) for key in names if hasattr(architecture, key)}
        model = on_meta(AutoConfig.for_model("qwen3", **shape))
        assert architecture.parameters() == count(model)

    def test_published_sizes(self):
        sizes = {size: qwen3(size).parameters() for size in ("0.6B", "1.7B", "4B", "8B", "14B", "32B")}
        assert sizes == {
            "0.6B": 596_049_920,
            "1.7B": 1_720_574_976,
            "4B": 4_022_468_096,
            "8B": 8_190_735_360,
            "14B": 14_768_307_200,
            "32B": 32_762_123_264,
        }

    def test_qwen3_4b(self):
        model = qwen3("4B")
        assert model.parameters() * 2 == 8_044_936_192
        assert model.kv_bytes_per_token(2) == 147_456
        assert model.lora_parameters(32, SEVEN) == 66_060_288
        assert model.lora_parameters(32, "all-linear") == 66_060_288

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("tied", [True, False])
    def test_each_component_of_each_family(self, family, tied):
        config = AutoConfig.for_model(family, **TINY, tie_word_embeddings=tied, attention_bias=True, mlp_bias=True)
        model, ours = on_meta(config), from_config(config.to_dict(), family)
        layer = model.model.layers[0]
        assert ours.parameters() == count(model)
        assert ours.embedding_parameters() == count(model.model.embed_tokens)
        assert ours.layer_parameters() == count(layer)
        assert ours.mlp_parameters() == count(layer.mlp)
        assert ours.head_parameters() == (0 if tied else count(model.lm_head))

    @pytest.mark.parametrize("family", FAMILIES)
    def test_tensors_are_the_real_ones(self, family):
        config = AutoConfig.for_model(family, **TINY)
        real = sorted(tuple(parameter.shape) for parameter in on_meta(config).parameters())
        ours = from_config(config.to_dict(), family).tensors()
        assert sorted(shape for shape, times in ours for _ in range(times)) == real

    @pytest.mark.parametrize("family", FAMILIES)
    def test_modules_are_the_real_ones(self, family):
        config = AutoConfig.for_model(family, **TINY)
        linears = [m for m in on_meta(config).named_modules() if isinstance(m[1], torch.nn.Linear)]
        real = {name: (m.in_features, m.out_features) for name, m in linears if name != "lm_head"}
        ours = from_config(config.to_dict(), family).modules()
        assert {name: (one.in_features, one.out_features) for name, one in ours} == real

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(data=st.data())
    def test_odd_shapes(self, data):
        family = data.draw(st.sampled_from(sorted(FAMILIES)))
        key_heads = data.draw(st.integers(1, 3))
        heads = key_heads * data.draw(st.integers(1, 3))
        head_dim = 2 * data.draw(st.integers(1, 9))
        shape = {
            **TINY,
            "vocab_size": data.draw(st.integers(3, 200)),
            "hidden_size": heads * (head_dim if family == "phi3" else data.draw(st.integers(1, 20))),
            "intermediate_size": data.draw(st.integers(1, 90)),
            "num_hidden_layers": data.draw(st.integers(1, 3)),
            "num_attention_heads": heads,
            "num_key_value_heads": key_heads,
            **({} if family == "phi3" else {"head_dim": head_dim}),
        }
        config = AutoConfig.for_model(family, **shape, tie_word_embeddings=data.draw(st.booleans()))
        rank = data.draw(st.integers(1, 7))
        model, ours = on_meta(config), from_config(config.to_dict(), family)
        assert ours.parameters() == count(model)
        with torch.device("meta"):
            adapted = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))
        assert ours.lora_parameters(rank, "all-linear") == adapted.get_nb_trainable_parameters()[0]


class TestLora:
    @pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("mlp.down_proj",), SEVEN])
    def test_named_targets_count_as_in_peft(self, targets):
        config = AutoConfig.for_model("qwen3", **TINY)
        model = on_meta(config)
        with torch.device("meta"):
            adapted = get_peft_model(model, LoraConfig(r=5, target_modules=list(targets), task_type="CAUSAL_LM"))
        ours = from_config(config.to_dict(), "tiny")
        assert ours.lora_parameters(5, targets) == adapted.get_nb_trainable_parameters()[0]
        real = sorted(tuple(p.shape) for p in adapted.parameters() if p.requires_grad)
        assert sorted(shape for shape, n in ours.lora_tensors(5, targets) for _ in range(n)) == real

    def test_a_fused_projection_is_named_in_the_error(self):
        phi = from_config(AutoConfig.for_model("phi3", **TINY).to_dict(), "phi")
        with pytest.raises(PlanError, match="phi3 layer has no linear layer named k_proj, q_proj") as caught:
            phi.lora_parameters(8, ("q_proj", "k_proj", "o_proj"))
        assert "qkv_proj, o_proj, gate_up_proj, down_proj" in caught.value.message

    def test_the_head_is_no_target(self):
        with pytest.raises(PlanError, match="lm_head"):
            qwen3("4B").lora_parameters(8, ("lm_head",))


class TestConfigJson:
    def test_what_the_file_leaves_out_follows_the_model_class(self):
        written = {key: value for key, value in TINY.items() if key != "num_key_value_heads"}
        llama = from_config({"model_type": "llama", **written}, "llama")
        assert (llama.head_dim, llama.num_key_value_heads, llama.tie_word_embeddings) == (12, 4, False)
        gemma = from_config({"model_type": "gemma", **written}, "gemma")
        assert (gemma.head_dim, gemma.tie_word_embeddings) == (256, True)

    @pytest.mark.parametrize("extra", [{"num_experts": 8}, {"num_local_experts": 8}, {"n_routed_experts": 64}])
    def test_a_mixture_of_experts_is_refused(self, extra):
        with pytest.raises(PlanError, match=r"mixture of experts.*qwen3_moe") as caught:
            from_config({"model_type": "qwen3_moe", **TINY, **extra}, "org/moe")
        assert "qwen3" in caught.value.hint

    def test_an_unknown_family_is_refused_with_the_known_ones(self):
        with pytest.raises(PlanError, match="org/new has model_type 'mamba'") as caught:
            from_config({"model_type": "mamba", **TINY}, "org/new")
        assert "llama" in caught.value.hint

    @pytest.mark.parametrize(
        ("stated", "expected"), [({"load_in_4bit": True}, "4bit"), ({"load_in_8bit": True}, "8bit"), (None, None)]
    )
    def test_weights_that_are_stored_quantised(self, stated, expected):
        written = {"model_type": "qwen3", **TINY, "quantization_config": stated}
        assert from_config(written, "org/small").quantization == expected

    def test_what_bitsandbytes_did_not_quantise_is_refused(self):
        stated = {"quant_method": "gptq", "bits": 4}
        with pytest.raises(PlanError, match=r"weights of org/small are quantised \(gptq\)"):
            from_config({"model_type": "qwen3", **TINY, "quantization_config": stated}, "org/small")

    @pytest.mark.parametrize("value", [None, 0, -3, "many", True, 1.5])
    def test_an_impossible_number_is_named(self, value):
        with pytest.raises(PlanError, match="org/broken says hidden_size"):
            from_config({"model_type": "qwen3", **TINY, "hidden_size": value}, "org/broken")


class TestLookup:
    def cached(self, root: Path, reference: str, commit: str, hidden: int, model="org/model") -> None:
        repository = root / f"models--{model.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / reference).write_text(commit)
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps({"model_type": "qwen3", **TINY, "hidden_size": hidden}))

    def test_a_directory(self, tmp_path):
        AutoConfig.for_model("qwen3", **TINY).save_pretrained(tmp_path)
        assert architecture_of(str(tmp_path)).intermediate_size == 80

    def test_the_hub_cache_by_revision(self, tmp_path):
        self.cached(tmp_path, "main", "a" * 40, 48)
        self.cached(tmp_path, "v2", "b" * 40, 96)
        environ = {"HF_HUB_CACHE": str(tmp_path)}
        assert architecture_of("org/model", environ=environ).hidden_size == 48
        assert architecture_of("org/model", "v2", environ=environ).hidden_size == 96
        assert architecture_of("org/model", "b" * 40, environ=environ).hidden_size == 96
        with pytest.raises(PlanError, match="org/model at revision v3") as caught:
            architecture_of("org/model", "v3", environ=environ)
        assert "hf download org/model --revision v3" in caught.value.hint

    def test_a_cached_model_goes_before_the_table(self, tmp_path):
        self.cached(tmp_path, "main", "c" * 40, 48, model="Qwen/Qwen3-4B")
        assert architecture_of("Qwen/Qwen3-4B", environ={"HF_HUB_CACHE": str(tmp_path)}).hidden_size == 48

    @pytest.mark.parametrize(
        ("environ", "expected"),
        [
            ({"HF_HUB_CACHE": "/a"}, "/a"),
            ({"HUGGINGFACE_HUB_CACHE": "/b"}, "/b"),
            ({"HF_HOME": "/c"}, "/c/hub"),
            ({"XDG_CACHE_HOME": "/d"}, "/d/huggingface/hub"),
            ({}, str(Path.home() / ".cache/huggingface/hub")),
        ],
    )
    def test_where_the_cache_is(self, environ, expected):
        assert hub_cache(environ) == Path(expected)

    @pytest.mark.parametrize("name", ["Qwen/Qwen3-4B-Base", "unsloth/Qwen3-4B-Base"])
    def test_known_by_either_owner(self, name):
        assert architecture_of(name, environ=NOWHERE).max_position_embeddings == 32_768

    def test_did_you_mean(self):
        with pytest.raises(PlanError) as caught:
            architecture_of("Qwen/Qwen3-4b-base", environ=NOWHERE)
        assert "did you mean Qwen/Qwen3-4B-Base?" in caught.value.hint

    @pytest.mark.parametrize("name", ["./missing", "/no/such/model", "~/nothing"])
    def test_a_missing_directory(self, name):
        with pytest.raises(PlanError, match="there is no directory"):
            architecture_of(name, environ=NOWHERE)

    @pytest.mark.parametrize(("content", "words"), [("{", "cannot be read"), ("[1]", "no mapping")])
    def test_a_broken_file(self, tmp_path, content, words):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(PlanError, match=words):
            architecture_of(str(tmp_path))

    def test_a_directory_without_config(self, tmp_path):
        with pytest.raises(PlanError, match=r"holds no config\.json"):
            architecture_of(str(tmp_path))

    def test_the_embedded_model_is_the_one_that_is_built(self):
        model = pytest.importorskip("grpo_dist.embedded.model")
        from grpo_dist.embedded.model import character_tokenizer

        known = architecture_of("embedded")
        config = model._architecture(character_tokenizer(known.max_position_embeddings))
        assert known == from_config(config.to_dict(), "embedded")
