"""Base and trained model as the servers have them, while servers fail; real ones in test_vllm_runs.py."""

from __future__ import annotations

from types import SimpleNamespace

import fake_servers
import pytest

from grpo_dist.config import RunConfig
from grpo_dist.config.cluster import RolloutSection, TimeoutSection
from grpo_dist.errors import RolloutsGone
from grpo_dist.inference.client import Policy
from grpo_dist.inference.pool import Pool

SHORT = TimeoutSection(connect=5, first_token=1.5, progress=1, request=60, sync=10, recover=2)
PROMPTS = [[{"role": "user", "content": str(number)}] for number in range(6)]
TOKENIZER = SimpleNamespace(
    apply_chat_template=lambda prompt, **_: [int(prompt[0]["content"])],
    decode=lambda ids, **_: " ".join(map(str, ids)),
)


@pytest.fixture
def servers(tmp_path):
    running = fake_servers.start(tmp_path / "replicas", 2)
    yield running
    for server in running:
        server.silent.clear()
        server.stop()


@pytest.fixture
def models(tmp_path, servers):
    """Base and trained, of which the servers have been given the adapter."""
    from grpo_dist.training.models.prompts import PromptRenderer
    from grpo_dist.training.models.served import ServedModel

    directory = tmp_path / "adapter"
    directory.mkdir()
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (directory / file).write_text("{}")
    pool = Pool(tmp_path / "replicas", SHORT, rank=0, completions_per_replica=4, push=False)
    policy = Policy("trained-abc", 0, directory, 4)
    pool.load(policy)
    renderer = PromptRenderer(TOKENIZER, {})
    return [
        ServedModel("base", pool, None, renderer, [], 7, 4),
        ServedModel("trained", pool, policy, renderer, [], 7, 4),
    ]


@pytest.fixture
def how():
    from grpo_dist.training.models.generate import Sampling

    return Sampling(num_samples=2, max_tokens=4, temperature=1.0)


def texts(groups) -> list[list[str]]:
    return [[one.text for one in group] for group in groups]


def expected() -> list[list[str]]:
    """Of both models alike: what these servers say follows from prompt and seed."""
    seeds = [[7 + 2 * place, 8 + 2 * place] for place in range(len(PROMPTS))]
    return [
        [" ".join(map(str, fake_servers.tokens([place], seed, 4))) for seed in pair] for place, pair in enumerate(seeds)
    ]


def test_a_server_that_dies_in_the_middle_changes_no_answer(models, servers, how):
    dying, other = servers
    for model in models:
        answers = model.answer(PROMPTS, how)
        first = [next(answers)]
        dying.break_off = 10**6
        assert texts([*first, *answers]) == expected()
        dying.break_off = 0
    assert {name for name, _, _ in other.generated} == {None, "trained-abc"}


def test_a_server_started_again_in_the_middle_answers_with_the_adapter(models, servers, how):
    _, trained = models
    answers = trained.answer(PROMPTS, how)
    first = [next(answers)]
    for server in servers:
        server.restart()
    assert texts([*first, *answers]) == expected()
    assert all(server.events[0] == ("load", "trained-abc") for server in servers)
    assert all(name == "trained-abc" for server in servers for name, _, _ in server.generated)


def test_without_any_server_it_says_so_and_asks_to_be_continued(models, servers, how):
    answers = models[0].answer(PROMPTS, how)
    next(answers)
    for server in servers:
        server.silent.set()
    with pytest.raises(RolloutsGone, match="all 2 rollout servers are gone") as gone:
        list(answers)
    assert gone.value.exit_code == 75


def test_samples_are_drawn_as_in_training(models):
    from grpo_dist.training.models.generate import sampled

    drawn = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1}
    embedded = {"name_or_path": "embedded"}
    stated = RunConfig.model_validate({"model": embedded, "data": embedded, "grpo": drawn})
    base, trained = (model._sampling(sampled(stated)) for model in models)
    assert base == trained == {**drawn, "max_tokens": stated.grpo.max_completion_length, "stop_token_ids": []}


def test_whole_weights_leave_no_base_model_in_a_server():
    """So base and trained are then compared in a process of their own."""
    from grpo_dist.training.models.served import has_pool

    def run(sync: str, replicas: tuple):
        rollout = RolloutSection(backend="vllm", sync=sync)
        return SimpleNamespace(
            config=SimpleNamespace(rollout=rollout),
            plan=SimpleNamespace(topology=SimpleNamespace(replicas=replicas)),
        )

    assert has_pool(run("adapter", ("0",)))
    assert not has_pool(run("merged", ("0",)))
    assert not has_pool(run("adapter", ()))
