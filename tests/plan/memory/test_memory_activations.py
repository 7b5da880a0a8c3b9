"""Activations against what PyTorch keeps and allocates on the CPU: within 10 %."""

from __future__ import annotations

import pytest
import torch
from live_tensors import Peak, saved_for_backward
from tiny_models import Case, build, decoder, planned

from grpo_dist.plan.memory.activations import forward_bytes, saved_bytes, working_bytes
from grpo_dist.plan.specs.architecture import FAMILIES

KINDS = [
    pytest.param(dtype, lora, checkpointing, id=f"{dtype}-{lora or 'full'}-{'recomputed' if checkpointing else 'kept'}")
    for dtype in ("bfloat16", "float32")
    for lora in ("all-linear", None)
    for checkpointing in (False, True)
]


@pytest.mark.parametrize(("dtype", "lora", "checkpointing"), KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_saved_tensors(family, dtype, lora, checkpointing):
    case = Case(family, dtype, lora, checkpointing, num_hidden_layers=2, length=64, sequences=2)
    model, architecture = build(case)
    kept = saved_for_backward(model, decoder(model, case))
    assert saved_bytes(planned(case, architecture), checkpointing=checkpointing) == pytest.approx(kept, rel=0.1)


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj"), ("o_proj",)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_saved_tensors_of_fewer_targets(targets, dtype):
    """Below the first adapted layer nothing is kept, which weighs less the more layers there are."""
    case = Case(dtype=dtype, lora=targets, num_hidden_layers=12)
    model, architecture = build(case)
    kept = saved_for_backward(model, decoder(model, case))
    assert saved_bytes(planned(case, architecture), checkpointing=False) == pytest.approx(kept, rel=0.1)


@pytest.mark.parametrize(("attention", "padded"), [("sdpa", True), ("sdpa", False), ("eager", True)])
def test_saved_tensors_of_long_sequences(attention, padded):
    case = Case(attention=attention, padded=padded, length=400, sequences=1, num_hidden_layers=2)
    model, architecture = build(case)
    kept = saved_for_backward(model, decoder(model, case))
    assert saved_bytes(planned(case, architecture), checkpointing=False) == pytest.approx(kept, rel=0.1)


@pytest.mark.parametrize(("dtype", "lora", "checkpointing"), KINDS)
@pytest.mark.parametrize("shape", [{}, {"hidden_size": 128, "intermediate_size": 384}, {"num_hidden_layers": 7}])
def test_peak_of_forward_and_backward(dtype, lora, checkpointing, shape):
    case = Case("qwen3", dtype, lora, checkpointing, **shape)
    model, architecture = build(case)
    forward = decoder(model, case)
    differentiate(forward())
    with Peak() as peak:
        differentiate(forward())
    run = planned(case, architecture)
    predicted = saved_bytes(run, checkpointing=checkpointing) + working_bytes(run, checkpointing=checkpointing)
    assert predicted == pytest.approx(peak.most, rel=0.1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("shape", [{}, {"intermediate_size": 64}, {"hidden_size": 256, "intermediate_size": 1024}])
def test_peak_of_a_forward_pass_that_keeps_nothing(dtype, shape):
    case = Case(dtype=dtype, **shape)
    model, architecture = build(case)
    forward = decoder(model, case)
    with torch.no_grad(), Peak() as peak:
        forward()
    assert forward_bytes(planned(case, architecture)) == pytest.approx(peak.most, rel=0.15)


def differentiate(hidden: torch.Tensor) -> None:
    """Gradients are there already the second time: what is left is what the pass itself needs."""
    hidden.backward(torch.ones_like(hidden))
