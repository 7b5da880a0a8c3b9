"""A vLLM replica, alone and beside a training process."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_dist.errors import PlanError
from grpo_dist.plan.memory import (
    Lora,
    RolloutSetup,
    TrainerSetup,
    colocated_memory,
    kv_cache_tokens,
    max_concurrency,
    minimum_utilization,
    rollout_memory,
    trainer_memory,
)
from grpo_dist.plan.memory.breakdown import CUDA_CONTEXT
from grpo_dist.plan.memory.vllm import SERVED_RANKS, served_rank
from grpo_dist.plan.specs.lookup import KNOWN

GIB = 2**30


def parts(memory) -> dict[str, int]:
    return {component.name: component.bytes for component in memory.components}


@pytest.fixture
def replica(qwen3_4b) -> RolloutSetup:
    return RolloutSetup(qwen3_4b, gpu_bytes=80 * GIB, max_model_len=2048, max_lora_rank=32)


@st.composite
def replicas(draw):
    return RolloutSetup(
        architecture=draw(st.sampled_from(list(KNOWN.values()))),
        gpu_bytes=draw(st.integers(8, 200)) * GIB,
        max_model_len=draw(st.integers(1, 40_000)),
        gpu_memory_utilization=draw(st.floats(0.05, 1)),
        tensor_parallel_size=draw(st.sampled_from([1, 2, 4, 8])),
        max_num_seqs=draw(st.integers(1, 1024)),
        max_lora_rank=draw(st.integers(0, 512)),
        enforce_eager=draw(st.booleans()),
    )


class TestReplica:
    def test_weights_of_qwen3_4b(self, replica):
        assert parts(rollout_memory(replica))["weights"] == 8_044_936_192

    def test_the_cache_takes_what_the_budget_leaves(self, replica):
        memory, named = rollout_memory(replica), parts(rollout_memory(replica))
        assert named["KV cache"] == kv_cache_tokens(replica) * 147_456
        assert 0 <= replica.budget + CUDA_CONTEXT - memory.total < 16 * 147_456

    def test_adapter_slots_are_those_of_the_rank_vllm_allows(self, replica):
        assert parts(rollout_memory(replica))["adapter slots"] == 2 * 66_060_288 * 2
        assert parts(rollout_memory(replace(replica, max_lora_rank=33)))["adapter slots"] == 4 * 66_060_288 * 2
        assert "adapter slots" not in parts(rollout_memory(replace(replica, max_lora_rank=0)))

    @pytest.mark.parametrize(("r", "served"), [(0, 0), (1, 1), (2, 8), (9, 16), (64, 64), (257, 320), (512, 512)])
    def test_ranks_are_rounded_up(self, r, served):
        assert served_rank(r) == served
        assert served in (0, *SERVED_RANKS)

    def test_graphs_are_those_vllm_captures(self, replica):
        """vLLM's log for 256 sequences: PIECEWISE=51, FULL=35."""
        per_graph = 36 * 180_000
        plain = replace(replica, max_num_seqs=256, max_lora_rank=0)
        assert parts(rollout_memory(plain))["CUDA graphs"] == (51 + 35) * per_graph
        assert parts(rollout_memory(replace(plain, max_lora_rank=32)))["CUDA graphs"] == 2 * (51 + 35) * per_graph
        assert "CUDA graphs" not in parts(rollout_memory(replace(replica, enforce_eager=True)))

    @pytest.mark.parametrize("size", [2, 4, 8])
    def test_tensor_parallel_parts_sum_to_the_whole_but_for_what_is_repeated(self, replica, size):
        whole = replica.architecture
        local = parts(rollout_memory(replace(replica, tensor_parallel_size=size)))["weights"]
        repeated = whole.num_hidden_layers * whole.norm_parameters() + whole.hidden_size
        padding = (-whole.vocab_size % (64 * size)) * whole.hidden_size
        assert local * size == 2 * (whole.parameters() + padding + (size - 1) * repeated)

    def test_key_heads_are_repeated_beyond_their_number(self):
        wide = RolloutSetup(KNOWN["Qwen3-32B"], 80 * GIB, 2048, tensor_parallel_size=16)
        assert wide.key_value_heads == 1

    def test_concurrency(self, replica):
        assert max_concurrency(replica) == kv_cache_tokens(replica) // 2048
        assert max_concurrency(replace(replica, max_num_seqs=8)) == 8
        assert max_concurrency(replace(replica, gpu_bytes=8 * GIB)) == 0

    @given(replicas(), st.integers(1, 8))
    def test_the_minimum_utilization_holds_as_many_as_asked(self, one, concurrency):
        one = replace(one, max_num_seqs=max(one.max_num_seqs, concurrency))
        least = minimum_utilization(one, concurrency)
        if least <= 1:
            assert max_concurrency(replace(one, gpu_memory_utilization=least)) >= concurrency
        if 0.01 < least <= 1:
            assert max_concurrency(replace(one, gpu_memory_utilization=least - 0.01)) < concurrency

    @given(replicas())
    def test_more_room_never_holds_less(self, one):
        more = replace(one, gpu_bytes=2 * one.gpu_bytes)
        assert kv_cache_tokens(more) >= kv_cache_tokens(one) >= 0

    @pytest.mark.parametrize("size", [3, 5, 64])
    def test_heads_that_do_not_divide_are_refused(self, replica, size):
        with pytest.raises(PlanError, match=f"{size} does not divide the 32 attention heads") as caught:
            replace(replica, tensor_parallel_size=size)
        assert "1, 2, 4, 8, 16, 32" in caught.value.hint

    @pytest.mark.parametrize("share", [0, -0.5, 1.01])
    def test_an_impossible_share_is_refused(self, replica, share):
        with pytest.raises(PlanError, match="gpu_memory_utilization"):
            replace(replica, gpu_memory_utilization=share)

    def test_a_rank_vllm_does_not_serve_is_refused(self, replica):
        with pytest.raises(PlanError, match="rank 513"):
            replace(replica, max_lora_rank=513)


class TestColocated:
    @pytest.fixture
    def trainer(self, qwen3_4b):
        lora = Lora(32, "all-linear")
        return trainer_memory(TrainerSetup(qwen3_4b, 4, 202, 1846, lora=lora))

    def test_side_by_side_both_are_there_all_the_time(self, replica, trainer):
        engine = rollout_memory(replace(replica, gpu_memory_utilization=0.3))
        both = colocated_memory(trainer, engine, sleep=False)
        assert both.total == trainer.total + engine.total - CUDA_CONTEXT

    def test_asleep_only_graphs_and_workspaces_stay(self, replica, trainer):
        engine = rollout_memory(replace(replica, gpu_memory_utilization=0.3))
        both = colocated_memory(trainer, engine, sleep=True)
        named = parts(engine)
        asleep = named["CUDA graphs"] + named["vLLM workspaces"]
        resident = sum(component.bytes for component in trainer.resident)
        told = both.to_dict()["phase_bytes"]
        assert told["backward"] == trainer.total + asleep
        assert told["serve"] == resident + engine.total - CUDA_CONTEXT
        assert both.total < colocated_memory(trainer, engine, sleep=False).total
