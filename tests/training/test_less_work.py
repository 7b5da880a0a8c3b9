"""Less work per step, and the same step: against TRL's own trainer, on the same completions."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROUNDS = 2
"""Generation batches of the two optimizer steps."""
MICRO_BATCHES = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The embedded model, hardly trained: gradients are all that is wanted of it."""
    from grpo_dist.embedded.model import build

    path = tmp_path_factory.mktemp("untrained") / "model"
    build(path, 11, lambda _: None, _steps=1)
    return path


@pytest.fixture
def both(model, tmp_path, monkeypatch, missing) -> Callable[..., tuple[Any, Any]]:
    """Steps of TRL's trainer and of ours with the same arguments."""
    if find_spec("vllm") is None:
        missing("vllm is not installed")
    from stub_rollouts import Ours, StubVLLM, make_trainer, take_steps
    from trl import GRPOTrainer
    from trl.trainer import grpo_trainer

    monkeypatch.setattr(grpo_trainer, "VLLMGeneration", StubVLLM)

    def run(**arguments: Any) -> tuple[Any, Any]:
        stock, ours = (take_steps(make_trainer(kind, model, tmp_path, **arguments)) for kind in (GRPOTrainer, Ours))
        return stock, ours

    return run


def assert_same_steps(stock: Any, ours: Any) -> None:
    """Loss, gradients and what was measured of sampling, up to the order of floating-point sums.

    Rows stand in other batches with less padding, so not to the bit: matrix products are cut into other blocks.
    """
    import torch

    assert len(ours.gradients) == len(stock.gradients) > 0
    for expected, found in zip(stock.gradients, ours.gradients, strict=True):
        largest = max(gradient.abs().max().item() for gradient in expected.values())
        assert largest > 1e-4
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5 * largest, msg=name)
    assert any(name.startswith("sampling/") for name in stock.logs[0])
    for expected, found in zip(stock.logs, ours.logs, strict=True):
        same = {name for name in expected if name.startswith(("sampling/", "completions/", "reward", "loss"))}
        assert {name: found[name] for name in same} == pytest.approx({name: expected[name] for name in same}, rel=1e-4)


def test_the_step_is_trls_without_its_scoring_pass(both):
    stock, ours = both()
    assert_same_steps(stock, ours)
    assert (stock.forwards, ours.forwards) == (2 * ROUNDS * MICRO_BATCHES, ROUNDS * MICRO_BATCHES)
    assert ours.tokens < stock.tokens / 2


@pytest.mark.heavy
@pytest.mark.parametrize(
    "arguments",
    [
        {"loss_type": "grpo", "vllm_importance_sampling_mode": "token_truncate"},
        {
            "loss_type": "dr_grpo",
            "vllm_importance_sampling_mode": "token_mask",
            "vllm_importance_sampling_clip_min": 0.8,
            "vllm_importance_sampling_clip_max": 1.2,
        },
        {
            "loss_type": "cispo",
            "vllm_importance_sampling_mode": "sequence_truncate",
            "vllm_importance_sampling_clip_min": 0.5,
            "vllm_importance_sampling_clip_max": 1.5,
        },
        {"loss_type": "luspo", "importance_sampling_level": "sequence"},
        {"loss_type": "sapo", "pad_to_multiple_of": 4},
        {"loss_type": "bnpo"},
        {"mask_truncated_completions": True},
        {"top_entropy_quantile": 0.5, "off_policy_mask_threshold": 0.01},
        {"entropy_coef": 0.01},
        {"steps_per_generation": 2},
    ],
    ids=lambda arguments: "-".join(map(str, arguments.values())),
)
def test_so_it_is_for_every_loss_and_correction(both, arguments):
    stock, ours = both(**arguments)
    assert_same_steps(stock, ours)
    assert (stock.forwards, ours.forwards) == (2 * ROUNDS * MICRO_BATCHES, ROUNDS * MICRO_BATCHES)
    assert ours.tokens < stock.tokens / 2


@pytest.mark.heavy
def test_the_reference_model_is_still_asked(both):
    stock, ours = both(beta=0.1, use_bias_correction_kl=True)
    assert_same_steps(stock, ours)
    assert (stock.forwards, ours.forwards) == (3 * ROUNDS * MICRO_BATCHES, 2 * ROUNDS * MICRO_BATCHES)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "arguments",
    [
        {"num_iterations": 2},
        {"steps_per_generation": 8},
        {"loss_type": "vespo", "vllm_importance_sampling_mode": "token_truncate"},
    ],
    ids=["completions serve two steps", "completions are shared by two steps", "vespo"],
)
def test_where_old_scores_differ_they_are_computed(both, arguments):
    stock, ours = both(**arguments)
    assert_same_steps(stock, ours)
    assert ours.forwards == stock.forwards > ROUNDS * MICRO_BATCHES


@pytest.mark.heavy
def test_dropout_is_drawn_anew_in_every_pass_so_all_are_made(both):
    stock, ours = both(lora={"lora_dropout": 0.1})
    assert ours.forwards == stock.forwards == 2 * ROUNDS * MICRO_BATCHES


@pytest.mark.heavy
def test_without_correction_there_was_nothing_to_skip(both):
    stock, ours = both(vllm_importance_sampling_correction=False)
    assert ours.forwards == stock.forwards == ROUNDS * MICRO_BATCHES
    assert ours.tokens < stock.tokens


def padded(lengths: list[tuple[int, int]]) -> dict[str, Any]:
    """A batch of rows with (prompt, completion) tokens, padded as TRL pads; ids tell rows apart."""
    import torch
    from trl.trainer.utils import pad

    prompts, completions = zip(*[(torch.full((p,), p), torch.full((c,), c)) for p, c in lengths], strict=True)
    return {
        "prompt_ids": pad(list(prompts), padding_side="left"),
        "prompt_mask": pad([torch.ones_like(x) for x in prompts], padding_side="left"),
        "completion_ids": pad(list(completions)),
        "completion_mask": pad([torch.ones_like(x) for x in completions]),
        "importance_sampling_ratio": torch.ones(len(lengths), 1),
        "advantages": torch.tensor([float(p + c) for p, c in lengths]),
        "num_items_in_batch": torch.tensor(sum(c for _, c in lengths)),
    }


def test_rows_are_sorted_and_cut_to_the_longest_of_their_micro_batch():
    from trl.trainer.utils import split_tensor_dict

    from grpo_dist.training.trainer.micro_batches import by_length, trim_padding

    batches = by_length(split_tensor_dict(padded([(2, 3), (4, 9), (3, 1), (2, 8)]), 2))
    long, short = (trim_padding(batch, 1) for batch in batches)
    assert long["advantages"].tolist() == [13.0, 10.0]
    assert long["completion_ids"].tolist() == [[9] * 9, [8] * 8 + [0]]
    assert long["prompt_ids"].tolist() == [[4] * 4, [0, 0, 2, 2]]
    assert short["completion_ids"].tolist() == [[3, 3, 3], [1, 0, 0]]
    assert short["prompt_mask"].tolist() == [[0, 1, 1], [1, 1, 1]]
    assert short["importance_sampling_ratio"].shape == (2, 1)
    assert short["num_items_in_batch"] == 21


def test_padding_to_a_multiple_and_a_batch_left_out_of_the_loss():
    from grpo_dist.training.trainer.micro_batches import trim_padding

    batch = padded([(3, 5), (6, 16)])
    first = {name: x[:1] if x.ndim else x for name, x in batch.items()}
    assert trim_padding(first, 4)["prompt_ids"].tolist() == [[0, 3, 3, 3]]
    assert trim_padding(first, 4)["completion_ids"].shape == (1, 8)
    assert trim_padding({**first, "completion_mask": first["completion_mask"] * 0}, 1)["completion_ids"].shape == (1, 1)
