"""What one reward function does to its arguments, and to random numbers, concerns nobody else."""

from __future__ import annotations

import asyncio
import copy
import random
import time
from types import SimpleNamespace

import numpy
import pytest
import torch

from grpo_dist.errors import RewardError
from grpo_dist.rewards.guard import own
from grpo_dist.rewards.load import AsyncLoadedReward, LoadedReward


def spoils(prompts, completions, answer, completion_ids, rows, found, **_):
    paid = [float(completion[0]["content"] == truth) for completion, truth in zip(completions, answer, strict=True)]
    for completion in completions:
        completion[0]["content"] = ""
        completion.append({"role": "user", "content": "more"})
    prompts.clear()
    answer.reverse()
    completion_ids[0].clear()
    rows[0]["nested"]["list"].append(1)
    found.append("seen")
    return paid if found == ["seen"] else [9.0] * len(paid)


async def spoils_later(**columns):
    await asyncio.sleep(0)
    return spoils(**columns)


def given():
    return {
        "prompts": [[{"role": "user", "content": "?"}] for _ in range(2)],
        "completions": [[{"role": "assistant", "content": text}] for text in ("34", "35")],
        "answer": ["34", "36"],
        "completion_ids": [[1, 2], [3]],
        "rows": [{"nested": {"list": [0]}}, {"nested": {"list": []}}],
        "trainer_state": SimpleNamespace(global_step=3),
    }


def loaded(function, **kwargs):
    kind = AsyncLoadedReward if asyncio.iscoroutinefunction(function) else LoadedReward
    return kind(f"mine.py:{function.__name__}", 1.0, function, kwargs)


def called(reward, columns):
    values = reward(**columns)
    return asyncio.run(values) if isinstance(reward, AsyncLoadedReward) else values


@pytest.mark.parametrize("function", [spoils, spoils_later])
def test_a_function_changes_nothing_that_others_see(function):
    columns = given()
    before, reward = copy.deepcopy(columns), loaded(function, found=[])
    assert called(reward, columns) == called(reward, columns) == [1.0, 0.0]
    assert columns == before


def fails_on_what_it_left(prompts, completions, **_):
    completions[-1][0]["content"] = "" if len(completions) > 1 else completions[-1][0]["content"]
    return [
        1 / (0 if completion[0]["content"] == "35" else len(completion[0]["content"])) for completion in completions
    ]


def test_the_completion_at_fault_is_shown_as_it_was():
    with pytest.raises(RewardError, match=r"ZeroDivisionError.* at step 3\n  completion 2 of 2: '35'"):
        loaded(fails_on_what_it_left)(**given())


def test_a_copy_is_cheap_for_a_large_batch():
    ids = [list(range(2000)) for _ in range(1024)]
    completions = [[{"role": "assistant", "content": "text"}] for _ in range(1024)]
    began = time.process_time()
    assert own([ids, completions]) == [ids, completions]
    assert time.process_time() - began < 1.0


def generators():
    return random.random(), float(numpy.random.rand()), float(torch.rand(()))


def seeds(completions, **_):
    random.seed(0), numpy.random.seed(0), torch.manual_seed(0)
    generators()
    return [0.0] * len(completions)


async def seeds_later(completions, **_):
    random.seed(1)
    await asyncio.sleep(0.01)
    return seeds(completions)


def seeds_and_fails(completions, **_):
    seeds(completions)
    raise SystemExit("enough")


@pytest.mark.parametrize("function", [seeds, seeds_later, seeds_and_fails])
def test_random_numbers_of_the_trainer_are_its_own(function):
    random.seed(5), numpy.random.seed(5), torch.manual_seed(5)
    expected = generators()
    random.seed(5), numpy.random.seed(5), torch.manual_seed(5)
    try:
        called(loaded(function), given())
    except RewardError:
        assert function is seeds_and_fails
    assert generators() == expected


def test_async_functions_that_overlap_leave_random_numbers_alone():
    async def together():
        first, second = loaded(seeds_later), loaded(spoils_later, found=[])
        await asyncio.gather(first(**given()), second(**given()), first(**given()))

    random.seed(5)
    before = random.getstate()
    asyncio.run(together())
    assert random.getstate() == before


def draws(completions, **_):
    return [random.random() for _ in completions]


def test_random_rewards_differ_between_steps_and_not_on_repetition():
    columns = given()
    first, again = called(loaded(draws), columns), called(loaded(draws), columns)
    later = called(loaded(draws), {**columns, "trainer_state": SimpleNamespace(global_step=4)})
    assert first == again != later


def leaves(completions, **_):
    raise SystemExit(0)


async def leaves_later(completions, **_):
    raise SystemExit(0)


@pytest.mark.parametrize("function", [leaves, leaves_later])
def test_an_exit_inside_a_reward_is_named_with_its_step(function):
    with pytest.raises(RewardError, match=f"reward 'mine.py:{function.__name__}' raised SystemExit: 0 at step 3"):
        called(loaded(function), given())


def in_kwargs(completions, **kwargs):
    return [float(truth in str(one)) for one, truth in zip(completions, kwargs["ground_truth"], strict=True)]


def optional(completions, solution=None, **_):
    return [1.0] * len(completions)


def form(prompts, completions, completion_ids, trainer_state, tag="x", **_):
    return [float(tag in str(one)) for one in completions]


def test_a_function_that_reads_columns_is_told_from_one_of_form():
    assert [loaded(one).asks_for_columns for one in (in_kwargs, optional, form)] == [True, True, False]
