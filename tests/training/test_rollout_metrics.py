"""A whole run on servers of a few milliseconds, which write two batches ahead: which policy writes each batch, whatever
happens, what the run tells of its rollouts, and whom it asks to compare."""

from __future__ import annotations

import json
import math
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import fake_servers
import pyarrow.parquet
import pytest
from program import TRACKED, Program, make_prepared
from test_vllm_runs import config, metrics, on
from waiting import until

pytestmark = pytest.mark.heavy

STEPS, PROMPTS, COMPLETIONS, STALENESS, SEED = 6, 4, 4, 2, 3407
POLICIES = [max(0, step - STALENESS) for step in range(STEPS)]
"""By step: the policy its completions come from, as the number of steps behind it."""
PROBLEMS, SAMPLES = 8, 2
TOLD = (
    "perf/policy_version",
    "perf/sync_seconds",
    "perf/sync_bytes",
    "perf/generation_seconds",
    "perf/wait_seconds",
    "perf/staleness",
    "perf/batches_in_flight",
    "perf/prompt_tokens_per_second",
    "perf/completion_tokens_per_second",
    "perf/replica_utilization",
    "perf/idle_share",
    "sampling/sampling_logp_difference/mean",
    "sampling/effective_sample_size",
)
"""What every step tells of its rollouts."""


@dataclass(frozen=True)
class Served:
    run: Path
    config: Path
    servers: list[fake_servers.FakeServer]
    asked: list[tuple[str | None, int, int]]
    """(adapter, seed, n) of all requests, by server and in their order there."""


@pytest.fixture(scope="module")
def served(tmp_path_factory, embedded_model) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("served")
    servers = fake_servers.start(directory / "replicas", 2)
    stated = config(directory / "config.yaml", embedded_model, replicas=2, canary_steps=0, max_staleness=STALENESS)
    settings = (f"grpo.max_steps={STEPS}", f"evaluation.num_problems={PROBLEMS}", f"evaluation.num_samples={SAMPLES}")
    try:
        on(directory / "replicas", stated, directory / "run", "evaluation.enabled=true", TRACKED[1], *settings)
        asked = [asked for server in servers for asked in server.generated]
        yield Served(directory / "run", stated, servers, asked)
    finally:
        for server in servers:
            server.stop()


def policies_by_step(asked: list[tuple[str | None, int, int]]) -> list[set[int]]:
    """By step: the policies its completions were written with, which the seeds of the requests tell."""
    first = [int.from_bytes(sha256(f"{SEED}/{step}/0".encode()).digest()[:6]) for step in range(STEPS)]
    found: list[set[int]] = [set() for _ in first]
    for name, seed, _ in asked:
        if name and name.startswith("policy-"):
            (step,) = (step for step, one in enumerate(first) if 0 <= seed - one < PROMPTS * COMPLETIONS)
            found[step].add(int(name.split("-")[1]))
    return found


def digest(run: Path) -> str:
    return sha256((run / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def test_every_batch_comes_from_the_policy_so_many_steps_before(served):
    assert policies_by_step(served.asked) == [{policy} for policy in POLICIES]
    lines = metrics(served.run)
    assert [line["perf/policy_version"] for line in lines] == POLICIES
    assert [line["perf/staleness"] for line in lines] == [step - policy for step, policy in enumerate(POLICIES)]
    assert [line["perf/batches_in_flight"] for line in lines] == [2, 2, 2, 2, 1, 0]


def test_no_more_adapters_are_loaded_than_batches_need(served):
    assert all(server.most_adapters <= STALENESS + 2 for server in served.servers)


def test_a_checkpoint_holds_the_policies_of_the_batches_on_their_way(served):
    for step, held in ((4, [2, 3]), (6, [4, 5])):
        kept = served.run / "checkpoints" / f"checkpoint-{step}"
        assert sorted(int(path.name.split("-")[1]) for path in (kept / "policies").iterdir()) == held
        assert sum(name.startswith("policies/") for name in json.loads((kept / "complete.json").read_text())) == 4


def test_killed_and_served_badly_a_run_gives_the_same_adapter(served, tmp_path):
    """One server forgets its adapters and one breaks off while two policies are in use; then training is killed."""
    run, steps = tmp_path / "run", f"grpo.max_steps={STEPS}"
    make_prepared(run, served.config, steps, by=served.run)
    for server in served.servers:
        server.generated.clear()
        server.pause = 0.05
    script, registry = Path(__file__).with_name("on_engines.py"), served.run.parent / "replicas"
    command = [sys.executable, str(script), str(served.config), str(run), str(registry), steps]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:

        def done(step: int) -> bool:
            assert process.poll() is None
            return (run / "metrics.jsonl").exists() and len(metrics(run)) >= step

        until(lambda: done(1), 240, pause=0.01)
        served.servers[0].restart()
        served.servers[1].break_off = 3
        until(lambda: done(3), 240, pause=0.01)
        process.kill()
    for server in served.servers:
        server.pause = 0.002
    on(registry, served.config, run, steps)
    assert digest(run) == digest(served.run)
    asked = [asked for server in served.servers for asked in server.generated]
    assert policies_by_step(asked) == [{policy} for policy in POLICIES]
    assert not (run / "policies").exists()


def test_every_step_tells_all_of_its_rollouts(served):
    lines = metrics(served.run)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        assert [name for name in TOLD if not isinstance(line.get(name), float)] == []


def test_the_parts_of_a_step_are_no_more_than_the_step(served):
    for line in metrics(served.run):
        parts = line["perf/wait_seconds"] + line["perf/sync_seconds"]
        assert min(line["perf/generation_seconds"], line["perf/wait_seconds"], line["perf/sync_seconds"]) > 0
        assert parts <= line["step_time"]
        assert 0 < line["perf/idle_share"] <= 1
        assert 0 <= line["perf/replica_utilization"] <= 1  # nothing is left to serve in the last step
        split = line["perf/prompt_tokens_per_second"] + line["perf/completion_tokens_per_second"]
        assert split == pytest.approx(line["perf/tokens_per_second"])
        seconds = parts / line["perf/idle_share"]
        tokens = PROMPTS * COMPLETIONS * line["completions/mean_length"]
        assert line["perf/completion_tokens_per_second"] == pytest.approx(tokens / seconds)


def test_the_policy_is_the_one_the_servers_were_asked_for(served):
    for policy in set(POLICIES):
        names = {name for name, _, _ in served.asked if name and name.startswith(f"policy-{policy}-")}
        assert len(names) == 1
        batches = POLICIES.count(policy)
        assert sum(n for name, _, n in served.asked if name in names) == batches * PROMPTS * COMPLETIONS
    tables = sorted((served.run / "completions").glob("*.parquet"))
    versions = [set(pyarrow.parquet.read_table(path)["policy_version"].to_pylist()) for path in tables]
    assert versions == [{policy} for policy in POLICIES]


def test_bytes_are_those_of_the_adapter(served):
    size = (served.run / "adapter" / "adapter_model.safetensors").stat().st_size
    assert all(size < line["perf/sync_bytes"] < size + 5_000 for line in metrics(served.run))


def test_every_tracker_receives_them(served):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines, names = metrics(served.run), [f"train/{name}" for name in TOLD]
    events = EventAccumulator(str(served.run / "tensorboard"))
    events.Reload()
    for name in names:
        received = [event.value for event in events.Scalars(name)]
        assert received == pytest.approx([line[name.removeprefix("train/")] for line in lines])

    [database] = (served.run / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = "".join(str(row) for row in connection.execute("select * from metrics"))
    assert [name for name in names if name not in rows] == []
    [record] = (served.run / "wandb").glob("offline-run-*/run-*.wandb")
    assert [name for name in names if name.encode() not in record.read_bytes()] == []


def test_the_report_shows_them(served):
    program = Program(served.run.parent, served.run.parent / "config.yaml")
    rollouts = program.report("run")["rollouts"]
    lines = metrics(served.run)
    assert (rollouts["mode"], rollouts["replicas"]) == ("server", 2)
    for name in (
        "generation_seconds",
        "wait_seconds",
        "sync_seconds",
        "sync_bytes",
        "replica_utilization",
        "idle_share",
    ):
        values = [line[f"perf/{name}"] for line in lines]
        assert min(values) <= rollouts[name] <= max(values)
    assert rollouts["sampling_logp_difference_max"] > 0
    page = (served.run / "report.html").read_text()
    for title in ("Seconds per step", "policy sync", "Utilisation", "servers at work", "Sampler against trainer"):
        assert title in page
    assert all(f"policy {policy}" in page for policy in POLICIES)
    assert "policy_version" not in page


def test_base_and_trained_are_compared_in_the_servers_with_the_same_seeds(served):
    compared = [asked for asked in served.asked if not (asked[0] or "").startswith("policy-")]
    base = sorted((seed, n) for name, seed, n in compared if name is None)
    trained = sorted((seed, n) for name, seed, n in compared if name is not None)
    assert base == trained
    assert sorted(n for _, n in base) == [1] * PROBLEMS + [SAMPLES] * PROBLEMS
    (name,) = {name for name, _, _ in compared if name is not None}
    assert name.startswith("trained-")
    comparison = json.loads((served.run / "comparison.json").read_text())
    assert (comparison["problems"], comparison["k"]) == (PROBLEMS, SAMPLES)
    assert all(math.isfinite(comparison["seconds"][model]) for model in ("base", "trained"))


def test_utilisation_is_a_share_of_the_time_between_generations(monkeypatch):
    from grpo_dist.training.rollouts import server

    clock, busy = SimpleNamespace(now=50.0), {"0": (0, 5.0), "1": (0, 0.0)}
    monkeypatch.setattr(server.time, "monotonic", lambda: clock.now)

    def status() -> dict[str, dict[str, float]]:
        return {name: {"incarnation": times, "busy_seconds": seconds} for name, (times, seconds) in busy.items()}

    utilization = server.Utilization(SimpleNamespace(status=status))

    def measured(step: int, seconds: float, **servers: tuple[int, float]) -> float:
        clock.now += seconds
        busy.update({name.removeprefix("server_"): one for name, one in servers.items()})
        return utilization.measure(step)["perf/replica_utilization"]

    utilization.begin()
    assert measured(0, 10.0, server_0=(0, 15.0), server_1=(0, 5.0)) == pytest.approx(0.75)
    utilization.begin()  # at every sync; only the first counts
    assert measured(1, 10.0, server_0=(0, 20.0), server_1=(0, 10.0)) == pytest.approx(0.5)
    # A further batch of the same step: 5 of 15 seconds more.
    assert measured(1, 5.0, server_0=(0, 25.0), server_1=(0, 15.0)) == pytest.approx(10 / 15)
    # One was started again.
    assert measured(2, 10.0, server_0=(1, 4.0), server_1=(0, 19.0)) == pytest.approx(0.4)
    busy.clear()
    assert utilization.measure(3) == {}


def test_a_line_of_steps_that_generate_nothing_tells_the_newest_policy(monkeypatch):
    from trl import GRPOTrainer

    from grpo_dist.training.trainer.trainer import PlannedRollouts

    told = []
    monkeypatch.setattr(GRPOTrainer, "log", lambda trainer, logs, _: told.append(dict(trainer._metrics["train"])))
    trainer = object.__new__(PlannedRollouts)
    trainer.use_vllm, trainer.policy_version = True, 4.0
    for logged in ({}, {"perf/policy_version": [2.0, 4.0]}):
        trainer._metrics = {"train": logged}
        trainer.log({"loss": 0.0})
    assert [metrics["perf/policy_version"] for metrics in told] == [[4.0], [4.0]]
