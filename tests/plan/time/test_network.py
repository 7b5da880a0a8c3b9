from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_dist.plan.specs.hardware import gpu, link
from grpo_dist.plan.time import adapter_sync_time, gather_time, gradient_sync_time, merged_sync_time
from grpo_dist.plan.time.network import latency

NVLINK, NDR, GIGABIT = link("nvlink4"), link("ndr"), link("10gbe")
ADAPTER, MERGED = 132_120_576, 8_044_936_192


def test_adapter_against_merged_over_the_network():
    """61 times the bytes; over 10 GbE that is 0.3 s against 8 s, loading and merging included."""
    assert pytest.approx(60.9, rel=0.01) == MERGED / ADAPTER
    assert adapter_sync_time(ADAPTER, 1, GIGABIT) == pytest.approx(0.2 + 2 * ADAPTER / (1.25e9 * 0.82))
    assert merged_sync_time(MERGED, gpu("h100"), GIGABIT) == pytest.approx(MERGED / (1.25e9 * 0.82), rel=0.01)


def test_merging_on_one_gpu_moves_the_weights_through_memory_only():
    assert merged_sync_time(MERGED, gpu("h100"), None) == pytest.approx(6 * MERGED / (3.35e12 * 0.85))


def test_one_rank_has_nothing_to_sum():
    assert gradient_sync_time(66_060_288, 1, 1, NVLINK, NDR) == 0


def test_adapter_gradients_are_32_bit_and_go_round_twice():
    """66,060,288 × 4 bytes × 2 × 7/8 over 450 GB/s × 0.82 = 1.25 ms, and 24 µs of latency."""
    expected = 2 * 66_060_288 * 4 * 7 / 8 / (450e9 * 0.82)
    assert gradient_sync_time(66_060_288, 8, 1, NVLINK, NDR) == pytest.approx(expected, rel=0.03)


def test_latency_grows_with_the_logarithm_of_the_nodes():
    """NCCL's tree: 6.8 + 2 × (7 × 0.6 + log2(nodes) × 5) µs."""
    assert latency(8, 1, NVLINK, NDR) == pytest.approx(15.2e-6)
    assert latency(8192, 1024, NVLINK, NDR) == pytest.approx(115.2e-6)


@settings(deadline=None)
@given(st.integers(1, 10**10), st.integers(1, 8192), st.integers(1, 1024), st.integers(0, 10**9))
def test_more_bytes_never_arrive_sooner(size, ranks, nodes, more):
    nodes = min(nodes, ranks)
    at = (ranks, nodes, NVLINK, NDR)
    assert gather_time(size + more, *at) >= gather_time(size, *at)


@settings(deadline=None)
@given(st.integers(1, 10**10), st.integers(1, 64), st.integers(0, 64))
def test_more_readers_never_take_less(size, readers, more):
    assert adapter_sync_time(size, readers + more, NDR) >= adapter_sync_time(size, readers, NDR)
