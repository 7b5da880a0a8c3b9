"""The pool's promises, on servers of a few milliseconds; the real ones are in tests/training/test_vllm_runs.py."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from fake_servers import start, tokens
from waiting import until

from grpo_dist.config.cluster import TimeoutSection
from grpo_dist.errors import RolloutError, RolloutsGone
from grpo_dist.inference.client import Policy, Prompt
from grpo_dist.inference.pool import Pool

SAMPLING = {"max_tokens": 4, "temperature": 1.0}
PROMPTS = [Prompt((number, number + 1), 3, 100 * number) for number in range(12)]
PATIENT = TimeoutSection()
SHORT = TimeoutSection(connect=5, first_token=1.5, progress=1, request=60, sync=10, recover=2)


@pytest.fixture
def servers(tmp_path):
    started = []

    def some(count: int):
        started.extend(start(tmp_path / "replicas", count))
        return started

    yield some
    for server in started:
        server.silent.clear()
        server.stop()


def make_policy(parent, step: int) -> Policy:
    directory = parent / f"policy-{step}-abc"
    directory.mkdir()
    (directory / "adapter_config.json").write_text("{}")
    (directory / "adapter_model.safetensors").write_bytes(bytes(range(256)))
    (directory / "README.md").write_text("what PEFT writes besides")
    return Policy(directory.name, step, directory, 258)


@pytest.fixture
def policy(tmp_path):
    return make_policy(tmp_path, 3)


def pool(tmp_path, *, push: bool = False, rank: int = 0, at_once: int = 2, timeouts: TimeoutSection = PATIENT) -> Pool:
    return Pool(tmp_path / "replicas", timeouts, rank=rank, completions_per_replica=PROMPTS[0].n * at_once, push=push)


def expected(prompts=PROMPTS) -> list[list[list[int]]]:
    return [[tokens(list(p.token_ids), p.seed + i, 4) for i in range(p.n)] for p in prompts]


def ids(results) -> list[list[list[int]]]:
    return [[one.token_ids for one in group] for group in results]


def answered(servers) -> list[int]:
    return sorted(seed for server in servers for _, seed, _ in server.generated)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_order_and_seeds_do_not_depend_on_the_number_of_servers(tmp_path, servers, policy, count):
    running = servers(count)
    clients = pool(tmp_path)
    clients.load(policy)
    results = clients.generate(PROMPTS, policy, SAMPLING)
    assert ids(results) == expected()
    assert all(one.clipped and one.logprobs == [-0.5, -0.25, -0.25, -0.25] for group in results for one in group)
    assert answered(running) == [prompt.seed for prompt in PROMPTS]
    assert all(adapter == policy.name for server in running for adapter, _, _ in server.generated)
    assert all(server.most_in_flight <= 2 for server in running)
    assert min(len(server.generated) for server in running) >= 12 // count - 3


def test_processes_begin_at_different_servers(tmp_path, servers, policy):
    running = servers(2)
    for rank, server in enumerate(running):
        clients = pool(tmp_path, rank=rank)
        clients.load(policy)
        clients.generate(PROMPTS[:1], policy, SAMPLING)
        assert [seed for _, seed, _ in server.generated] == [PROMPTS[0].seed]


def test_what_breaks_off_is_done_by_another_and_nothing_twice(tmp_path, servers, policy):
    running = servers(2)
    running[0].break_off = 10**6
    clients = pool(tmp_path, timeouts=SHORT)
    clients.load(policy)
    results = clients.generate(PROMPTS, policy, SAMPLING)
    assert ids(results) == expected()
    assert {one.server for group in results for one in group} == {"1"}
    assert answered(running[1:]) == [prompt.seed for prompt in PROMPTS]


def test_a_frozen_server_is_noticed_and_comes_back(tmp_path, servers, policy):
    running = servers(2)
    clients = pool(tmp_path, timeouts=SHORT)
    clients.load(policy)
    running[0].silent.set()
    assert ids(clients.generate(PROMPTS, policy, SAMPLING)) == expected()
    assert not running[0].generated
    running[0].silent.clear()
    deadline = time.monotonic() + 30
    while not running[0].generated:
        assert time.monotonic() < deadline
        assert ids(clients.generate(PROMPTS, policy, SAMPLING)) == expected()


def test_a_server_that_is_back_is_counted_in_at_the_next_sync(tmp_path, servers, policy):
    running = servers(2)
    clients = pool(tmp_path, timeouts=SHORT)
    clients.load(policy)
    running[0].silent.set()
    clients.generate(PROMPTS, policy, SAMPLING)
    assert clients.replicas[0].down
    running[0].silent.clear()
    time.sleep(max(0.0, clients.replicas[0].retry_at - time.monotonic()))
    clients.load(policy)
    assert not clients.replicas[0].down


def test_a_silent_request_is_waited_for_while_the_engine_works(tmp_path, servers, policy):
    (server,) = servers(1)
    clients = pool(tmp_path, timeouts=SHORT.model_copy(update={"first_token": 0.1}))
    clients.load(policy)
    answers = []
    worker = threading.Thread(target=lambda: answers.append(clients.generate(PROMPTS[:1], policy, SAMPLING)))
    original, held = server._stream, threading.Event()

    async def late(*arguments):
        while not held.is_set():
            await asyncio.sleep(0.01)
        return await original(*arguments)

    server._stream = late
    worker.start()
    worker.join(1.0)  # ten times as long as it is asked to be silent
    assert worker.is_alive()
    held.set()
    worker.join(20)
    assert ids(answers[0]) == expected(PROMPTS[:1])
    assert answered([server]) == [PROMPTS[0].seed]


def test_a_stalled_engine_is_left(tmp_path, servers, policy):
    stuck, well = servers(2)
    clients = pool(tmp_path, timeouts=SHORT)
    clients.load(policy)
    hang = threading.Event()

    async def never(*_):
        while not hang.is_set():
            await asyncio.sleep(0.01)
        raise ConnectionResetError

    stuck._stream, stuck.stalled = never, 10.0
    try:
        assert ids(clients.generate(PROMPTS, policy, SAMPLING)) == expected()
        assert answered([well]) == [prompt.seed for prompt in PROMPTS]
    finally:
        hang.set()


def test_a_restarted_server_gets_the_adapter_before_it_answers(tmp_path, servers, policy):
    (server,) = servers(1)
    clients = pool(tmp_path)
    clients.load(policy)
    server.adapters.clear()
    assert ids(clients.generate(PROMPTS, policy, SAMPLING)) == expected()
    assert all(adapter == policy.name for adapter, _, _ in server.generated)
    assert server.loads >= 2


@pytest.mark.parametrize("push", [False, True])
def test_a_server_restarted_after_a_sync_gets_the_newest_adapter(tmp_path, servers, policy, push):
    again, other = servers(2)
    newest = make_policy(tmp_path, 4)
    clients = pool(tmp_path, push=push, at_once=8)
    for one in (policy, newest):
        clients.load(one)
        clients.unload_others([one])
    again.restart()
    assert ids(clients.generate(PROMPTS, newest, SAMPLING)) == expected()
    assert all(adapter == newest.name for server in (again, other) for adapter, _, _ in server.generated)
    assert again.adapters == {newest.name}
    files = ("adapter_config.json", "adapter_model.safetensors")
    given = [*(("push", f"{newest.name}/{file}") for file in files if push), ("load", newest.name)]
    assert again.events[: len(given)] == given
    assert {*again.events[len(given) :]} == {("generate", newest.name)}
    assert answered([again, other]) == [prompt.seed for prompt in PROMPTS]


def test_a_server_that_comes_back_while_others_work_gets_it_too(tmp_path, servers, policy):
    again, _ = servers(2)
    newest = make_policy(tmp_path, 4)
    clients = pool(tmp_path, timeouts=SHORT)
    clients.load(policy)
    clients.load(newest)
    again.silent.set()
    clients.generate(PROMPTS, newest, SAMPLING)
    again.restart()
    again.silent.clear()
    deadline = time.monotonic() + 30
    while not again.generated:
        assert time.monotonic() < deadline
        assert ids(clients.generate(PROMPTS, newest, SAMPLING)) == expected()
    assert again.events[0] == ("load", newest.name)
    assert {adapter for adapter, _, _ in again.generated} == {newest.name}


def test_a_server_that_moved_is_found(tmp_path, servers, policy):
    servers(1)
    clients = pool(tmp_path)
    clients.load(policy)
    clients.replicas[0].url = "http://127.0.0.1:9"  # where it was before
    assert ids(clients.generate(PROMPTS, policy, SAMPLING)) == expected()


def test_when_all_are_gone_it_waits_and_then_says_so(tmp_path, servers, policy):
    running = servers(2)
    clients = pool(tmp_path, timeouts=SHORT)
    clients.load(policy)
    for server in running:
        server.silent.set()
    with pytest.raises(RolloutsGone, match=r"all 2 rollout servers are gone .*none came back within 2 s") as gone:
        clients.generate(PROMPTS, policy, SAMPLING)
    assert gone.value.exit_code == 75
    assert "--resume" in gone.value.hint


def test_servers_that_were_given_up_are_not_waited_for(tmp_path, servers, policy):
    (server,) = servers(1)
    clients = pool(tmp_path, timeouts=SHORT.model_copy(update={"recover": 3600.0}))
    clients.load(policy)
    server.silent.set()
    threading.Timer(0.5, server.register, ["dropped"]).start()  # after the pool has begun to wait
    with pytest.raises(RolloutsGone, match="given up after too many restarts"):
        clients.generate(PROMPTS, policy, SAMPLING)


def test_a_late_server_is_waited_for(tmp_path, servers, policy):
    (server,) = servers(1)
    server.silent.set()
    threading.Timer(1.0, server.silent.clear).start()
    clients = pool(tmp_path, timeouts=SHORT.model_copy(update={"recover": 60.0, "sync": 0.5}))
    clients.load(policy)
    assert ids(clients.generate(PROMPTS, policy, SAMPLING)) == expected()


def test_push_sends_the_very_bytes(tmp_path, servers, policy):
    running = servers(2)
    clients = pool(tmp_path, push=True)
    clients.load(policy)
    for server in running:
        assert server.pushed[f"{policy.name}/adapter_model.safetensors"] == bytes(range(256))
    assert ids(clients.generate(PROMPTS, policy, SAMPLING)) == expected()
    running[1].adapters.add("policy-1-of-a-killed-attempt")
    clients.unload_others([policy])
    assert all(server.adapters == {policy.name} for server in running)
    clients.unload_others(())
    assert not any(server.adapters for server in running)


def test_what_every_server_would_refuse_ends_it(tmp_path, servers, policy):
    running = servers(2)
    clients = pool(tmp_path)
    clients.load(policy)
    for server in running:
        server.refuse = "the prompt is too long: 900 tokens, maximum context length 64"
    with pytest.raises(RolloutError, match="refuses: the prompt is too long") as refused:
        clients.generate(PROMPTS, policy, SAMPLING)
    assert "data.max_prompt_length" in refused.value.hint
    assert not isinstance(refused.value, RolloutsGone)


@pytest.mark.parametrize("status", [400, 413])
def test_an_adapter_that_every_server_would_refuse_ends_it_at_once(tmp_path, servers, policy, status):
    running = servers(2)
    for server in running:
        server.refuse_adapters = (status, "layers.0.lora_A.weight holds NaN or infinity")
    with pytest.raises(RolloutError, match=r"refuses: layers\.0\.lora_A\.weight holds NaN") as refused:
        pool(tmp_path, timeouts=PATIENT).load(policy)
    assert "grpo.learning_rate" in refused.value.hint
    assert not isinstance(refused.value, RolloutsGone)
    assert max(server.loads for server in running) == 1


def test_an_adapter_that_is_refused_where_it_was_lost_ends_it_too(tmp_path, servers, policy):
    """Servers that are started again, or back, are given it in other places of the code than at a sync."""
    (server,) = servers(1)
    clients = pool(tmp_path, timeouts=SHORT)
    clients.load(policy)
    server.adapters.clear()
    server.refuse_adapters = (400, "layers.0.lora_A.weight is missing")
    with pytest.raises(RolloutError, match="is missing"):
        clients.generate(PROMPTS, policy, SAMPLING)
    clients.replicas[0].down = True
    with pytest.raises(RolloutError, match="is missing"):
        clients.generate(PROMPTS, policy, SAMPLING)
    assert server.loads < 10


def test_a_foreign_server_is_no_server_of_ours(tmp_path, servers, policy):
    (server,) = servers(1)
    server.key = "another run's"
    with pytest.raises(RolloutError, match="does not take this run's key"):
        pool(tmp_path).load(policy)


def test_batches_of_two_policies_survive_a_server_that_forgets_both(tmp_path, servers):
    """Each has a pool of its own, and a restarted server gets from each the policy that it lacks."""
    running = servers(2)
    old, new = make_policy(tmp_path, 1), make_policy(tmp_path, 2)
    batches = {old: PROMPTS[:6], new: PROMPTS[6:]}
    for server in running:
        server.pause = 0.02
    begun = [pool(tmp_path).begin(prompts, policy, SAMPLING) for policy, prompts in batches.items()]
    until(lambda: all(server.generated for server in running))
    running[0].restart()
    running[1].break_off = 2
    found = [batch.result(30) for batch in begun]
    assert [ids(results) for results, _ in found] == [expected(prompts) for prompts in batches.values()]
    assert all(seconds > 0 for _, seconds in found)
    assert answered(running) == [prompt.seed for prompt in PROMPTS]
    by_policy = {adapter: seed < PROMPTS[6].seed for server in running for adapter, seed, _ in server.generated}
    assert by_policy == {old.name: True, new.name: False}


def test_a_cancelled_batch_leaves_the_servers_alone(tmp_path, servers, policy):
    (server,) = servers(1)
    server.pause = 0.2
    batch = pool(tmp_path).begin(PROMPTS, policy, SAMPLING)
    until(lambda: server.work.in_flight)
    batch.cancel()
    until(lambda: not server.work.in_flight)
    assert not server.generated
