"""What happens to a job on a real Slurm when something breaks. Only the stages themselves are stand-ins."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from fake_ranks import UNSHARED
from slurm_jobs import ASK_SECONDS, NODES, ROOT, WAIT_SECONDS, Job, Together, hold, release, stopped, until

from grpo_dist.procs.ports import ports_of

pytestmark = pytest.mark.heavy

STEPS = 12
SERVER = {"backend": "vllm", "mode": "server", "nodes": 1}


def chain(steps: int = STEPS) -> bytes:
    """The adapter of a fake run in which every step was done once."""
    state = ""
    for step in range(1, steps + 1):
        state = sha256(f"{state} {step}".encode()).hexdigest()
    return state.encode()


def finished(job: Job, attempts: int, steps: int = STEPS) -> None:
    """It ended well, after so many attempts, with the adapter of a run that was never interrupted."""
    job.wait()
    assert (job.state, job.code) == ("COMPLETED", 0), job.text()
    assert job.adapter() == chain(steps), job.text()
    assert job.attempts == attempts, job.text()
    assert not (job.run / "failure.json").exists()


def failed(job: Job, code: int, *told: str) -> None:
    """It ended with this code in its first attempt, and these words last."""
    job.wait()
    assert (job.state, job.code, job.attempts) == ("FAILED", code, 1), job.text()
    for words in told:
        assert words in job.text()


together = Together()
"""Faults of one job that leave the others alone."""


@pytest.fixture(scope="module")
def futures(fakes, request) -> Iterator[dict[str, Future[None]]]:
    with together.begun(fakes, request) as begun:
        yield begun


@together
def the_script_for_any_run_takes_what_it_is_given(fake):
    """Two nodes of three GPUs where its options say two of eight; a run directory of its own."""
    (fake.home / "my.yaml").write_text(yaml.safe_dump(fake.base | {"cluster": {"gpus_per_node": 8}}))
    options = ("--nodes=2", "--gpus-per-node=3", "--cpus-per-task=1", "--export=ALL,SLURM_GPUS=7,SLURM_HET_SIZE=2")
    arguments = ("my.yaml", "--set", "grpo.num_generations=6")
    job = fake.again(fake.home, *options, script=ROOT / "slurm" / "grpo.sh", arguments=arguments)
    job = replace(job, run=fake.home / "runs" / f"my-{job.number}")
    finished(job, attempts=1)
    record = json.loads((job.run / "job.json").read_text())
    assert (record["job_id"], record["cluster"], record["output"]) == (job.number, "test", str(job.output))
    topology = json.loads((job.run / "plan.json").read_text())["topology"]
    assert (topology["nodes"], topology["gpus_per_node"], topology["num_processes"]) == (2, 3, 6)
    assert "--gpu_ids all" in launched(job)


@together
def the_components_of_a_heterogeneous_job_work_together(fake):
    run = fake.render("components")
    job = fake.again(run, "--nodes=1", "--cpus-per-task=1", ":", "--nodes=1", "--cpus-per-task=1")
    finished(job, attempts=1)
    assert json.loads((job.run / "plan.json").read_text())["topology"]["nodes"] == 2


@together
def a_killed_rank_is_no_end(fake):
    job = fake("rank killed", fault="1 4 kill")
    finished(job, attempts=2)
    told = json.loads((job.run / "logs" / "attempt-1" / "failure.json").read_text())
    assert (told["node"], told["role"], told["signal"]) == (1, "train", 9)
    assert "train on node" in job.text()
    assert "was ended by SIGKILL" in job.text()


@together
def what_would_happen_again_is_not_tried_again(fake):
    memory = fake("memory", fault="1 4 raise")
    failed(memory, 1, "likely cause: a GPU is out of memory", "max_per_device_train_batch_size")
    told = memory.failure()
    assert (told["node"], told["role"], told["code"]) == (1, "train", 1)
    assert "CUDA out of memory" in "\n".join(told["tail"])


@together
def a_run_that_stands_still_is_started_again_and_its_stacks_are_kept(fake):
    job = fake("stalled", fault="0 5 hang", cluster={"stall_seconds": 6})
    finished(job, attempts=2)
    assert "no step for" in job.text()
    stacks = (job.run / "logs" / "attempt-1" / "train.log").read_text()
    assert re.search(r"most recent call first.*misbehave", stacks, re.DOTALL)


@together
def without_its_servers_a_job_starts_again(fake):
    job = fake("replica", fault="100 1 kill", rollout=SERVER, cluster={"nodes": 3})
    finished(job, attempts=2)
    assert "serve on" in job.text()
    assert "SIGKILL" in job.text()
    assert "all rollout servers are gone" in job.text()


def test_a_job_survives_busy_ports_late_nodes_and_wrong_clocks(fake, cluster):
    """The clock is that of all Python on the node; the kernel has one for all nodes."""
    first = ports_of("0").start
    holding = [
        *("import socket, sys", "held = [socket.create_server(('', port)) for port in range(20000, 30000, 20)]"),
        "sys.stdin.read()",
    ]
    busy = [cluster.start("exec", f"node{n}", sys.executable, "-c", "; ".join(holding)) for n in range(1, NODES + 1)]
    try:
        run = fake.render("borne")
        (run / "late").write_text("4")
        (run / "ahead").write_text("7200")
        job = fake.again(run)
        job.wait_for_step(3)
        cluster.control("controller")
        finished(job, attempts=1)
    finally:
        for process in busy:
            process.communicate()
    assert job.steps() == list(range(1, STEPS + 1))
    port = int(re.search(r"--main_process_port (\d+)", launched(job))[1])
    assert port % 20 not in (first % 20,)
    assert re.search(r"warning: node\d: its clock is 7\d\d\d s ahead of node\d's", job.text())


@together
def a_full_disk_ends_the_job_and_what_was_saved_before_stands(fake):
    small = fake.cluster.directory / "small"
    submit = replace(fake, home=small)
    job = submit.held("full", 6, f"--output={fake.home}/full.out", grpo={"save_steps": 2})
    job = replace(job, output=fake.home / "full.out")
    job.wait_for_step(5)
    with open(small / "others", "wb", buffering=0) as others, suppress(OSError):
        while True:
            others.write(bytes(4096))
    release(job.run)
    failed(job, 1, "likely cause: the disk is full", "make room, then submit again")
    assert "Traceback (most recent call last):\n" not in "\n".join(re.findall(r"^(?!  \|).*", job.text(), re.M))
    (small / "others").unlink()
    finished(submit.again(job.run), attempts=2)


@together
def ahead_of_a_limit_without_a_signal_a_job_that_cannot_save_continues_from_what_was_saved(fake):
    """It looks at Slurm's clock itself, and is given up while there is time to put it back."""
    run = fake.render("slow", cluster={"signal_seconds": 60})
    (run / "fault").write_text("0 5 slow")
    script = run / "job.sh"
    script.write_text(re.sub(r"#SBATCH --signal=.*\n", "", script.read_text()))
    job = fake.again(run, "--time=3")
    until(lambda: job.attempts == 2, WAIT_SECONDS, job.text)
    fake.cluster.slurm("scontrol", "update", f"JobId={job.number}", "TimeLimit=60")
    finished(job, attempts=2)
    assert job.steps().count(4) == 2, "it was not continued from checkpoint-3"
    assert "no step ended before the time limit; what was saved before is kept" in job.text()


@together
def a_job_that_is_killed_while_it_saves_continues_from_what_was_saved_before(fake):
    """Slurm gives it KillWait. Whether it ends before or is killed, as where so much runs, nothing is lost."""
    run = fake.render("killed")
    (run / "fault").write_text("0 5 slow")
    nobody_is_left_to_clean(run)
    job = fake.again(run)
    until((job.run / "checkpoints" / "checkpoint-5").exists, WAIT_SECONDS, job.text)
    fake.cluster.slurm("scontrol", "requeue", job.number)
    finished(job, attempts=2)
    assert job.steps().count(4) == 2, "it was not continued from checkpoint-3"


@together
def two_jobs_on_the_same_nodes_do_not_meet(fake):
    jobs = [fake(f"neighbour {which}", "--nodelist=node3,node4") for which in range(2)]
    for job in jobs:
        finished(job, attempts=1)
    ports = [re.search(r"--main_process_port (\d+)", launched(job))[1] for job in jobs]
    assert ports[0] != ports[1]


@together
def ahead_of_the_time_limit_a_job_saves_and_goes_back_into_the_queue(fake):
    """Slurm counts limits in minutes and looks at them every 30 s: the signal is sent instead of waiting for it."""
    job = fake.held("limit", 5)
    stopped(job, "scancel", "--batch", "--signal=USR2", job.number)
    finished(job, attempts=2)
    assert "the time limit is near" in job.text()
    assert job.steps() == list(range(1, STEPS + 1)), "a step was done twice: it did not save where it stopped"


@together
def a_trained_run_is_not_put_back_into_the_queue_for_want_of_a_comparison(fake):
    job = fake("trained", evaluation={"enabled": True})
    until(lambda: "compare on" in job.text(), WAIT_SECONDS, job.text)
    assert "training has ended and is saved" in fake.program("checkpoint", job.run).stderr
    fake.cluster.slurm("scancel", "--batch", "--signal=USR2", job.number)
    finished(job, attempts=1)
    assert "but for the comparison" in job.text()
    assert (job.run / "report.html").exists()


@together
def requeued_by_hand_it_continues(fake):
    job = fake.held("requeued", 5)
    stopped(job, "scontrol", "requeue", job.number)
    finished(job, attempts=2)
    assert job.steps() == list(range(1, STEPS + 1)), "it did not save where it stopped"


@together
def cancelled_it_saves_and_does_not_come_back(fake):
    job = fake.held("cancelled", 5)
    stopped(job, "scancel", job.number)
    job.wait("CANCELLED")
    until(lambda: "saved after step 5" in job.text(), WAIT_SECONDS, job.text)
    until(lambda: "and nothing runs it again; continue it with: sbatch" in job.text(), WAIT_SECONDS, job.text)
    assert job.attempts == 1
    assert (job.run / "checkpoints" / "checkpoint-5").exists(), job.text()
    assert max(job.steps()) == 5
    assert not (job.run / "adapter").exists()


@together
def preempted_it_gives_way_and_comes_back(fake):
    nodes = ("--nodelist=node5,node6", "--exclusive")
    job = fake.held("preempted", 5, *nodes)
    urgent = stopped(job, "sbatch", "--parsable", "--partition=urgent", *nodes, "--wrap=true", "--output=/dev/null")
    finished(job, attempts=2)
    assert Job(fake.cluster, urgent, job.run, job.output).state == "COMPLETED"


@together
def preempted_where_that_cancels_a_job_another_one_continues(fake):
    """Slurm gives no grace time, only KillWait, and does not run it again."""
    nodes = ("--nodelist=node1,node2", "--exclusive")
    job = fake.held("replaced", 5, "--partition=scrap", *nodes)
    stopped(job, "sbatch", "--parsable", "--partition=urgent", *nodes, "--wrap=true", "--output=/dev/null")
    job.wait()
    assert re.match(r"Submitted batch job \d+$", job.text().splitlines()[-1]), job.text()
    assert job.state == "PREEMPTED"
    finished(job.successor(), attempts=2)


@together
def a_killed_supervisor_takes_its_node_along_and_costs_one_attempt(fake):
    runs = [fake.render(f"supervisor {which}") for which in range(2)]
    for run in runs:
        hold(run, 5)
        nobody_is_left_to_clean(run)
    jobs = [fake.again(run) for run in runs]
    for which, job in enumerate(jobs):
        job.wait_for_step(4)
        node, pattern = nodes_of(job)[which], f"^[^ ]*.*python -m grpo_dist.supervisor.node.*supervisor {which}/logs"
        pids = fake.cluster.control("exec", node, "pgrep", "-f", pattern).stdout
        fake.cluster.control("exec", node, "kill", "-KILL", *pids.split())
    for job in jobs:
        until((job.run / "logs" / "attempt-1" / "failure.json").exists, WAIT_SECONDS, job.text)
        release(job.run)
        finished(job, attempts=2)


@together
def a_node_without_power_costs_one_attempt(fake):
    job = fake.held("power", 5, "--nodelist=node7,node8", "--exclusive")
    job.wait_for_step(4)
    fake.cluster.control("crash", "node8")
    time.sleep(1)  # its file server, were it one, would not come back at once
    fake.cluster.control("boot", "node8")
    until(lambda: job.look()["Restarts"] == "1", WAIT_SECONDS, job.text, pause=ASK_SECONDS)
    release(job.run)
    finished(job, attempts=2)


@together
def a_short_cut_of_the_network_is_borne_and_a_long_one_costs_an_attempt(fake):
    cluster = fake.cluster
    job = fake.held("cut", 4, "--nodelist=node9,node10", "--exclusive")
    job.wait_for_step(3)
    cluster.control("unplug", "node10")
    time.sleep(1)
    cluster.control("plug", "node10")
    hold(job.run, 9)
    job.wait_for_step(8)
    assert job.attempts == 1, job.text()

    cluster.control("unplug", "node10")
    record = job.run / "logs" / "attempt-1" / "failure.json"
    until(record.exists, WAIT_SECONDS, job.text)
    cluster.control("plug", "node10")
    release(job.run)
    assert json.loads(record.read_text())["why"] == "is silent or its supervisor ended"
    job.wait()
    assert (job.state, job.attempts) == ("COMPLETED", 2), job.text()
    assert job.adapter() == chain()


@together
def on_other_numbers_of_nodes_a_run_continues(fake):
    job = fake.held("resized", 5)
    for nodes, held, then in ((1, 5, 9), (3, 9, STEPS + 1)):
        job.wait_for_step(held - 1)
        (job.run / "stop-request").write_text("terminated")
        hold(job.run, then)
        until(lambda job=job: job.state == "PENDING", WAIT_SECONDS, job.text)
        fake.cluster.slurm("scancel", job.number)
        job = fake.again(job.run, f"--nodes={nodes}")
    job.wait()
    assert (job.state, job.adapter()) == ("COMPLETED", chain()), job.text()
    assert json.loads((job.run / "plan.json").read_text())["topology"]["nodes"] == 3


@together
def after_a_reward_that_raises_a_truncated_checkpoint_is_passed_over(fake):
    job = fake("truncated", fault="0 7 reward")
    failed(job, 1, "rewards: mine.py:fussy raised")
    (job.run / "checkpoints" / "checkpoint-6" / "state").write_text("")
    finished(fake.again(job.run), attempts=2)


@together
def a_run_is_not_run_twice_nor_with_another_configuration_and_saves_when_asked_to(fake):
    changed = ("config.yaml", "--set", "grpo.seed=1", "--output", ".")
    job = fake.held("twice", 2)
    job.wait_for_step(1)
    second, other = fake.again(job.run), fake.again(job.run, arguments=changed)
    assert (second.wait().state, second.code) == ("FAILED", 2)
    assert f"this run is still going on (job {job.number})" in second.text()
    assert other.wait().code == 2
    told = fake.program("checkpoint", job.run)
    assert "saves and stops at its next step" in told.stderr
    release(job.run)
    finished(job, attempts=2)
    assert job.steps() == list(range(1, STEPS + 1)), "it did not save where it stopped"
    assert "no run is going on" in fake.program("checkpoint", job.run, code=2).stderr
    other = fake.again(job.run, arguments=changed).wait()
    assert other.code == 2
    assert "grpo.seed: 3407 in the run, 1 now" in other.text()


@together
def what_cannot_run_ends_before_anything_starts_with_the_planners_words_last(fake):
    run = fake.render("bad")
    settings = ("--set", "grpo.prompts_per_step=7", "--set", "grpo.num_generations=3")
    bad = fake.again(run, arguments=("config.yaml", *settings, "--output", "other")).wait()
    assert bad.code == 2
    assert "7 prompts × 3 completions = 21 completions per step do not divide over 2 processes" in bad.text()
    assert bad.text().rstrip().splitlines()[-1].strip().startswith("--set")
    assert "prepare on" not in bad.text()
    assert not (run / "other").exists()


@pytest.mark.parametrize("name", together)
def test_of_faults_at_the_same_time(futures, name):
    futures[name].result()


def test_nothing_of_them_is_left_on_any_node(futures, cluster):
    for future in futures.values():
        future.exception()
    assert cluster.leaks() == ""


def nobody_is_left_to_clean(run: Path) -> None:
    """Where supervisors are killed, a race decides whether Python's resource tracker removes shared memory in time."""
    (run / UNSHARED).touch()


def launched(job: Job) -> str:
    """The first node's training log of the first attempt."""
    return (job.run / "logs" / "attempt-1" / "train.log").read_text()


def nodes_of(job: Job) -> list[str]:
    listed = job.look()["NodeList"]
    return job.cluster.slurm("scontrol", "show", "hostnames", listed).stdout.split()
