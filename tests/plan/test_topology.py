from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning import COLOCATE, SERVER, cluster, planned

from grpo_dist.errors import PlanError
from grpo_dist.plan.topology import Machines, Replica, Topology, splits, topology

machines = st.builds(
    Machines,
    nodes=st.integers(1, 9),
    gpus_per_node=st.integers(0, 9),
    mode=st.sampled_from(["transformers", "colocate", "server", "server", "server"]),
    num_processes=st.none() | st.integers(1, 40),
    replicas=st.none() | st.integers(1, 20),
    rollout_nodes=st.none() | st.integers(0, 4),
    tensor_parallel_size=st.integers(1, 4),
)


def trainers(where: Topology) -> list[tuple[int, int]]:
    return [(node, gpu) for node in range(where.trainer_nodes) for gpu in where.trainer_gpus]


def servers(where: Topology) -> list[tuple[int, int]]:
    return [(replica.node, gpu) for replica in where.replicas for gpu in replica.gpus]


@given(machines)
def test_no_gpu_is_given_away_twice(there):
    for split in splits(there):
        where = topology(there, split, "")
        used = trainers(where) + servers(where)
        assert len(set(used)) == len(used)
        assert all(node < there.nodes and 0 <= gpu < there.gpus_per_node for node, gpu in used)
        if there.gpus_per_node:
            assert where.idle_gpus == there.nodes * there.gpus_per_node - len(used)
            assert len(trainers(where)) == where.num_processes
        assert where.num_processes == where.trainer_nodes * split.trainers_per_node
        assert all(len(replica.gpus) == where.tensor_parallel_size for replica in where.replicas if replica.gpus)
        assert (len(where.replicas) > 0) == (there.mode == "server")
        assert where.replicas == tuple(sorted(where.replicas, key=lambda replica: (replica.node, replica.gpus)))


@given(machines)
def test_what_is_stated_is_what_is_done(there):
    for split in splits(there):
        assert there.num_processes in (None, split.num_processes)
        if there.mode == "server" and there.gpus_per_node:
            assert there.replicas in (None, split.replicas)
            assert there.rollout_nodes in (None, split.rollout_nodes)


@given(machines, st.integers(1, 200))
def test_pruning_by_completions_loses_no_split(there, completions):
    every = [split for split in splits(there) if completions % split.num_processes == 0]
    assert list(splits(there, completions)) == every


@given(machines)
def test_without_wishes_no_training_gpu_is_idle(there):
    open_ = replace(there, num_processes=None, replicas=None, rollout_nodes=None, tensor_parallel_size=1)
    for split in splits(open_):
        assert topology(open_, split, "").idle_gpus == 0


@pytest.mark.parametrize(
    ("nodes", "gpus", "rollout", "prompts", "expected"),
    [
        (2, 8, {**SERVER, "nodes": 1}, 8, (8, 1, 8)),
        (1, 8, {**SERVER, "replicas": 1}, 7, (7, 1, 1)),
        (3, 6, {**SERVER, "nodes": 1}, 9, (12, 2, 6)),
        (3, 6, COLOCATE, 9, (18, 3, 0)),
        (4, 8, {**SERVER, "nodes": 0, "replicas": 8}, 6, (24, 4, 8)),
        (5, 4, {**SERVER, "nodes": 2, "tensor_parallel_size": 2}, 12, (12, 3, 4)),
    ],
)
def test_odd_shapes_work(nodes, gpus, rollout, prompts, expected):
    where = planned(cluster=cluster(nodes, gpus), rollout=rollout, grpo={"prompts_per_step": prompts}).topology
    assert (where.num_processes, where.trainer_nodes, len(where.replicas)) == expected
    assert where.idle_gpus == 0


def test_whole_nodes_generate_on_the_last_nodes():
    where = planned(
        "Qwen/Qwen3-32B",
        cluster=cluster(4, 8),
        rollout={**SERVER, "nodes": 1, "tensor_parallel_size": 2},
        distributed={"strategy": "zero3"},
        grpo={"prompts_per_step": 12},
    ).topology
    assert {replica.node for replica in where.replicas} == {3}
    assert where.replicas[0].gpus == (0, 1)


def test_auto_says_why_with_numbers():
    plan = planned(cluster=cluster(2, 8), rollout=SERVER, grpo={"prompts_per_step": 32, "num_generations": 16})
    assert plan.topology.num_processes + len(plan.topology.replicas) == 16
    assert "GPUs train" in plan.topology.reason
    assert f"{plan.time['seconds_per_step']:.1f} s per step" in plan.topology.reason


def test_auto_leaves_gpus_idle_where_that_is_faster():
    """A node of 6 holds one replica of 4; three such would leave 2 training GPUs a node."""
    stated = {"prompts_per_step": 48, "num_generations": 14, "max_completion_length": 500}
    plan = planned(cluster=cluster(3, 6), rollout={**SERVER, "tensor_parallel_size": 4}, grpo=stated)
    assert (plan.topology.num_processes, plan.topology.replicas) == (12, (Replica(2, (2, 3, 4, 5)),))
    assert "2 of 18 GPUs are used by nothing" in plan.warnings


def test_auto_takes_the_fastest_split():
    stated = {"prompts_per_step": 32, "num_generations": 16, "max_completion_length": 4096}
    chosen = planned(cluster=cluster(4, 8), rollout=SERVER, grpo=stated).time["seconds_per_step"]
    for nodes in (1, 2, 3):
        try:
            other = planned(cluster=cluster(4, 8), rollout={**SERVER, "nodes": nodes}, grpo=stated)
        except PlanError:
            continue
        assert chosen <= other.time["seconds_per_step"] * (1 + 1e-9)


@pytest.mark.parametrize(("model", "gpu", "size"), [("Qwen/Qwen3-4B", "h100", 1), ("Qwen/Qwen3-32B", "a100-40gb", 2)])
def test_a_replica_is_split_only_where_the_model_needs_it(model, gpu, size):
    plan = planned(
        model,
        cluster=cluster(2, 8, gpu),
        rollout={**SERVER, "nodes": 1},
        distributed={"strategy": "zero3"},
    )
    assert plan.topology.tensor_parallel_size == size
    assert len(plan.topology.replicas) == 8 // size


def test_servers_on_cpu_share_its_nodes():
    plan = planned(
        "embedded", data={"max_prompt_length": None}, cluster=cluster(1, 0), rollout={**SERVER, "replicas": 2}
    )
    assert [replica.gpus for replica in plan.topology.replicas] == [(), ()]
    assert plan.time is None
    assert "vLLM on CPU" in plan.warnings[0]
