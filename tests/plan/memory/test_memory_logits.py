"""The output head against TRL's own fused head and Transformers' loss, on the CPU."""

from __future__ import annotations

import pytest
import torch
from live_tensors import Peak, saved_for_backward
from transformers.loss.loss_utils import ForCausalLMLoss
from trl.kernels import chunked_logprob
from trl.trainer import utils

from grpo_dist.plan.memory.activations import (
    TILE_TOKENS,
    TILE_VOCABULARY,
    full_bytes,
    fused_saved_bytes,
    fused_working_bytes,
    tile_bytes,
)
from grpo_dist.plan.specs.architecture import from_config

HIDDEN, VOCABULARY = 24, 700


def fused(hidden, weight):
    labels = torch.zeros(len(hidden), dtype=torch.long)
    arguments = (None, labels, 1.0, TILE_VOCABULARY, None, 1.0, ("log_probs", "entropy"))
    return chunked_logprob.ChunkedLogProbFunction.apply(hidden, weight, *arguments)


def test_tiles_are_as_large_as_trl_makes_them():
    assert TILE_TOKENS == chunked_logprob.TOKEN_CHUNK_SIZE
    assert TILE_VOCABULARY == utils._CHUNKED_LOGPROB_CHUNK_SIZE


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_tile_is_what_the_fused_head_allocates(dtype):
    hidden = torch.randn(300, HIDDEN, dtype=dtype, requires_grad=True)
    weight = torch.randn(VOCABULARY, HIDDEN, dtype=dtype)
    with Peak() as forward:
        logprobs, entropy, *_ = fused(hidden, weight)
    with Peak() as backward:
        (logprobs.sum() + 0 * entropy.sum()).backward()
    for peak in (forward, backward):
        assert max(peak.largest) == tile_bytes(300, dtype.itemsize)


def test_the_fused_head_never_makes_more_than_a_tile_of_logits():
    hidden = torch.randn(TILE_TOKENS + 50, HIDDEN, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(40, HIDDEN, dtype=torch.bfloat16)
    with Peak() as peak:
        fused(hidden, weight)[0].sum().backward()
    assert max(peak.largest) == tile_bytes(len(hidden), 2) == TILE_TOKENS * TILE_VOCABULARY * 2


@pytest.mark.parametrize("trains_head", [False, True])
def test_the_fused_head_as_a_whole(trains_head):
    """In float32, and with few words for the width: on the CPU a tile is folded by more float32 temporaries of the
    used width, and bfloat16 inputs are copied, which the GPU kernels spare."""
    tokens, hidden_size, vocabulary = 8, 4096, 64
    hidden = torch.randn(tokens, hidden_size, requires_grad=True)
    weight = torch.nn.Parameter(torch.randn(vocabulary, hidden_size), requires_grad=trains_head)
    fused(hidden, weight)[0].sum().backward()
    with Peak() as peak:
        fused(hidden, weight)[0].sum().backward()
    shape = dict.fromkeys(("intermediate_size", "num_hidden_layers", "num_attention_heads"), 1)
    shape |= {"vocab_size": vocabulary, "hidden_size": hidden_size, "max_position_embeddings": 8}
    tiny = from_config({"model_type": "llama", **shape}, "tiny")
    assert fused_working_bytes(tokens, tiny, 4, trains_head=trains_head) == pytest.approx(peak.most, rel=0.05)


def test_what_the_fused_head_keeps():
    hidden = torch.randn(300, HIDDEN, dtype=torch.bfloat16, requires_grad=True)
    head = torch.nn.Linear(HIDDEN, VOCABULARY, bias=False, dtype=torch.bfloat16)
    assert saved_for_backward(head, lambda: fused(hidden, head.weight)) == fused_saved_bytes(300, HIDDEN, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_head_that_is_not_fused(dtype):
    tokens = 128
    hidden = torch.randn(1, tokens, HIDDEN, dtype=dtype, requires_grad=True)
    weight = torch.randn(VOCABULARY, HIDDEN, dtype=dtype)
    labels = torch.randint(0, VOCABULARY, (1, tokens))
    with Peak() as peak:
        ForCausalLMLoss(torch.nn.functional.linear(hidden, weight), labels, VOCABULARY).backward()
    assert full_bytes(tokens, VOCABULARY) == pytest.approx(peak.most, rel=0.02)
