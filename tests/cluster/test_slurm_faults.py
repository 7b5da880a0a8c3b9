"""What happens to a job on a real Slurm when something breaks. Only the stages themselves are stand-ins."""

from __future__ import annotations

import json
import re
import time
from hashlib import sha256

import pytest
from conftest import Job, wait_until

pytestmark = pytest.mark.heavy

STEPS = 12
SERVER = {"backend": "vllm", "mode": "server", "nodes": 1}


def chain(steps: int = STEPS) -> bytes:
    """The adapter of a fake run in which every step was done once."""
    state = ""
    for step in range(1, steps + 1):
        state = sha256(f"{state} {step}".encode()).hexdigest()
    return state.encode()


def finished(job: Job, attempts: int) -> None:
    """It ended well, after so many attempts, with the adapter of a run that was never interrupted."""
    job.wait()
    assert (job.state, job.code) == ("COMPLETED", 0), job.text()
    assert job.adapter() == chain(), job.text()
    assert job.attempts == attempts, job.text()
    assert not (job.run / "failure.json").exists()


def failed(job: Job, code: int, *told: str) -> None:
    """It ended with this code in its first attempt, and these words last."""
    job.wait()
    assert (job.state, job.code, job.attempts) == ("FAILED", code, 1), job.text()
    for words in told:
        assert words in job.text()


@pytest.fixture(scope="module")
def crowd(fake_module) -> dict[str, Job]:
    """Jobs that share nodes while each meets its own fault."""
    fake = fake_module
    stalled = {"cluster": {"nodes": 2, "gpus_per_node": 0, "cpus_per_gpu": 1, "stall_seconds": 6}}
    apart = {"rollout": SERVER, "cluster": {"nodes": 3, "gpus_per_node": 0, "cpus_per_gpu": 1}}
    return {
        "whole": fake("whole"),
        "rank killed": fake("rank killed", fault="1 4 kill"),
        "reward": fake("reward", fault="0 4 reward"),
        "memory": fake("memory", fault="1 4 raise"),
        "disk": fake("disk", fault="0 4 full"),
        "stalled": fake("stalled", fault="0 5 hang", **stalled),
        "replica": fake("replica", fault="100 1 kill", **apart),
    }


def test_a_job_ends_with_its_adapter(crowd):
    finished(crowd["whole"], attempts=1)
    assert crowd["whole"].steps() == list(range(1, STEPS + 1))


def test_a_killed_rank_is_no_end(crowd):
    job = crowd["rank killed"]
    finished(job, attempts=2)
    told = json.loads((job.run / "logs" / "attempt-1" / "failure.json").read_text())
    assert (told["node"], told["role"], told["signal"]) == (1, "train", 9)
    assert "train on node" in job.text()
    assert "was ended by SIGKILL" in job.text()


def test_what_would_happen_again_is_not_tried_again(crowd):
    failed(crowd["reward"], 1, "rewards: mine.py:fussy raised")
    failed(crowd["memory"], 1, "likely cause: a GPU is out of memory", "max_per_device_train_batch_size")
    failed(crowd["disk"], 1, "likely cause: the disk is full")
    told = crowd["memory"].failure()
    assert (told["node"], told["role"], told["code"]) == (1, "train", 1)
    assert "CUDA out of memory" in "\n".join(told["tail"])


def test_a_run_that_stands_still_is_started_again_and_its_stacks_are_kept(crowd):
    job = crowd["stalled"]
    finished(job, attempts=2)
    assert "no step for" in job.text()
    stacks = (job.run / "logs" / "attempt-1" / "train.log").read_text()
    assert re.search(r"most recent call first.*misbehave", stacks, re.DOTALL)


def test_without_its_servers_a_job_starts_again(crowd):
    job = crowd["replica"]
    finished(job, attempts=2)
    assert "serve on" in job.text()
    assert "SIGKILL" in job.text()


def test_nothing_of_them_is_left_on_any_node(crowd, cluster):
    for job in crowd.values():
        job.wait()
    assert cluster.leaks() == ""


def test_ahead_of_the_time_limit_a_job_saves_and_goes_back_into_the_queue(fake, cluster):
    job = fake("limit")
    job.wait_for_step(4)
    cluster.slurm("scancel", "--batch", "--signal=USR2", job.number)
    finished(job, attempts=2)
    assert "the time limit is near" in job.text()
    assert job.steps() == list(range(1, STEPS + 1)), "a step was done twice: it did not save where it stopped"


def test_asked_for_a_checkpoint_a_job_saves_and_continues(fake, program):
    job = fake("asked")
    job.wait_for_step(4)
    told = program("checkpoint", job.run)
    assert "saves and stops at its next step" in told.stderr
    finished(job, attempts=2)
    assert job.steps() == list(range(1, STEPS + 1))
    assert "no run is going on" in program("checkpoint", job.run, code=2).stderr


def test_requeued_by_hand_it_continues(fake, cluster):
    job = fake("requeued")
    job.wait_for_step(4)
    cluster.slurm("scontrol", "requeue", job.number)
    finished(job, attempts=2)


def test_cancelled_it_saves_and_does_not_come_back(fake, cluster):
    job = fake("cancelled")
    job.wait_for_step(4)
    cluster.slurm("scancel", job.number)
    job.wait("CANCELLED")
    wait_until(lambda: not cluster.slurm("squeue", "--noheader").stdout, 60, job.text)
    assert job.attempts == 1
    saved = max(int(path.name.rpartition("-")[2]) for path in (job.run / "checkpoints").iterdir())
    assert saved == max(job.steps()), job.text()
    assert not (job.run / "adapter").exists()
    assert cluster.leaks() == ""


def test_preempted_it_gives_way_and_comes_back(fake, cluster):
    job = fake("preempted", "--nodes=4", "--exclusive", cluster={"nodes": 4, "gpus_per_node": 0})
    job.wait_for_step(4)
    options = ("--partition=urgent", "--nodes=4", "--wrap=true", "--output=/dev/null")
    urgent = cluster.slurm("sbatch", "--parsable", *options)
    finished(job, attempts=2)
    assert Job(cluster, urgent.stdout.strip(), job.run, job.output).state == "COMPLETED"


def test_a_restarted_controller_is_not_noticed(fake, cluster):
    job = fake("controller")
    job.wait_for_step(3)
    cluster.control("controller")
    finished(job, attempts=1)


def test_a_node_without_power_costs_one_attempt(fake, cluster):
    job = fake("power")
    job.wait_for_step(4)
    node = nodes_of(job)[1]
    cluster.control("crash", node)
    time.sleep(1)  # its file server, were it one, would not come back at once
    cluster.control("boot", node)
    finished(job, attempts=2)


def test_a_short_cut_of_the_network_is_borne_and_a_long_one_costs_an_attempt(fake, cluster):
    job = fake("cut", grpo={"prompts_per_step": 12, "num_generations": 2, "max_steps": STEPS, "save_steps": 3})
    job.wait_for_step(2)
    node = nodes_of(job)[1]
    cluster.control("unplug", node)
    time.sleep(1)
    cluster.control("plug", node)
    finished(job, attempts=1)

    other = fake("long cut", grpo={"prompts_per_step": 12, "num_generations": 2, "max_steps": 120, "save_steps": 3})
    other.wait_for_step(2)
    node = nodes_of(other)[1]
    cluster.control("unplug", node)
    wait_until(lambda: "is silent" in other.text(), 40, other.text)
    cluster.control("plug", node)
    other.wait()
    assert (other.state, other.adapter()) == ("COMPLETED", chain(120)), other.text()


def test_on_other_numbers_of_nodes_a_run_continues(fake):
    job = fake("resized", grpo={"prompts_per_step": 12, "num_generations": 2, "max_steps": 30, "save_steps": 3})
    for nodes, step in ((1, 6), (3, 12)):
        job.wait_for_step(step)
        (job.run / "stop-request").write_text("terminated")
        wait_until(lambda job=job: "Slurm" in job.text() and job.state != "RUNNING", 60, job.text)
        assert job.code == 75 or job.state == "PENDING", job.text()
        fake.cluster.slurm("scancel", job.number, check=False)
        job = fake.again(job.run, f"--nodes={nodes}")
    job.wait()
    assert (job.state, job.adapter()) == ("COMPLETED", chain(30)), job.text()
    assert json.loads((job.run / "plan.json").read_text())["topology"]["nodes"] == 3


def test_a_truncated_checkpoint_is_passed_over(fake):
    job = fake("truncated", fault="0 7 reward")
    failed(job, 1)
    (job.run / "checkpoints" / "checkpoint-6" / "state").write_text("")
    finished(fake.again(job.run), attempts=2)


def test_a_run_is_not_run_twice_nor_with_another_configuration(fake):
    job = fake("twice")
    job.wait_for_step(1)
    second = fake.again(job.run).wait()
    assert (second.state, second.code) == ("FAILED", 2)
    assert f"this run is still going on (job {job.number})" in second.text()
    other = fake.again(job.run, arguments=("config.yaml", "--set", "grpo.seed=1", "--output", ".")).wait()
    assert other.code == 2
    finished(job, attempts=1)
    other = fake.again(job.run, arguments=("config.yaml", "--set", "grpo.seed=1", "--output", ".")).wait()
    assert other.code == 2
    assert "grpo.seed: 3407 in the run, 1 now" in other.text()


def test_what_cannot_run_ends_within_seconds_with_the_planners_words_last(fake):
    run = fake.render("bad")
    settings = ("--set", "grpo.prompts_per_step=7", "--set", "grpo.num_generations=3")
    bad = fake.again(run, arguments=("config.yaml", *settings, "--output", "other")).wait(seconds=30)
    assert bad.code == 2
    assert "7 prompts × 3 completions = 21 completions per step do not divide over 2 processes" in bad.text()
    assert bad.text().rstrip().splitlines()[-1].strip().startswith("--set")
    assert not (run / "other").exists()


def nodes_of(job: Job) -> list[str]:
    listed = job.look()["NodeList"]
    return job.cluster.slurm("scontrol", "show", "hostnames", listed).stdout.split()
