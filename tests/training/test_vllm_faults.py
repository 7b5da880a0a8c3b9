"""Faults of real engines: replicas killed or frozen in the middle of their work, syncs that go wrong unseen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml
from engines import Engine, node_settings, server_config
from fault_rewards import STALE_AFTER
from leftovers import processes_with
from program import make_prepared
from test_vllm_runs import config, metrics, on, same_adapter, sampled
from waiting import until

from grpo_dist.config.cluster import TimeoutSection
from grpo_dist.errors import RolloutError
from grpo_dist.inference.client import Policy
from grpo_dist.inference.pool import BACK_OFF_SECONDS, Pool
from grpo_dist.inference.registry import ReplicaEntry
from grpo_dist.inference.server import Address, server_settings, status
from grpo_dist.inference.supervisor import SILENCE, Supervisor, replicas_of_node
from grpo_dist.plan import plan_run

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1200)]  # replicas are started again, each in a minute

HERE = Path(__file__).parent
STEPS = 10
PROMPTS, COMPLETIONS = 8, 4
"""Of a step; so many that there is a middle to a generation."""
TIMEOUTS = {"connect": 2.0, "first_token": 2.0, "progress": 10.0, "sync": 30.0, "recover": 300.0}
CLOSE = 1e-4
"""Mean difference of log-probabilities between an engine and a trainer with the same adapter, in float32."""


wait = partial(until, seconds=300.0)
"""A replica starts in a minute."""


@dataclass(frozen=True)
class Pair:
    """Two replicas under one supervisor."""

    supervisor: Supervisor
    model: Path
    mark: str
    """In the environment of all their processes."""

    @property
    def registry(self) -> Path:
        return self.supervisor.node.registry

    def entry(self, number: int) -> ReplicaEntry:
        return self.supervisor.entries()[number]

    def status(self, number: int) -> dict[str, Any]:
        entry = self.entry(number)
        return status(Address(entry.host, int(entry.url.rpartition(":")[2]), self.supervisor.key), 5.0)

    def generating(self, number: int, requests: int) -> ReplicaEntry:
        """Return when the replica is in the middle of so many requests for completions."""
        wait(lambda: self.status(number)["in_flight"] >= requests, pause=0.002)
        return self.entry(number)

    def both_are_back(self) -> None:
        """Return when both serve, and the run will not wait before it asks them again."""
        asked_last = time.monotonic()
        wait(lambda: all(entry.state == "ready" for entry in self.supervisor.entries()))
        wait(lambda: time.monotonic() > asked_last + BACK_OFF_SECONDS[1])


@pytest.fixture(scope="module")
def pair(engine, engine_model, tmp_path_factory, missing) -> Iterator[Pair]:
    """When it is over, nothing of the replicas is left, whatever happened to them.

    The engine of other tests is started before: temporary files have a place of their own here.
    """
    if find_spec("vllm") is None:
        missing("vLLM is not installed")
    directory = tmp_path_factory.mktemp("pair")
    stated = server_config(engine_model, replicas=2, timeouts=TIMEOUTS)
    plan = plan_run(stated)
    settings = server_settings(stated, plan, str(engine_model), str(engine_model))
    mark = str(directory / "mark")
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", scratch)
        replicas, where = replicas_of_node(plan.topology, 0), node_settings(stated, plan, directory)
        with Supervisor(settings, replicas, where, environ={**os.environ, "THE_PAIR": mark}) as supervisor:
            yield Pair(supervisor, engine_model, mark)
        assert processes_with(mark) == []
        assert list(Path(scratch).iterdir()) == []
        assert [path.name for path in where.registry.iterdir() if not path.name.startswith(".")] == []


@pytest.fixture(scope="module")
def stated(pair, tmp_path_factory) -> Path:
    """Configuration of a run on the pair that can be held between steps, from a directory `hold` beside it."""
    directory = tmp_path_factory.mktemp("stated")
    (directory / "hold").mkdir()
    path = config(directory / "config.yaml", pair.model, replicas=2, timeouts=TIMEOUTS)
    held = {"name": f"{HERE / 'fault_rewards.py'}:held", "kwargs": {"directory": str(directory / "hold")}}
    batch = {"prompts_per_step": PROMPTS, "num_generations": COMPLETIONS}
    return with_rewards(path, held, max_steps=STEPS, **batch)


def with_rewards(path: Path, reward: str | dict, **grpo: Any) -> Path:
    """A reward that pays nothing beside those that do."""
    sections = yaml.safe_load(path.read_text())
    sections["rewards"] = {"functions": ["check_answer", reward], "allow": ["never-varies"]}
    sections["grpo"] |= grpo
    path.write_text(yaml.safe_dump(sections))
    return path


@pytest.fixture(scope="module")
def reference(pair, stated, tmp_path_factory) -> Path:
    """A run to which nothing happens."""
    run = tmp_path_factory.mktemp("reference") / "run"
    on(pair.registry, stated, run)
    return run


@dataclass(frozen=True)
class Faulted:
    """A run to which everything happened, and what was seen of it."""

    run: Path
    told: str
    """The train stage's log."""
    replaced: list[list[dict[str, Any]]]
    """The status of both replicas when they were back, after each round of faults."""
    newest: list[str]
    """The policy that was served then."""
    frozen_seconds: float
    """From SIGSTOP until the supervisor counted the replica out."""


class Holder:
    """Lets a run go on from step to step."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for file in directory.iterdir():
            file.unlink()

    def hold(self, step: int) -> None:
        (self.directory / f"hold-{step}").touch()

    def reached(self, step: int) -> bool:
        """The completions of the step are there, and it is not trained on yet."""
        return (self.directory / f"at-{step}").exists()

    def release(self, step: int) -> None:
        (self.directory / f"hold-{step}").unlink()


@contextmanager
def running(pair: Pair, stated: Path, run: Path) -> Iterator[subprocess.Popen]:
    command = [sys.executable, str(HERE / "on_engines.py"), str(stated), str(run), str(pair.registry)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def faulted(pair, stated, reference, tmp_path_factory) -> Faulted:
    """In mid-generation one replica is killed, and while it starts again the other freezes.

    In mid-sync one is killed and the other freezes.
    """
    run = tmp_path_factory.mktemp("faulted") / "run"
    holder = Holder(stated.parent / "hold")
    replaced, newest = [], []
    make_prepared(run, stated, by=reference)

    with running(pair, stated, run) as process:

        def arrive(step: int) -> None:
            wait(lambda: holder.reached(step) or process.poll() is not None)
            assert process.poll() is None, "".join(log.read_text() for log in run.glob("logs/*/train.log"))

        def look() -> None:
            replaced.append([pair.status(0), pair.status(1)])
            (policy,) = (run / "policies").iterdir()
            newest.append(policy.name)

        for step in (1, 2, 3, 5, 6, 8):
            holder.hold(step)
        arrive(1)
        holder.release(1)
        os.kill(pair.generating(0, 1).pid, signal.SIGKILL)
        arrive(2)
        wait(lambda: pair.entry(0).state != "ready")
        holder.release(2)
        os.killpg(pair.generating(1, PROMPTS // 2).pid, signal.SIGSTOP)
        began = time.monotonic()
        wait(lambda: pair.entry(1).state != "ready")
        frozen_seconds = time.monotonic() - began
        arrive(3)
        pair.both_are_back()
        holder.release(3)
        arrive(5)
        look()

        (before,) = (run / "policies").iterdir()
        os.killpg(pair.entry(1).pid, signal.SIGSTOP)  # the next sync waits for it
        holder.release(5)
        wait(lambda: len(os.listdir(run / "policies")) > 1, pause=0.0005)
        os.kill(pair.entry(0).pid, signal.SIGKILL)
        assert before.exists()  # the sync is not over
        arrive(6)
        pair.both_are_back()
        holder.release(6)
        arrive(8)
        look()

        holder.release(8)
        assert process.wait(120) == 0
    (log,) = run.glob("logs/*/train.log")
    return Faulted(run, log.read_text(), replaced, newest, frozen_seconds)


def completions(run: Path) -> list[dict]:
    tables = sorted((run / "completions").glob("*.parquet"))
    return [row for path in tables for row in pyarrow.parquet.read_table(path).drop(["advantage"]).to_pylist()]


def test_no_completion_is_lost_or_doubled_or_another_than_without_faults(faulted, reference):
    assert len(completions(faulted.run)) == STEPS * PROMPTS * COMPLETIONS
    assert completions(faulted.run) == completions(reference)
    assert sampled(faulted.run) == sampled(reference)
    assert same_adapter(faulted.run, reference, tolerance=1e-4)


def test_every_completion_is_from_the_policy_its_metric_says(faulted):
    assert [line["perf/policy_version"] for line in metrics(faulted.run)] == list(range(STEPS))
    assert all(row["policy_version"] == row["step"] - 1 for row in completions(faulted.run))
    assert max(line["sampling/sampling_logp_difference/mean"] for line in metrics(faulted.run)) < CLOSE


def test_the_run_says_what_failed_and_what_came_back(faulted):
    told = [line.partition(" (")[0] for line in faulted.told.splitlines() if "rollout server" in line]
    failures = [line.removesuffix(" failed")[-1] for line in told if line.endswith("failed")]
    assert failures[:2] == ["0", "1"]
    assert sorted(failures[2:]) == ["0", "1"]
    assert sum(line.endswith("is back") for line in told) == 4


def test_a_frozen_replica_is_noticed_within_the_configured_time(faulted):
    assert faulted.frozen_seconds < 2 * SILENCE * TIMEOUTS["connect"]


def test_replaced_replicas_serve_the_newest_adapter_alone(faulted):
    for incarnation, (statuses, newest) in enumerate(zip(faulted.replaced, faulted.newest, strict=True), start=1):
        assert [one["incarnation"] for one in statuses] == [incarnation, incarnation]
        assert [one["adapters"] for one in statuses] == [[newest], [newest]]


@dataclass(frozen=True)
class Bench:
    """A trainer's part in a sync, without the trainer."""

    model: Any
    canary: Any
    pool: Pool
    policies: Path

    def served(self, step: int, factor: float = 1.0, alpha: float = 1.0) -> Policy:
        """Give the engine the adapter with B times the factor, under a name of the step."""
        from grpo_dist.training.models.adapter import write_policy

        tensors = {
            name.replace(".default.", "."): tensor.detach() * (factor if "lora_B" in name else 1.0)
            for name, tensor in self.model.named_parameters()
            if "lora_" in name
        }
        stated = self.model.peft_config["default"]
        before, stated.lora_alpha = stated.lora_alpha, stated.lora_alpha * alpha
        try:
            policy = write_policy(self.model, tensors, step, self.policies)
        finally:
            stated.lora_alpha = before
        self.pool.load(policy)
        return policy

    def answers(self, policy: Policy) -> list:
        (answers,) = self.pool.ask_all(self.canary.prompts, policy, self.canary.sampling).values()
        return answers

    def check(self, policy: str, **answers: list) -> float:
        return self.canary.check(self.canary.score(answers), policy)


@pytest.fixture(scope="module")
def bench(engine: Engine, tmp_path_factory) -> Iterator[Bench]:
    import torch
    from accelerate import Accelerator
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from grpo_dist.training.models.prompts import PromptRenderer
    from grpo_dist.training.rollouts.canary import Canary

    lora = LoraConfig(r=8, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(engine.model_directory, dtype=torch.float32), lora)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    rows = [{"prompt": [{"role": "user", "content": f"{17 + i}+{25 + 3 * i}="}]} for i in range(4)]
    tokenizer = AutoTokenizer.from_pretrained(engine.model_directory)
    canary = Canary(model, PromptRenderer(tokenizer, {}), Accelerator(cpu=True), rows, dtype="float32", max_tokens=32)
    pool = Pool(engine.registry, TimeoutSection(), rank=0, completions_per_replica=16, push=False)
    yield Bench(model, canary, pool, tmp_path_factory.mktemp("policies"))
    pool.unload_others(())


@pytest.fixture
def right(bench) -> Policy:
    """The adapter as the trainer has it."""
    return bench.served(7)


def test_the_right_adapter_passes_the_canary(bench, right):
    assert bench.check(right.name, engine=bench.answers(right)) < CLOSE


@pytest.mark.parametrize(
    ("step", "served", "cause"),
    [
        (8, {"factor": 0.0}, "It serves the base model: the adapter did not arrive"),
        (9, {"factor": 0.6}, "times what the adapter has learnt: an older adapter, or a wrong scale"),
        (10, {"alpha": 2.0}, "times what the adapter has learnt: an older adapter, or a wrong scale"),
    ],
    ids=["nothing sent", "an older adapter", "a wrong scale"],
)
def test_the_wrong_adapter_is_told_with_both_numbers_and_the_likely_cause(bench, step, served, cause):
    policy = bench.served(step, **served)
    answers = bench.answers(policy)
    with pytest.raises(RolloutError) as caught:
        bench.check(policy.name, engine=answers)
    scores = bench.canary.score({"engine": answers})["engine"]
    numbers = f"is {scores.served.mean():.6f} there and {scores.trained.mean():.6f} in the trainer"
    assert f"engine does not serve {policy.name}" in str(caught.value)
    assert numbers in str(caught.value)
    assert cause in str(caught.value)


def test_one_stale_replica_of_two_is_named(bench, right):
    stale = bench.answers(bench.served(6, factor=0.6))
    with pytest.raises(RolloutError, match=r"second does not serve policy-7-.*an older adapter.*; 1 others agree"):
        bench.check(right.name, first=bench.answers(right), second=stale)


def test_a_sync_that_sends_an_old_adapter_stops_the_run(tmp_path, engine):
    run = tmp_path / "run"
    path = config(tmp_path / "config.yaml", engine.model_directory, canary_steps=1)
    with_rewards(path, f"{HERE / 'fault_rewards.py'}:stale", max_steps=STALE_AFTER + 3, save_steps=1)
    ended = on(engine.registry, path, run, code=1)
    stale = STALE_AFTER + 1
    assert f"rollout server 0 does not serve policy-{stale}-" in ended.stderr
    assert "an older adapter" in ended.stderr
    assert "nothing was trained on its completions" in ended.stderr
    assert len(metrics(run)) == len(list((run / "completions").iterdir())) == stale
    assert max(int(path.name.split("-")[1]) for path in (run / "checkpoints").glob("checkpoint-*")) == stale
    assert not (run / "adapter").exists()
