"""The whole of a training process."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_dist.errors import PlanError
from grpo_dist.plan.memory import Lora, Sharding, TrainerSetup, trainer_memory
from grpo_dist.plan.memory.breakdown import MARGIN, quantized_bytes, weight_bytes
from grpo_dist.plan.memory.optimizer import ONE_PROCESS
from grpo_dist.plan.specs import Architecture
from grpo_dist.plan.specs.lookup import EMBEDDED, KNOWN

GIB = 2**30
SEVEN = Lora(32, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"))
KINDS = ("ddp", "zero1", "zero2", "zero3", "fsdp2")


def setup(architecture: Architecture, **changes) -> TrainerSetup:
    return TrainerSetup(architecture, micro_batch=4, prompt_tokens=202, completion_tokens=1846, **changes)


def held(memory) -> dict[str, int]:
    return {component.name: component.bytes for component in memory.resident}


def phase(memory, name: str) -> dict[str, int]:
    found = next(phase for phase in memory.phases if phase.name == name)
    return {component.name: component.bytes for component in found.components}


@st.composite
def setups(draw, kinds=KINDS):
    return TrainerSetup(
        architecture=draw(st.sampled_from([*KNOWN.values(), EMBEDDED])),
        micro_batch=draw(st.integers(1, 64)),
        prompt_tokens=draw(st.integers(1, 4096)),
        completion_tokens=draw(st.integers(1, 8192)),
        dtype=draw(st.sampled_from(["float32", "bfloat16", "float16"])),
        lora=draw(st.one_of(st.none(), st.builds(Lora, st.integers(1, 128), st.just("all-linear")))),
        optim=draw(st.sampled_from(["adamw_torch", "adamw_torch_fused", "adamw_8bit", "sgd"])),
        sharding=Sharding(draw(st.sampled_from(kinds)), draw(st.integers(2, 64))),
        gradient_checkpointing=draw(st.booleans()),
        attention=draw(st.sampled_from(["sdpa", "flash_attention_2", "eager"])),
        generation_batch=draw(st.sampled_from([0, 1, 64])),
        fused_head=draw(st.booleans()),
    )


class TestQwen3:
    def test_resident_bytes_of_the_recipe(self, qwen3_4b):
        memory = held(trainer_memory(setup(qwen3_4b, lora=SEVEN)))
        assert memory["weights"] == 8_044_936_192
        assert memory["adapter"] == 264_241_152
        assert memory["optimizer states"] == 2 * 264_241_152

    def test_full_fine_tuning_holds_everything_in_the_models_dtype(self, qwen3_4b):
        memory = trainer_memory(setup(qwen3_4b))
        weights = 8_044_936_192
        assert held(memory)["optimizer states"] == 2 * weights
        assert phase(memory, "backward")["gradients"] == weights
        assert "adapter" not in held(memory)

    def test_a_reference_model_is_a_second_copy_and_lora_needs_none(self, qwen3_4b):
        full = trainer_memory(setup(qwen3_4b, reference_model=True))
        assert held(full)["reference model"] == 8_044_936_192
        assert "reference model" not in held(trainer_memory(setup(qwen3_4b, reference_model=True, lora=SEVEN)))

    def test_generation_by_transformers_holds_a_cache(self, qwen3_4b):
        memory = trainer_memory(setup(qwen3_4b, lora=SEVEN, generation_batch=64))
        assert phase(memory, "generate")["KV cache"] == 64 * 2048 * 147_456
        assert memory.peak_phase.name == "generate"

    def test_logits_of_all_tokens_exist_only_without_a_fused_head(self, qwen3_4b):
        fused = phase(trainer_memory(setup(qwen3_4b, lora=SEVEN)), "head")["logits"]
        whole = phase(trainer_memory(setup(qwen3_4b, lora=SEVEN, fused_head=False)), "head")["logits"]
        assert fused < 4 * 1846 * 151_936 * 2 < whole == 4 * 2048 * 151_936 * 12


class TestDtypes:
    @pytest.mark.parametrize(("kind", "expected"), [("ddp", 4), ("zero1", 2), ("zero2", 2), ("zero3", 2), ("fsdp2", 4)])
    def test_the_adapter_is_float32_except_under_deepspeed(self, qwen3_4b, kind, expected):
        assert setup(qwen3_4b, lora=SEVEN, sharding=Sharding(kind, 8)).trainable_bytes == expected

    def test_quantised_weights(self, qwen3_4b):
        whole = weight_bytes(qwen3_4b, "bfloat16")
        assert whole > weight_bytes(qwen3_4b, "bfloat16", "8bit") > weight_bytes(qwen3_4b, "bfloat16", "4bit")
        assert quantized_bytes(256, 128, "8bit") == 256 * 128 + 4 * 256
        assert quantized_bytes(256, 128, "4bit") == 256 * 128 // 2 + 4 * 256 * 128 // 64

    @pytest.mark.parametrize("changes", [{}, {"lora": SEVEN, "sharding": Sharding("fsdp2", 2)}])
    def test_quantised_weights_are_not_trained_or_sharded(self, qwen3_4b, changes):
        with pytest.raises(PlanError, match="4bit"):
            setup(qwen3_4b, quantization="4bit", **changes)


class TestSharding:
    @given(setups(), st.integers(2, 16))
    def test_partitions_sum_to_the_whole(self, one, processes):
        """Up to the padding that makes them equal: less than one element per process and tensor."""
        one = replace(one, lora=None, sharding=Sharding("zero3", processes), generation_batch=0)
        memory, parameters = trainer_memory(one), one.architecture.parameters()
        shares = held(memory)
        padding = processes * one.activation_bytes
        assert 0 <= shares["weights"] * processes - parameters * one.activation_bytes < padding
        assert 0 <= shares["master weights"] * processes - parameters * 4 < processes * 4
        gradients = phase(memory, "backward")["gradients"]
        assert 0 <= gradients * processes - parameters * one.activation_bytes < padding

    @pytest.mark.parametrize(("kind", "divided"), [("ddp", 0), ("zero1", 1), ("zero2", 2), ("zero3", 3)])
    def test_each_stage_divides_one_more(self, qwen3_4b, kind, divided):
        """Rajbhandari et al. 2020, figure 1: optimizer states, then gradients, then weights."""
        memory = trainer_memory(setup(qwen3_4b, sharding=Sharding(kind, 8), optim="adamw_torch_fused"))
        parts = {**phase(memory, "backward"), **held(memory)}
        parameters = qwen3_4b.parameters()
        whole = {"optimizer states": 8 if divided else 4, "gradients": 2, "weights": 2}
        for order, (name, size) in enumerate(whole.items(), start=1):
            share = -(-parameters // 8) if order <= divided else parameters
            assert parts[name] == share * size

    @settings(max_examples=200)
    @given(setups(kinds=("zero1", "zero2", "zero3", "fsdp2")))
    def test_more_processes_never_need_more(self, one):
        doubled = replace(one, sharding=Sharding(one.sharding.kind, 2 * one.sharding.num_processes))
        assert trainer_memory(doubled).total <= trainer_memory(one).total

    def test_a_thousand_nodes_hold_almost_nothing_of_the_states(self, qwen3_4b):
        memory = held(trainer_memory(setup(qwen3_4b, sharding=Sharding("zero3", 8192))))
        assert (
            memory["weights"] + memory["master weights"] + memory["optimizer states"]
            < 14 * qwen3_4b.parameters() / 8000
        )

    def test_ddp_copies_gradients_into_buckets(self, qwen3_4b):
        alone = held(trainer_memory(setup(qwen3_4b, lora=SEVEN, sharding=ONE_PROCESS)))
        several = held(trainer_memory(setup(qwen3_4b, lora=SEVEN, sharding=Sharding("ddp", 8))))
        assert "gradient buckets" not in alone
        assert several["gradient buckets"] == 264_241_152


class TestGrowth:
    @settings(max_examples=200)
    @given(setups(), st.sampled_from(["micro_batch", "prompt_tokens", "completion_tokens", "generation_batch"]))
    def test_longer_and_larger_never_need_less(self, one, name):
        more = replace(one, **{name: getattr(one, name) + 17})
        assert trainer_memory(more).total >= trainer_memory(one).total

    @given(setups())
    def test_checkpointing_keeps_less(self, one):
        kept = trainer_memory(replace(one, gradient_checkpointing=False))
        recomputed = trainer_memory(replace(one, gradient_checkpointing=True))
        assert phase(recomputed, "head")["activations"] <= phase(kept, "head")["activations"]


TRACED = [
    ("Qwen3-4B", 1, 2048, True, "sdpa", 9.36),
    ("Qwen3-4B", 4, 8192, True, "sdpa", 23.10),
    ("Qwen3-4B", 1, 8192, False, "sdpa", 64.92),
    ("Qwen3-0.6B", 4, 8192, True, "sdpa", 7.12),
    ("Qwen3-8B", 4, 2048, False, "sdpa", 83.07),
    ("Qwen3-4B", 1, 2048, True, "eager", 10.48),
    ("Qwen3-4B", 4, 2048, True, "eager", 16.50),
    ("Qwen3-4B", 1, 8192, True, "eager", 34.59),
]
"""Peak GiB of live tensors in the real step (Transformers, PEFT, TRL's loss), traced at full size without a device."""


@pytest.mark.parametrize(("model", "batch", "length", "checkpointing", "attention", "gib"), TRACED)
def test_the_step_takes_what_a_trace_of_the_real_one_took(model, batch, length, checkpointing, attention, gib):
    step = TrainerSetup(
        KNOWN[model],
        batch,
        1024,
        length - 1024,
        lora=SEVEN,
        gradient_checkpointing=checkpointing,
        attention=attention,
    )
    memory = trainer_memory(step)
    named = {part.name: part.bytes for part in memory.components}
    allocated = memory.total - named["margin"] - named["CUDA context"]
    assert allocated / GIB == pytest.approx(gib, rel=0.01)


class TestBreakdown:
    def test_json(self, qwen3_4b):
        memory = trainer_memory(setup(qwen3_4b, lora=SEVEN))
        told = json.loads(json.dumps(memory.to_dict()))
        assert told["total_bytes"] == memory.total == sum(part["bytes"] for part in told["components"])
        assert told["peak_phase"] == memory.peak_phase.name == "backward"
        assert told["phase_bytes"][told["peak_phase"]] == max(told["phase_bytes"].values()) == memory.total
        assert all(part["source"] for part in told["components"])

    def test_the_margin_is_a_component(self, qwen3_4b):
        memory = trainer_memory(setup(qwen3_4b, lora=SEVEN))
        named = {part.name: part.bytes for part in memory.components}
        allocated = memory.total - named["margin"] - named["CUDA context"]
        assert named["margin"] == int(MARGIN * allocated)

    def test_the_largest_component_is_named(self, qwen3_4b):
        assert trainer_memory(setup(qwen3_4b, lora=SEVEN)).largest().name == "weights"

    def test_fits_is_inclusive(self, qwen3_4b):
        memory = trainer_memory(setup(qwen3_4b, lora=SEVEN))
        assert memory.fits(memory.total) and not memory.fits(memory.total - 1)

    @pytest.mark.parametrize("name", ["micro_batch", "prompt_tokens", "completion_tokens"])
    def test_nothing_to_train_on_is_refused(self, qwen3_4b, name):
        with pytest.raises(PlanError, match="nothing to train on"):
            replace(setup(qwen3_4b), **{name: 0})

    def test_no_processes_are_refused(self):
        with pytest.raises(PlanError, match="0 training processes"):
            Sharding("zero2", 0)
