"""Groups that teach nothing give their place to others; nothing else about the step changes."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from ranks import run_script
from test_less_work import assert_same_steps

WORKER = Path(__file__).with_name("dynamic_process.py")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The embedded model, hardly trained: gradients are all that is wanted of it."""
    from grpo_dist.embedded.model import build

    path = tmp_path_factory.mktemp("untrained") / "model"
    build(path, 11, lambda _: None, _steps=1)
    return path


@pytest.fixture(autouse=True)
def vllm(missing):
    if find_spec("vllm") is None:
        missing("vllm is not installed")


@pytest.fixture(scope="module")
def alone(model, tmp_path_factory) -> dict[str, Any]:
    """One process that may draw until every place is taken."""
    from dynamic_process import sampled

    return sampled(model, tmp_path_factory.mktemp("alone"), 1, max_num_gen_batches=8)


def asked(table: dict[str, list[Any]]) -> list[int]:
    """Prompt of each group of the completions table."""
    from dynamic_process import GROUP, number

    numbers = [number(prompt) for prompt in table["prompt"]]
    assert all(len(set(numbers[i : i + GROUP])) == 1 for i in range(0, len(numbers), GROUP))
    return numbers[::GROUP]


def test_every_group_teaches_and_none_comes_twice(alone):
    for table, logs in zip(alone["tables"], alone["logs"], strict=True):
        prompts = asked(table)
        assert len(prompts) == len(set(prompts)) == 3
        assert all(prompt % 3 == 0 for prompt in prompts)
        assert all(any(table["advantages"][i : i + 4]) for i in range(0, 12, 4))
        assert logs["sampling/groups_kept"] == 3
        assert logs["sampling/groups_drawn"] > 3
        assert logs["sampling/generation_batches"] > 1


def test_tokens_of_every_batch_are_counted_as_what_they_are(alone):
    for generated, logs in zip(alone["generated"], alone["logs"], strict=True):
        first = logs["completions/mean_length"] * 12
        assert first < generated == pytest.approx(first + logs["sampling/further_completion_tokens"])


def test_metrics_of_generation_are_those_of_the_prompts_that_were_due(alone):
    """Of what is trained on, none is zero."""
    assert all(logs["frac_reward_zero_std"] > 0 for logs in alone["logs"])


def test_the_step_is_trls_on_the_prompts_that_were_kept(alone, model, tmp_path):
    """TRL's trainer with a data set of just these prompts takes the same two steps."""
    import torch
    from datasets import Dataset
    from dynamic_process import batch_of, reward
    from stub_rollouts import make_trainer, take_steps
    from trl import GRPOTrainer

    trainer = make_trainer(GRPOTrainer, model, tmp_path, reward=reward, shuffle_dataset=False, **batch_of(1))
    trainer.train_dataset = Dataset.from_list([{"prompt": p} for t in alone["tables"] for p in t["prompt"][::4]])
    stock = take_steps(trainer)
    for expected, found in zip(stock.gradients, alone["gradients"], strict=True):
        largest = max(gradient.abs().max().item() for gradient in expected.values())
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5 * largest, msg=name)
    for expected, found in zip(stock.logs, alone["logs"], strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert found["sampling/sampling_logp_difference/mean"] == pytest.approx(
            expected["sampling/sampling_logp_difference/mean"], rel=1e-4
        )


@pytest.fixture(scope="module")
def shares(model, tmp_path_factory) -> list[dict[str, Any]]:
    """What each of two processes saw."""
    import torch

    tmp_path = tmp_path_factory.mktemp("shares")
    run_script(WORKER, model, tmp_path)
    return [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.mark.heavy
def test_two_processes_take_the_same_steps(alone, shares):
    import torch

    for step in (0, 1):
        assert [asked(share["tables"][step]) for share in shares] == [asked(alone["tables"][step])] * 2
        rows = [share["batches"][step]["advantages"] for share in shares]
        assert [len(share) for share in rows] == [6, 6]
        torch.testing.assert_close(torch.cat(rows), alone["batches"][step]["advantages"])
        counted = [share["batches"][step]["num_items_in_batch"] for share in shares]
        assert counted == [alone["batches"][step]["completion_mask"].sum()] * 2
        for name, gradient in alone["gradients"][step].items():
            torch.testing.assert_close(shares[1]["gradients"][step][name], gradient, rtol=1e-4, atol=2e-6, msg=name)


@pytest.mark.heavy
def test_two_processes_log_what_one_does_of_correction(alone, shares):
    """Each has other completions: a mean of what each of them would log is something else."""
    told = {"effective_sample_size", "low_weight_share", "sampling_logp_difference/std"}
    quantiles = {
        f"raw_ratio/{level}/p{n}" for level in ("token", "sequence", "geometric_mean") for n in ("01", "50", "99")
    }
    for step, logs in enumerate(alone["logs"]):
        wanted = {name: logs[name] for name in (f"sampling/{one}" for one in told | quantiles)}
        assert {name: shares[0]["logs"][step][name] for name in wanted} == pytest.approx(wanted, rel=1e-3)


@pytest.mark.heavy
def test_two_processes_take_trls_steps(shares):
    """Each tidies its own share, whatever the loss: rank 1 had other lengths, and took the same gradients."""
    for share in shares:
        for stock, ours in share["beside TRL"]:
            assert_same_steps(stock, ours)
            assert ours.tokens < stock.tokens


def test_the_limit_holds_and_places_that_are_left_keep_their_groups(model, tmp_path, alone):
    from dynamic_process import sampled

    found = sampled(model, tmp_path, 1, max_num_gen_batches=2)
    for table, logs, batch in zip(found["tables"], found["logs"], found["batches"], strict=True):
        assert logs["sampling/generation_batches"] == 2
        assert logs["sampling/groups_kept"] == sum(prompt % 3 == 0 for prompt in asked(table))
        assert len(batch["advantages"]) == len(set(asked(table))) * 4 == 12
    # The same first batch; all tokens that were generated are counted.
    assert found["logs"][0]["reward"] == alone["logs"][0]["reward"]
    assert found["logs"][0]["num_tokens"] < alone["logs"][0]["num_tokens"]
    # What the first two batches bring is what they brought when there were more.
    kept = {prompt for prompt in asked(found["tables"][0]) if prompt % 3 == 0}
    assert kept < set(asked(alone["tables"][0]))


def test_a_data_set_without_further_prompts_is_no_error(model, tmp_path):
    from dynamic_process import sampled

    found = sampled(model, tmp_path, 1, max_num_gen_batches=8, prompts=3)
    assert [logs["sampling/generation_batches"] for logs in found["logs"]] == [1, 1]
    assert [logs["sampling/groups_drawn"] for logs in found["logs"]] == [3, 3]


def test_further_prompts_follow_from_seed_and_step_alone():
    from stub_rollouts import additions

    from grpo_dist.training.trainer.dynamic_sampling import further_prompts

    rows = additions(40)
    used = [rows[i]["prompt"] for i in (3, 5)] * 2

    def drawn(seed: int, step: int) -> list[str]:
        return [row["prompt"][0]["content"] for row in further_prompts(rows, used, seed, step)]

    first = drawn(1, 7)
    assert first == drawn(1, 7)
    assert len({*first, used[0][0]["content"], used[1][0]["content"]}) == len(first) + 2 == 40
    assert first != drawn(1, 8)
    assert first != drawn(2, 7)
    assert [row["prompt"][0]["content"] for row in islice(further_prompts(rows, used, 1, 7), 3)] == first[:3]


def test_groups_differ_by_their_weighted_rewards():
    import torch

    from grpo_dist.training.trainer.dynamic_sampling import groups_that_differ

    nan = torch.nan
    scores = [[1.0, 0.0], [0.0, 0.5], [0.3, 0.1], [0.1, 0.2], [nan, nan], [1.0, nan], [nan, nan], [nan, nan]]
    weights = torch.tensor([1.0, 2.0])
    assert groups_that_differ(torch.tensor(scores), weights, 2) == [False, False, False, False]
    scores[5:7] = [[1.0, 0.0], [0.0, 0.4]]
    assert groups_that_differ(torch.tensor(scores), weights, 2) == [False, False, False, False]
    assert groups_that_differ(torch.tensor(scores), weights, 4) == [True, True]


def test_places_go_to_later_groups_in_their_order():
    from grpo_dist.training.trainer.dynamic_sampling import assign

    first, second, third = [False, True, False, False], [False, True, False], [True, True]
    assert assign([first, second]) == [(1, 1), (0, 1), (0, 2), (0, 3)]
    assert assign([first, second, third]) == [(1, 1), (0, 1), (2, 0), (2, 1)]
    assert assign([first, third, third]) == [(1, 0), (0, 1), (1, 1), (2, 0)]
