"""Weights of importance-sampling correction, and what is logged of them, against numbers worked out with NumPy."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NAN = math.nan
DIFFERENCES = [[0.5, -0.5, 2.0, 9.0], [NAN, 0.1, 9.0, 9.0], [-1.0, -1.5, -0.5, -0.2], [9.0, 9.0, 9.0, 9.0]]
MASK = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
MODES = ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
LEVELS = ("token", "sequence", "geometric_mean")


def expected(rows: list[np.ndarray], mode: str, low: float | None, high: float | None) -> dict[str, float]:
    """The metrics from their definitions, completion by completion.

    Args:
        rows: the differences of each completion's tokens, NaN where vLLM gave none.
    """
    known = [row[~np.isnan(row)] for row in rows]
    products = np.array([np.exp(row.sum()) for row in known])
    sequence = mode.startswith("sequence_")
    units = [np.array([product]) for product in products] if sequence else [np.exp(np.nan_to_num(r)) for r in rows]
    below, above = -np.inf if low is None else low, np.inf if high is None else high
    if mode.endswith("_truncate"):
        weights = [np.clip(unit, below, above) for unit in units]
    else:
        weights = [np.where((unit < below) | (unit > above), 0.0, unit) for unit in units]
    flat = np.concatenate(weights)
    raw = {"token": np.exp(np.concatenate(known)), "sequence": products}
    raw["geometric_mean"] = np.array([np.exp(row.mean()) for row in known])
    return {
        "sampling/effective_sample_size": flat.sum() ** 2 / (len(flat) * (flat**2).sum()),
        "sampling/low_weight_share": np.mean([weight.mean() < 0.1 for weight in weights]),
        "sampling/sampling_logp_difference/std": np.concatenate(known).std(),
        **{
            f"sampling/raw_ratio/{level}/p{percent:02}": np.quantile(raw[level], percent / 100)
            for level in LEVELS
            for percent in (1, 50, 99)
        },
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("low", "high"), [(None, 3.0), (0.3, 2.0), (0.4, None)])
def test_metrics_are_what_their_definitions_give(mode, low, high):
    import torch
    from accelerate import Accelerator

    from grpo_dist.training.trainer.correction import Correction, LogprobDifferences, metrics

    correction, difference, mask = Correction(mode, low, high), torch.tensor(DIFFERENCES), torch.tensor(MASK)
    halves = [LogprobDifferences.of(correction, difference[rows], mask[rows]) for rows in (slice(0, 1), slice(1, 4))]
    found = metrics(LogprobDifferences.joined(halves), Accelerator(cpu=True))
    rows = [np.array(row)[np.array(kept) > 0] for row, kept in zip(DIFFERENCES, MASK, strict=True)]
    assert found == pytest.approx(expected(rows[:3], mode, low, high), rel=1e-5)


def test_nothing_is_logged_where_no_token_counts():
    import torch
    from accelerate import Accelerator

    from grpo_dist.training.trainer.correction import Correction, LogprobDifferences, metrics

    nothing = LogprobDifferences.of(Correction("token_truncate", None, 3.0), torch.ones(2, 3), torch.zeros(2, 3))
    assert metrics(nothing, Accelerator(cpu=True)) == {}


def test_ratios_beyond_float32_are_told_as_very_large():
    import torch
    from accelerate import Accelerator

    from grpo_dist.training.trainer.correction import Correction, LogprobDifferences, metrics

    far = LogprobDifferences.of(Correction("sequence_mask", None, 3.0), torch.full((2, 300), 1.0), torch.ones(2, 300))
    found = metrics(far, Accelerator(cpu=True))
    assert found["sampling/effective_sample_size"] == 0.0
    assert found["sampling/low_weight_share"] == 1.0
    assert all(map(math.isfinite, found.values()))


def test_of_very_many_tokens_evenly_spaced_ones_stand_for_all(monkeypatch):
    import torch
    from accelerate import Accelerator

    from grpo_dist.training.trainer import correction

    monkeypatch.setattr(correction, "MOST_TOKENS", 1000)
    difference = torch.linspace(-1, 1, 64_000).view(8, -1)[:, torch.randperm(8000)]
    setting = correction.Correction("token_truncate", None, 3.0)
    measured = correction.LogprobDifferences.of(setting, difference, torch.ones_like(difference))
    found = correction.metrics(measured, Accelerator(cpu=True))
    assert found["sampling/raw_ratio/token/p99"] == pytest.approx(math.exp(0.98), rel=0.02)
    assert found["sampling/sampling_logp_difference/std"] == pytest.approx(1 / math.sqrt(3), rel=1e-3)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    from grpo_dist.embedded.model import build

    path = tmp_path_factory.mktemp("untrained") / "model"
    build(path, 11, lambda _: None, _steps=1)
    return path


def logged(model: Path, output: Path, **arguments: Any) -> tuple[list[np.ndarray], dict[str, float]]:
    """The differences of the first generation's completions, where TRL scored them, and the first logged step."""
    from stub_rollouts import Ours, make_trainer, take_steps

    rows: list[list[np.ndarray]] = []

    class Watched(Ours):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            output = super()._generate_and_score_completions(inputs)
            if (old := output.get("old_per_token_logps")) is not None:
                difference = (old - output["sampling_per_token_logps"]).numpy()
                rows.append([d[m > 0] for d, m in zip(difference, output["completion_mask"].numpy(), strict=True)])
            return output

    steps = take_steps(make_trainer(Watched, model, output, max_steps=1, **arguments))
    return rows[0] if rows else [], steps.logs[0]


@pytest.mark.parametrize("mode", [MODES[0], MODES[3]])
def test_the_same_is_logged_whoever_scores(model, tmp_path, missing, mode):
    """TRL's own pass, which `num_iterations` asks for, and the loss's."""
    if find_spec("vllm") is None:
        missing("vllm is not installed")
    stated = {"vllm_importance_sampling_mode": mode, "vllm_importance_sampling_clip_max": 1.2}
    rows, scored = logged(model, tmp_path, num_iterations=2, **stated)
    unscored, deferred = logged(model, tmp_path, **stated)
    assert (len(rows), len(unscored)) == (16, 0)
    wanted = expected([row for row in rows if len(row)], mode, None, 1.2)
    assert {name: scored[name] for name in wanted} == pytest.approx(wanted, rel=1e-3)
    assert {name: deferred[name] for name in wanted} == pytest.approx(wanted, rel=1e-3)
    assert 0 < wanted["sampling/effective_sample_size"] < 1


def decoupled_gradient(trainer: Any, batch: dict[str, Any], rewards: list[float], most: float) -> dict[str, Any]:
    """Of the objective in docs/correction.md, completion by completion; adapter tensor → gradient of the loss.

    Args:
        rewards: of the completions, in groups of four.
        most: the largest weight.
    """
    import torch

    groups = torch.tensor(rewards).view(-1, 4)
    advantages = ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
    named = {name: value for name, value in trainer.model.named_parameters() if value.requires_grad}
    total, tokens = 0.0, 0
    for row, advantage in enumerate(advantages):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row] > 0]
        kept = batch["completion_mask"][row] > 0
        completion = batch["completion_ids"][row][kept]
        logits = trainer.model(input_ids=torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1]
        logps = logits.log_softmax(-1).gather(-1, completion[:, None])[:, 0]
        ratio = torch.exp(logps.detach() - batch["sampling_per_token_logps"][row][kept]).nan_to_num(1.0)
        total = total - (ratio.clamp(max=most) * advantage * torch.exp(logps - logps.detach())).sum()
        tokens += len(completion)
    gradients = torch.autograd.grad(total / tokens, list(named.values()))
    return dict(zip(named, gradients, strict=True))


def test_a_stale_batch_has_the_gradient_of_the_decoupled_objective(model, tmp_path, missing):
    if find_spec("vllm") is None:
        missing("vllm is not installed")
    import torch
    from stub_rollouts import Ours, checksum, make_trainer, take_steps

    paid: list[float] = []
    wanted: list[dict[str, Any]] = []

    def reward(completions: list[Any], **_: Any) -> list[float]:
        paid.extend(checksum(completions))
        return list(paid)

    class Watched(Ours):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            output = super()._generate_and_score_completions(inputs)
            wanted.append(decoupled_gradient(self, output, paid, 1.1))
            return output

    stated = {"vllm_importance_sampling_mode": "token_truncate", "vllm_importance_sampling_clip_max": 1.1}
    steps = take_steps(make_trainer(Watched, model, tmp_path, reward=reward, max_steps=1, **stated))
    assert steps.logs[0]["sampling/importance_sampling_ratio/max"] == pytest.approx(1.1)
    largest = max(gradient.abs().max().item() for gradient in wanted[0].values())
    for name, gradient in wanted[0].items():
        torch.testing.assert_close(steps.gradients[0][name], gradient, rtol=1e-3, atol=1e-5 * largest, msg=name)
