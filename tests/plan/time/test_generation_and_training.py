from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from timing_setups import ADAPTER, QWEN3_4B, RECIPE, layout, workload

from grpo_dist.errors import PlanError
from grpo_dist.plan.specs.hardware import gpu, link
from grpo_dist.plan.time import DEFAULTS, Lengths, generation_time, step_time, training_time, transformers_time
from grpo_dist.plan.time.training import kv_bytes, matmul_parameters, read_bytes

H100, NVLINK = gpu("h100"), link("nvlink4")
POOL = 40e9

numbers_of_completions = st.integers(1, 4096)
lengths = st.builds(
    lambda prompt, mean, more: Lengths(prompt, mean, mean + more),
    st.integers(0, 4000),
    st.integers(1, 8000),
    st.integers(0, 8000),
)


def generate(**changes):
    arguments = {
        "architecture": QWEN3_4B,
        "gpu": H100,
        "lengths": RECIPE,
        "completions": 512,
        "num_generations": 16,
        "replicas": 8,
        "kv_pool_bytes": POOL,
        "link": NVLINK,
    }
    return generation_time(**{**arguments, **changes})


def train(**changes):
    arguments = {"architecture": QWEN3_4B, "gpu": H100, "lengths": RECIPE, "completions": 64, "micro_batch": 8}
    return training_time(**{**arguments, **changes})


def test_known_sizes_of_qwen3_4b():
    """Norms aside, every parameter is multiplied with once: the tied table is the head."""
    norms = QWEN3_4B.parameters() - matmul_parameters(QWEN3_4B)
    assert norms == 36 * (2 * 2560 + 2 * 128) + 2560
    assert read_bytes(QWEN3_4B, H100) + 2 * norms == 8_044_936_192
    assert kv_bytes(QWEN3_4B, H100) == 147_456


def test_one_decode_step_is_weights_over_bandwidth():
    """One short sequence, all efficiencies 1, no overhead: 8.04 GB / 3.35 TB/s = 2.4 ms a token."""
    ideal = {"decode_bandwidth": 1.0, "decode_step_seconds": 0.0}
    efficiencies = DEFAULTS.with_values("ideal", **ideal)
    found = generate(lengths=Lengths(0, 100, 100), completions=1, replicas=1, lora=False, efficiencies=efficiencies)
    assert found.decode_seconds / 100 == pytest.approx(8.0445e9 / 3.35e12, rel=0.01)


def test_full_fine_tuning_takes_eight_flops_per_weight_and_lora_six():
    """At the FLOP/s roof, with checkpointing: 4/3; the head, which is not recomputed, moves it towards 3/2."""
    efficiencies = DEFAULTS.with_values("ideal", activation_passes=0.0, matmul=1.0)
    whole = Lengths(200, 1846, 1846)
    full, lora = (train(lora=lora, lengths=whole, efficiencies=efficiencies).seconds for lora in (False, True))
    assert 4 / 3 < full / lora < 1.36
    tokens = 64 * (200 + 1846)
    assert lora * H100.flops / (tokens * matmul_parameters(QWEN3_4B)) == pytest.approx(6, rel=0.1)


def test_checkpointing_costs_one_more_forward():
    assert train().seconds / train(checkpointing=False).seconds == pytest.approx(1.5, rel=0.05)


def test_scoring_is_one_forward_each():
    assert train(scoring_forwards=2).scoring_seconds == pytest.approx(2 * train(scoring_forwards=1).scoring_seconds)
    assert train().scoring_seconds == 0


def test_small_micro_batches_wait_for_python():
    """64 single short sequences launch as many kernels as 64 long ones."""
    short = Lengths(0, 16, 16)
    one_by_one, together = train(lengths=short, micro_batch=1), train(lengths=short, micro_batch=64)
    assert one_by_one.seconds > 30 * together.seconds


def test_an_unmerged_adapter_slows_decoding():
    assert generate(lora=True).seconds > 1.2 * generate(lora=False).seconds


def test_waves():
    """Twice what fits at a time: one more mean length of decode steps before the last completion is done."""
    one, two = (generate(completions=n, replicas=1, max_num_seqs=64) for n in (64, 128))
    assert (one.concurrency, one.steps) == (64, RECIPE.longest)
    assert (two.concurrency, two.steps) == (64, RECIPE.longest + RECIPE.mean)


def test_concurrency_comes_from_the_kv_cache():
    per_sequence = 147_456 * (RECIPE.prompt + RECIPE.mean)
    assert generate(completions=512, replicas=1, kv_pool_bytes=10.5 * per_sequence).concurrency == 10


def test_no_room_for_one_sequence():
    with pytest.raises(PlanError, match=r"one sequence of 2,046 tokens needs 0\.30 GB of KV cache") as raised:
        generate(kv_pool_bytes=0.2e9)
    assert "tensor parallel" in raised.value.hint


@settings(deadline=None)
@given(numbers_of_completions, lengths, st.floats(1.0, 8.0))
def test_more_bandwidth_is_never_slower(completions, lengths, faster):
    better = replace(H100, bandwidth=H100.bandwidth * faster)
    at = {"completions": completions, "lengths": lengths}
    assert generate(**at, gpu=better).seconds <= generate(**at).seconds
    assert train(**at, gpu=better).seconds <= train(**at).seconds
    eager = {**at, "architecture": QWEN3_4B, "processes": 1}
    assert transformers_time(gpu=better, **eager).seconds <= transformers_time(gpu=H100, **eager).seconds


@settings(deadline=None)
@given(numbers_of_completions, lengths, st.integers(1, 64), st.integers(0, 64))
def test_more_replicas_are_never_slower(completions, lengths, replicas, more):
    at = {"completions": completions, "lengths": lengths}
    assert generate(**at, replicas=replicas + more).seconds <= generate(**at, replicas=replicas).seconds


@settings(deadline=None)
@given(numbers_of_completions, lengths, st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
def test_longer_is_never_faster(completions, lengths, prompt, mean, longest):
    longer = Lengths(lengths.prompt + prompt, lengths.mean + mean, lengths.longest + mean + longest)
    at = {"completions": completions}
    assert generate(**at, lengths=longer).seconds >= generate(**at, lengths=lengths).seconds * (1 - 1e-9)
    # Of many micro-batches some are looked at: a hundredth may go either way.
    assert train(**at, lengths=longer).seconds >= 0.99 * train(**at, lengths=lengths).seconds


@settings(deadline=None)
@given(lengths, st.integers(1, 512), st.integers(0, 512))
def test_more_completions_are_never_faster(lengths, completions, more):
    few, many = ({"completions": n, "lengths": lengths} for n in (completions, completions + more))
    assert generate(**many).seconds >= generate(**few).seconds
    assert train(**many, micro_batch=1).seconds >= train(**few, micro_batch=1).seconds


@settings(deadline=None)
@given(st.floats(1e9, 1e11), st.floats(1.0, 10.0))
def test_more_kv_cache_is_never_slower(pool, more):
    assert generate(kv_pool_bytes=pool * more).seconds <= generate(kv_pool_bytes=pool).seconds


def test_tensor_parallel_halves_the_weights_and_adds_sums():
    """Halving 2.4 ms of weights saves 1.7 ms a step; 72 sums over NVLink cost 0.4 ms; the KV cache is halved too."""
    alone = generate(completions=16, replicas=1, lora=False)
    halved = generate(completions=16, replicas=1, lora=False, tensor_parallel=2)
    assert 1.2 < alone.seconds / halved.seconds < 2


class TestStep:
    def test_parts_add_up_and_are_named(self):
        found = step_time(workload(), layout())
        assert [part.name for part in found.parts] == [
            "generation",
            "scoring",
            "training",
            "gradient sync",
            "policy sync",
        ]
        assert found.seconds == pytest.approx(sum(part.seconds for part in found.parts))
        assert found.part("weight gathering") == 0

    def test_everything_it_rests_on_can_be_printed(self):
        written = step_time(workload(), layout()).to_dict()
        values = {row["name"]: row["value"] for row in written["assumptions"]}
        assert values["decode_bandwidth"] == 0.72
        assert values["completion tokens, mean"] == 1000
        assert values["h100 FLOP/s (bfloat16)"] == 989.4e12
        assert all(row["source"] for row in written["assumptions"])
        assert written["tokens_per_step"] == 32 * 16 * 1200

    def test_a_generation_window_serves_all_its_optimizer_steps(self):
        once, thrice = (step_time(workload(num_iterations=n), layout()) for n in (1, 3))
        assert thrice.part("generation") == pytest.approx(once.part("generation") / 3)
        assert thrice.part("training") == once.part("training")

    def test_merged_weights_generate_faster_and_travel_slower(self):
        apart = layout(nodes=2, trainer_gpus=8, rollout_gpus=8, inter=link("10gbe"))
        adapter, merged = (step_time(workload(), replace(apart, syncs_adapter=alone)) for alone in (True, False))
        assert merged.part("generation") < adapter.part("generation")
        assert merged.part("policy sync") > 10 * adapter.part("policy sync")

    def test_partitioned_weights_are_gathered(self):
        """Three times for each of 8 micro-batches (scoring, forward, backward): 7/8 of 8.04 GB over 369 GB/s."""
        expected = 8 * 3 * 8.045e9 * 7 / 8 / (450e9 * 0.82)
        found = step_time(workload(), layout(partitioned=True)).part("weight gathering")
        assert found == pytest.approx(expected, rel=0.01)

    def test_generation_in_the_training_processes(self):
        found = step_time(workload(scoring_forwards=0), layout(uses_vllm=False))
        assert found.part("policy sync") == 0
        assert found.part("generation") > 5 * step_time(workload(), layout()).part("generation")

    def test_generation_beside_training_costs_the_longer_of_the_two(self):
        apart = layout(nodes=2, trainer_gpus=8, rollout_gpus=8)
        in_turns, overlapped = (step_time(workload(), replace(apart, max_staleness=s)) for s in (0, 1))
        generation, sync = in_turns.part("generation"), in_turns.part("policy sync")
        training = in_turns.seconds - generation - sync
        assert overlapped.seconds == pytest.approx(max(generation, training) + sync)
        assert overlapped.part("overlap") == pytest.approx(-min(generation, training))

    def test_batches_written_together_hide_the_longest_completions(self):
        apart = layout(nodes=2, trainer_gpus=15, rollout_gpus=1)
        generation = [step_time(workload(), replace(apart, max_staleness=s)).part("generation") for s in (0, 1, 2, 4)]
        assert generation[0] == generation[1] > generation[2] > generation[3]

    def test_gpu_hours(self):
        found = step_time(workload(), layout(nodes=4))
        assert found.gpu_hours == pytest.approx(found.seconds * 32 / 3600)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"trainer_gpus": 7, "rollout_gpus": 2}, "do not fit 1 nodes × 8 GPUs = 8"),
            ({"trainer_gpus": 0, "rollout_gpus": 8}, "0 training and 8 generating GPUs"),
            ({"trainer_gpus": 5, "rollout_gpus": 3, "tensor_parallel": 2}, "do not divide into replicas of 2"),
        ],
    )
    def test_layouts_that_cannot_be(self, changes, message):
        with pytest.raises(PlanError, match=message):
            layout(**changes)

    def test_lengths_that_cannot_be(self):
        with pytest.raises(PlanError, match="are no lengths"):
            Lengths(prompt=100, mean=500, longest=400)

    def test_trainable_parameters_do_not_change_generation(self):
        few, many = (step_time(workload(trainable_parameters=n), layout(nodes=2)) for n in (ADAPTER, 4 * ADAPTER))
        assert few.part("generation") == many.part("generation")
        assert few.part("gradient sync") < many.part("gradient sync")
