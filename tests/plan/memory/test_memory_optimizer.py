"""Optimizer states against the tensors real optimizers make."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.optimization import Adafactor

from grpo_dist.config.trl_fields import OptimizerName
from grpo_dist.errors import PlanError
from grpo_dist.plan.memory.optimizer import OPTIMIZERS, optimizer_bytes, step_bytes

SHAPES = (((17, 33), 2), ((40,), 3), ((128, 64), 1))

REAL = {
    "adamw_torch": torch.optim.AdamW,
    "adamw_torch_fused": lambda parameters: torch.optim.AdamW(parameters, fused=True),
    "adafactor": lambda parameters: Adafactor(parameters, lr=1e-3, scale_parameter=False, relative_step=False),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-3),
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
}


def real_states(name: str, dtype: torch.dtype) -> int:
    """Bytes of every state tensor but scalars, after a step."""
    parameters = [torch.nn.Parameter(torch.randn(shape, dtype=dtype)) for shape, n in SHAPES for _ in range(n)]
    optimizer = REAL[name](parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    tensors = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    return sum(tensor.nbytes for tensor in tensors if tensor.dim() > 0)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_are_the_real_ones(name, dtype):
    assert optimizer_bytes(name, SHAPES, dtype.itemsize) == real_states(name, dtype)


def test_every_optimizer_a_run_may_name_is_known():
    assert set(OPTIMIZERS) == set(get_args(OptimizerName))


def test_an_unknown_optimizer_is_refused_with_the_known_ones():
    with pytest.raises(PlanError, match="adam_turbo") as caught:
        optimizer_bytes("adam_turbo", SHAPES, 4)
    assert "adamw_8bit" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("adamw_8bit", 2 * (65_536 + 4 * 256)),
        ("paged_adamw_8bit", 2 * (65_536 + 4 * 256)),
        ("paged_adamw_32bit", 8 * 65_536),
        ("lion_8bit", 65_536 + 4 * 256),
        ("lion_32bit", 4 * 65_536),
        ("ademamix_8bit", 3 * (65_536 + 4 * 256)),
        ("adamw_torch_4bit", 2 * (65_536 // 2 + 4 * 256)),
        ("lomo", 0),
    ],
)
def test_quantised_states(name, expected):
    assert optimizer_bytes(name, (((256, 256), 1),), 2) == expected


def test_small_tensors_keep_float32_states():
    assert optimizer_bytes("adamw_8bit", (((4095,), 10),), 2) == 10 * 8 * 4095


def test_foreach_holds_a_square_root_of_every_second_moment():
    assert step_bytes("adamw_torch", 1000, 4) == 4000
    assert step_bytes("adamw_torch_fused", 1000, 4) == 0


@given(st.sampled_from(sorted(OPTIMIZERS)), st.integers(1, 300), st.integers(1, 300), st.sampled_from([2, 4]))
def test_more_parameters_never_need_less(name, rows, columns, size):
    smaller = optimizer_bytes(name, (((rows, columns), 1),), size)
    assert 0 <= smaller <= optimizer_bytes(name, (((rows, columns), 2),), size)
