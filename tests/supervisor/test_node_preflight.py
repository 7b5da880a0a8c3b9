"""What is found before anything is started on the nodes, and what is said after something broke."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from grpo_dist.config import RunConfig
from grpo_dist.errors import LaunchError, PlanError, RunDirectoryError
from grpo_dist.findings import Finding
from grpo_dist.inference.registry import STARTING, wait_until_started
from grpo_dist.launch.open import create_or_resume
from grpo_dist.plan import plan_run
from grpo_dist.procs.ports import interface_of, ports_of
from grpo_dist.run.checkpoints import seal
from grpo_dist.run.control import (
    FAILED,
    FIRST_STEP_SECONDS,
    REFUSED,
    TRY_AGAIN,
    AttemptStart,
    Watchdog,
    Why,
    request_stop,
    stop_requested,
)
from grpo_dist.run.directory import RunDirectory
from grpo_dist.slurm.client import Allocation, parse_fields
from grpo_dist.supervisor import coordinator, node, shared_fs_check
from grpo_dist.supervisor.agent import connect
from grpo_dist.supervisor.coordinator import Coordinator
from grpo_dist.supervisor.deadline import MARGIN_SECONDS, Deadline
from grpo_dist.supervisor.failure import failure_of, first_cause
from grpo_dist.supervisor.preflight import NodeInfo, node_info, problems, warnings
from grpo_dist.supervisor.rpc import CoordinatorServer, Secret

NODE = NodeInfo(
    node=0,
    host="a1",
    code="c0de",
    packages={"python": "3.11.7", "torch": "2.13.0"},
    run="d1ge57",
    gpus=(3, 3),
    disk=1 << 40,
    findings=(),
    clock=1000.0,
)
OTHER = replace(NODE, node=1, host="a2")


def config(nodes: int = 2, gpus: int = 0, **sections) -> RunConfig:
    embedded = {"name_or_path": "embedded"}
    grpo = {"prompts_per_step": 12, "num_generations": 2, **sections.pop("grpo", {})}
    cluster = {"nodes": nodes, "gpus_per_node": gpus}
    stated = {"model": {**embedded, "dtype": "float32"}, "data": embedded, "grpo": grpo, "cluster": cluster}
    return RunConfig.model_validate({**stated, **sections})


def found(*nodes: NodeInfo, gpus: int = 0, checkpoint_bytes: int = 0) -> list[str]:
    return list(problems(nodes, plan_run(config(gpus=gpus)), Path("/runs/x"), checkpoint_bytes))


def test_nodes_that_agree_may_start():
    assert found(NODE, OTHER, gpus=2) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"run": None}, "a2: /runs/x is not there; it must be on a file system that all nodes see"),
        ({"run": "other"}, "a2: reads another config.yaml or plan.json in /runs/x than a1"),
        ({"code": "0ld"}, "a2: runs other code of grpo-dist than a1 (0ld, c0de)"),
        ({"packages": {"python": "3.11.7"}}, "a2: torch is not installed, on a1 2.13.0"),
        ({"packages": {**NODE.packages, "torch": "2.12.0"}}, "a2: torch 2.12.0, on a1 2.13.0"),
        ({"gpus": (3,)}, "a2: 1 GPUs, 2 planned"),
        ({"gpus": (3, 40_000)}, "a2: GPU 1 has 40000 MiB in use by somebody else"),
        ({"disk": 10 << 20}, "a2: 10 MiB left at /runs/x, checkpoints need 64 MiB"),
        ({"host": "a1"}, "there are two supervisors on a1; a job runs one task per node"),
    ],
)
def test_what_keeps_a_node_from_it_is_said_with_its_name(changed, told):
    assert found(NODE, replace(OTHER, **changed), gpus=2) == [told]


def test_a_checkpoint_s_size_decides_how_much_room_is_needed():
    assert found(NODE, replace(OTHER, disk=2 << 30), checkpoint_bytes=1 << 30) == [
        "a2: 2048 MiB left at /runs/x, checkpoints need 3072 MiB"
    ]


def test_a_clock_that_is_off_is_a_warning():
    off = replace(OTHER, clock=1000.0 - 90)
    assert list(warnings([NODE, off], lambda _: 1000.0)) == ["a2: its clock is 90 s behind a1's; times in logs differ"]


def test_facts_survive_their_journey_and_a_missing_run_is_one(tmp_path):
    facts = node_info(3, RunDirectory(tmp_path / "no"))
    assert facts.run is None
    assert NodeInfo.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts


NO_VLLM = Finding("vllm", "error", "not installed, and needed for rollout.backend: vllm", "pip install vllm")
FEW_FILES = Finding("open-files", "warning", "1,024, fewer than 4,096", "ulimit -n 4096")


def test_what_the_doctor_finds_on_nodes_is_told_once_with_their_names():
    nodes = [replace(NODE, node=n, host=f"a{n + 1}", findings=(FEW_FILES,)) for n in range(6)]
    assert list(warnings(nodes, lambda _: 1000.0)) == [
        "a1, a2, a3, a4 and 2 more: open-files: 1,024, fewer than 4,096 → ulimit -n 4096"
    ]
    assert found(NODE, replace(OTHER, findings=(FEW_FILES, NO_VLLM))) == [
        "a2: vllm: not installed, and needed for rollout.backend: vllm → pip install vllm"
    ]


def test_a_node_that_lacks_what_the_run_needs_says_so_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("the Hub was asked"))
    run = RunDirectory(tmp_path / "run")
    stated = config(model={"name_or_path": "Qwen/Qwen3-4B", "dtype": "float32"}, tracking=["wandb"])
    create_or_resume(stated, plan_run(stated), run, resume_command="")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib7")

    facts = node_info(1, run)
    assert NodeInfo.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts
    sick = {finding.name: finding for finding in facts.findings}
    assert {name for name, finding in sick.items() if finding.status == "error"} == {"model", "interface-pin"}
    assert sick["model"].what.startswith("Qwen/Qwen3-4B is not in the cache")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert "model" not in {finding.name for finding in node_info(1, run).findings}


def test_the_run_directory_is_proven_shared_both_ways(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_fs_check, "LAG_SECONDS", 0.0)
    shared_fs_check.ask(tmp_path, "nonce")
    assert shared_fs_check.answer(tmp_path, 1, "nonce") is None
    assert shared_fs_check.check(tmp_path, 1, "nonce") is None
    assert "did not appear" in shared_fs_check.answer(tmp_path, 1, "of another attempt")
    assert "cannot be seen on the head" in shared_fs_check.check(tmp_path, 2, "nonce")


@pytest.mark.parametrize(
    ("code", "tail", "cause", "outcome"),
    [
        (1, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "a GPU is out of memory", FAILED),
        (1, "OSError: [Errno 28] No space left on device", "the disk is full", FAILED),
        (1, "[Rank 3] Watchdog caught collective timeout: ProcessGroupNCCL WorkNCCL timeout", "NCCL lost", TRY_AGAIN),
        (1, "RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer", "the connection", TRY_AGAIN),
        (1, "OSError: [Errno 98] Address already in use", "a port is taken", TRY_AGAIN),
        (-9, "step 4", None, TRY_AGAIN),
        (1, "  exitcode  : -9 (pid: 12)", None, TRY_AGAIN),
        (1, "ValueError: mine.py:fussy", None, FAILED),
        (2, "Error: grpo.beta: must be 0 or more", None, REFUSED),
        (2, "RuntimeError: Connection closed by peer", "the connection", REFUSED),
    ],
)
def test_the_likely_cause_decides_whether_to_try_again(code, tail, cause, outcome):
    failure = failure_of(1, "a2", "train", code, "", [tail])
    assert (failure.cause or "").startswith(cause or ""), failure.cause
    assert (failure.cause is None) == (cause is None)
    assert failure.outcome == outcome
    assert failure.killed_by != 9 or "memory" in failure.hint, "a bare SIGKILL has a hint"


def test_of_failures_that_come_together_the_first_cause_is_told():
    peer = failure_of(0, "a1", "train", 1, "", ["gloo: Connection closed by peer"])
    killed = failure_of(1, "a2", "train", 1, "", ["exitcode  : -9 (pid: 12)"])
    lost = failure_of(2, "a3", "node", None, "is silent", [])
    assert first_cause([peer, killed]) is killed
    assert first_cause([peer, killed, lost]) is lost
    assert "train on a2 (node 1) was ended by SIGKILL" in killed.text()


def test_a_step_is_overdue_by_the_run_s_own_times():
    dog = Watchdog(least=5.0, now=0.0)
    assert not dog.overdue(FIRST_STEP_SECONDS - 1)
    for step, now in ((1, 100.0), (2, 102.0), (3, 103.0)):
        dog.observe(step, now)
    assert dog.limit == 20.0
    dog.observe(3, 120.0)
    assert not dog.overdue(122.0)
    assert dog.overdue(124.0)


def test_jobs_whose_numbers_are_close_share_no_port():
    taken = [port for job in range(100, 200) for port in ports_of(str(job))]
    assert len(set(taken)) == len(taken)
    assert min(taken) >= 20_000
    assert max(taken) < 30_000


def test_the_interface_of_an_address_is_found():
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.7") is None


@pytest.mark.parametrize(
    ("environ", "nodes", "gpus"),
    [
        ({"SLURM_JOB_NUM_NODES": "4", "SLURM_GPUS_ON_NODE": "8"}, 4, 8),
        ({"SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_PER_NODE": "h100:7(x2)"}, 2, 7),
        ({"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_GPUS": "0,3"}, 1, 2),
        ({"SLURM_JOB_NUM_NODES": "1"}, 1, 0),
        ({"SLURM_JOB_NUM_NODES": "1", "SLURM_GPUS_ON_NODE": "gpu:4"}, 1, 4),
        ({"SLURM_JOB_NUM_NODES": "1", "CUDA_VISIBLE_DEVICES": "NoDevFiles"}, 1, 0),
        ({"SLURM_JOB_NUM_NODES": "1", "CUDA_VISIBLE_DEVICES": "-1"}, 1, 0),
        ({"SLURM_JOB_NUM_NODES": "1", "CUDA_VISIBLE_DEVICES": "MIG-8f2,GPU-77a0"}, 1, 2),
        ({"SLURM_HET_SIZE": "2", "SLURM_JOB_NUM_NODES": "1"}, 1, 0),
        (
            {"SLURM_HET_SIZE": "2", "SLURM_JOB_NUM_NODES_HET_GROUP_0": "5", "SLURM_JOB_NUM_NODES_HET_GROUP_1": "5"}
            | {"SLURM_JOB_ID_HET_GROUP_0": "3", "SLURM_JOB_ID_HET_GROUP_1": "4", "SLURM_JOB_NUM_NODES": "2"},
            2,
            0,
        ),
        (
            {"SLURM_HET_SIZE": "2", "SLURM_JOB_NUM_NODES_HET_GROUP_0": "2", "SLURM_JOB_NUM_NODES_HET_GROUP_1": "1"},
            3,
            0,
        ),
    ],
)
def test_the_allocation_is_read_from_slurm_s_variables(environ, nodes, gpus):
    allocation = Allocation.from_environ({"SLURM_JOB_ID": "7", **environ})
    assert (allocation.nodes, allocation.gpus_per_node) == (nodes, gpus)
    with pytest.raises(LaunchError, match="no Slurm job"):
        Allocation.from_environ(environ)


def test_slurm_s_own_words_count_more_than_variables():
    """Those of the job that sbatch was typed in are still there."""
    left_over = {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "8", "SLURM_GPUS_PER_NODE": "8"}
    shown = "JobId=7 JobName=a b=c TRES=cpu=1,node=1 JOB_GRES=(null)   Nodes=n1 CPU_IDs=0 Mem=0 GRES= MinCPUsNode=1"
    assert Allocation.from_environ(left_over, parse_fields(shown)).gpus_per_node == 0
    shown = shown.replace("GRES= ", "GRES=gpu:a100:3(S:0-1),tmp:9 ").replace("(null)", "gpu:a100:3")
    assert Allocation.from_environ(left_over, parse_fields(shown)).gpus_per_node == 3
    assert Allocation.from_environ(left_over, {}).gpus_per_node == 8
    with pytest.raises(LaunchError, match="SLURM_GPUS_ON_NODE='many'"):
        Allocation.from_environ(left_over | {"SLURM_GPUS_ON_NODE": "many"})


def test_fields_of_slurm_may_contain_blanks_and_equals_signs():
    fields = parse_fields("JobId=7 WorkDir=/it's a home/x=1 Comment=a b=c  StdOut=/it's a home/o.7 CPUs/Task=2 Power= ")
    assert fields["WorkDir"] == "/it's a home/x=1"
    assert (fields["Comment"], fields["CPUs/Task"], fields["Power"]) == ("a b=c", "2", "")


def checkpointed(tmp_path, **sections) -> RunDirectory:
    """A run that has saved on two nodes."""
    run, stated = RunDirectory(tmp_path / "run"), config(**sections)
    create_or_resume(stated, plan_run(stated), run, resume_command="")
    checkpoint = run.checkpoints / "checkpoint-4"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state").write_text("4")
    seal(checkpoint)
    return run


def test_on_other_machines_the_plan_is_rendered_anew(tmp_path):
    run, fewer = checkpointed(tmp_path), config(nodes=1)
    create_or_resume(fewer, plan_run(fewer), run, resume_command="")
    assert '"num_processes": 1' in run.plan.read_text()
    assert "num_processes: 1" in (run.path / "accelerate.yaml").read_text()


def test_a_partitioned_optimizer_is_refused_another_number_of_processes(tmp_path):
    sharded = {"distributed": {"strategy": "zero2"}}
    run, more = checkpointed(tmp_path, **sharded), config(nodes=3, **sharded)
    before = run.plan.read_text()
    with pytest.raises(PlanError, match="optimizer of step 4 is in 2 parts") as refused:
        create_or_resume(more, plan_run(more), run, resume_command="")
    assert "2 nodes" in refused.value.hint
    assert run.plan.read_text() == before
    same = config(**sharded)
    create_or_resume(same, plan_run(same), run, resume_command="")


def test_another_configuration_is_refused_with_the_difference(tmp_path):
    run, other = checkpointed(tmp_path), config(grpo={"learning_rate": 1e-3})
    with pytest.raises(RunDirectoryError, match=r"grpo.learning_rate: 5e-06 in the run, 0.001 now"):
        create_or_resume(other, plan_run(other), run, resume_command="")


SILENT = (lambda: None, lambda: None)
"""Slurm does not say when it kills the job, nor how much time is left."""


def test_a_node_that_refuses_ends_the_attempt_at_once(tmp_path):
    run = checkpointed(tmp_path)

    async def scene() -> None:
        server = CoordinatorServer(Secret("token", "79", "attempt-1"))
        port = await server.listen(ports_of("79"))
        agent = await connect(lambda: [("127.0.0.1", port)], server.secret, 1, 5)
        agent.send({"event": "hello", "refused": "config.yaml: not YAML"})
        outcome = await Coordinator(run, run.new_attempt(), server, ports_of("79"), *SILENT).run_attempt()
        assert (outcome.code, outcome.why) == (REFUSED, "node 1: config.yaml: not YAML")
        await agent.close()
        await server.close()

    asyncio.run(scene())


def test_a_job_that_is_to_stop_waits_for_no_node_that_is_late(tmp_path, monkeypatch):
    monkeypatch.setattr(coordinator, "LATE_SECONDS", 0.0)
    run = checkpointed(tmp_path)
    request_stop(run, Why.LIMIT)

    async def scene() -> None:
        server, ports = CoordinatorServer(Secret("token", "78", "attempt-1")), ports_of("78")
        port = await server.listen(ports)
        outcome = await Coordinator(run, run.new_attempt(), server, ports, *SILENT).run_attempt()
        assert (outcome.code, outcome.why, outcome.step) == (TRY_AGAIN, "stopped: the time limit is near", 4)
        server.end_agents(outcome.code)
        late = await connect(lambda: [("127.0.0.1", port)], server.secret, 1, 5)
        assert await late.receive() == {"bye": TRY_AGAIN}
        await late.close()
        await server.close()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("left", "ends_in", "asked", "expected"),
    [
        (4000.0, None, None, (None, 4000 - MARGIN_SECONDS)),
        (400.0, None, None, (None, 400 - MARGIN_SECONDS)),
        (299.0, None, None, (Why.LIMIT, 299 - MARGIN_SECONDS)),
        (299.0, None, Why.ASKED, (Why.LIMIT, 299 - MARGIN_SECONDS)),
        (60.0, None, Why.TERMINATED, (Why.TERMINATED, 30)),
        (None, None, None, (None, math.inf)),
        (None, 299.0, None, (Why.LIMIT, math.inf)),
        (None, 400.0, None, (None, math.inf)),
    ],
)
def test_a_job_stops_in_time_by_slurm_s_clock_without_a_signal(tmp_path, left, ends_in, asked, expected):
    """It is to save 300 s before its limit. In a container only the limit known at the start counts."""
    run = checkpointed(tmp_path)
    attempt = run.new_attempt()
    AttemptStart("78", 0, ends=None if ends_in is None else time.time() + ends_in).write(attempt)
    if asked:
        request_stop(run, asked)

    async def scene() -> None:
        found, now = Deadline(run, attempt, 300, lambda: None, lambda: left), time.monotonic()
        found.watch(now)
        await found.time_query
        assert stop_requested(run) == expected[0]
        assert found.limit - now == pytest.approx(expected[1], abs=2)
        if left == 400.0:  # the next question is when the time has come
            assert found.ask_at - now == pytest.approx(100, abs=2)

    asyncio.run(scene())


@pytest.mark.parametrize(("left", "seconds"), [(60.0, 30.0), (600.0, 555.0), (None, 255.0)])
def test_after_a_signal_a_step_has_the_time_slurm_leaves_it(tmp_path, left, seconds):
    """Whatever signal the job asked for, and however short the grace time of a preemption is."""
    run = checkpointed(tmp_path)

    async def scene() -> None:
        found, now = Deadline(run, run.new_attempt(), 300, lambda: None, lambda: left), time.monotonic()
        assert not found.passed(now, Why.LIMIT)
        found.watch(now)
        await found.time_query
        assert not found.passed(now + seconds - 3, Why.LIMIT)
        assert found.passed(now + seconds + 3, Why.LIMIT)
        assert not found.passed(now + seconds + 3, Why.ASKED), "a user who asks is in no hurry"

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("GRPO_DIST_TOKEN", None, "GRPO_DIST_TOKEN in the environment is not set"),
        ("GRPO_DIST_TOKEN", "x y", "GRPO_DIST_TOKEN in the environment is not what it should be"),
        ("SLURM_PROCID", None, "SLURM_PROCID in the environment is not set"),
        ("SLURM_PROCID", "-1", "SLURM_PROCID in the environment is not what it should be"),
        ("SLURM_JOB_ID", None, "SLURM_JOB_ID is not set"),
        ("GRPO_DIST_CHAINED", "twice", "GRPO_DIST_CHAINED='twice' in the environment is no number"),
    ],
)
def test_a_variable_that_is_missing_or_odd_is_one_clear_line(tmp_path, monkeypatch, capsys, name, value, told):
    stated = {"GRPO_DIST_TOKEN": "0" * 64, "SLURM_PROCID": "0", "SLURM_JOB_ID": "7", "GRPO_DIST_CHAINED": "0"}
    for variable, text in {**stated, name: value}.items():
        monkeypatch.delenv(variable, raising=False) if text is None else monkeypatch.setenv(variable, text)
    assert node.main(tmp_path, tmp_path) == 1
    assert told in capsys.readouterr().err


SERVED = {"backend": "vllm", "mode": "server", "replicas": 1}


@pytest.mark.parametrize(("servers_apart", "together"), [(True, True), (False, False)])
def test_training_starts_with_servers_that_have_nodes_of_their_own(tmp_path, servers_apart, together):
    rollout = {**SERVED, "nodes": 1} if servers_apart else SERVED
    run = checkpointed(tmp_path, nodes=2, rollout=rollout)
    started: list[str] = []

    async def scene() -> None:
        events: asyncio.Queue = asyncio.Queue()
        server = SimpleNamespace(events=events, nodes={}, send=lambda message, *_: started.append(message["start"]))
        found = Coordinator(run, run.new_attempt(), server, ports_of("76"), *SILENT)
        found.nodes = {0: NODE, 1: OTHER}
        trains = range(found.plan.topology.trainer_nodes)
        (serves,) = {replica.node for replica in found.plan.topology.replicas}
        found._serve()
        assert started == ["serve"]
        assert (run.replicas / STARTING).exists()
        assert found._serves_elsewhere() is together
        training = asyncio.create_task(found._train())
        waiting = asyncio.create_task(asyncio.to_thread(wait_until_started, run.replicas))
        await asyncio.sleep(0)
        assert started == ["serve", "train"]
        assert found.watchdog is None, "no step is expected before there are completions"
        await asyncio.wait([waiting], timeout=0.5)
        assert not waiting.done()
        events.put_nowait((serves, {"event": "ready"}))
        await asyncio.wait_for(waiting, 30)
        assert found.watchdog is not None
        run.adapter.mkdir()
        for trainer in trains:
            events.put_nowait((trainer, {"event": "ended", "part": "train", "code": 0, "reason": "", "tail": []}))
        await asyncio.wait_for(training, 30)

    asyncio.run(scene())


def test_training_that_waits_for_servers_is_not_waited_for(tmp_path):
    run = checkpointed(tmp_path, nodes=2, rollout={**SERVED, "nodes": 1})

    async def scene() -> None:
        server = SimpleNamespace(events=asyncio.Queue(), nodes={}, send=lambda *_: None)
        found = Coordinator(run, run.new_attempt(), server, ports_of("76"), *SILENT)
        found.nodes = {0: NODE, 1: OTHER}
        found._serve()
        training = asyncio.create_task(found._train())
        await asyncio.sleep(0)
        request_stop(run, Why.LIMIT)
        with pytest.raises(coordinator.AttemptEnded, match="stopped: the time limit is near"):
            await asyncio.wait_for(training, 30)

    asyncio.run(scene())


def test_an_attempt_whose_run_directory_goes_away_ends_and_makes_nothing_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(coordinator, "GONE_SECONDS", 0.5)
    run = checkpointed(tmp_path)

    async def scene() -> None:
        server = CoordinatorServer(Secret("token", "77", "attempt-1"))
        await server.listen(ports_of("77"))
        found = Coordinator(run, run.new_attempt(), server, ports_of("77"), *SILENT)
        shutil.rmtree(run.path)
        outcome = await found.run_attempt()
        assert outcome.code == REFUSED
        assert outcome.why.startswith(f"{run.path}: the run directory is gone")
        await server.close()

    asyncio.run(scene())
    assert not run.path.exists()
