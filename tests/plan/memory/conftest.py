"""Shared by the memory tests: a real model and the architecture of the same shape."""

from __future__ import annotations

import pytest

from grpo_dist.plan.specs import Architecture, architecture_of


@pytest.fixture
def qwen3_4b() -> Architecture:
    return architecture_of("Qwen/Qwen3-4B", environ={"HF_HUB_CACHE": "/nonexistent"})


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
