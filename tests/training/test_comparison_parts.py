"""The comparison shared out over processes that meet in files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from types import SimpleNamespace

import pytest

from grpo_dist.config import RunConfig
from grpo_dist.data.json_cells import dataset_of
from grpo_dist.plan import plan_run
from grpo_dist.plan.topology import Topology
from grpo_dist.run.directory import RunDirectory
from grpo_dist.training.common.process import Run
from grpo_dist.training.models import comparison_parts
from grpo_dist.training.models.comparison_parts import Part, Shared, take_part
from grpo_dist.training.models.generate import Completion, Sampling
from grpo_dist.training.stages.compare import compare_models

HOW = Sampling(2, 16, temperature=1.0)
EMBEDDED = {"model": {"name_or_path": "embedded"}, "data": {"name_or_path": "embedded"}}


@dataclass
class Parrot:
    """Repeats what it is asked."""

    name: str = "base model"
    asked: list[str] = field(default_factory=list)

    def answer(self, prompts: Sequence[list[dict[str, str]]], how: Sampling) -> Iterator[list[Completion]]:
        for [message] in prompts:
            self.asked.append(message["content"])
            yield [Completion(f"{message['content']}/{number}", 3, clipped=False) for number in range(how.num_samples)]


def prompts(count: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": str(number)}] for number in range(count)]


@dataclass
class Worker:
    """Answers with the number of its process."""

    name: str

    def answer(self, prompts: Sequence[list[dict[str, str]]], how: Sampling) -> Iterator[list[Completion]]:
        for _ in prompts:
            yield [Completion(str(os.getpid()), 3, clipped=False)] * how.num_samples


def test_the_engines_of_all_training_processes_answer(tmp_path, monkeypatch):
    """The compare stage of a colocated run, in processes of their own; only the engines are stand-ins."""
    cpu = {"gpus_per_node": 0}
    machines = {"cluster": cpu, "distributed": {"num_processes": 3}}
    sections = {**machines, "rollout": {"backend": "vllm"}, "grpo": {"prompts_per_step": 9}}
    evaluation = {"num_problems": 7, "num_samples": 2}
    config = RunConfig.model_validate({**EMBEDDED, **sections, "evaluation": evaluation})
    run = Run(RunDirectory(tmp_path), config, plan_run(config))
    rows = {"prompt": prompts(7), "answer": [str(number) for number in range(7)]}
    dataset_of(rows).to_parquet(run.directory.heldout_data)
    monkeypatch.setattr(comparison_parts, "engine_models", lambda _: (Worker("base model"), Worker("trained model")))

    def rank(number: int) -> None:
        os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "3"}
        compare_models(run)

    processes = [get_context("fork").Process(target=rank, args=(number,)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    found = json.loads(run.directory.comparison.read_text())
    assert found["answered_by"] == {"process 0": 3 * 2 * 3, "process 1": 2 * 2 * 3, "process 2": 2 * 2 * 3}
    workers = [problem["trained"]["greedy"] for problem in found["per_problem"]]
    assert workers == [str(processes[place % 3].pid) for place in range(7)]


@pytest.mark.parametrize("problems", [1, 3, 7, 8])
def test_the_first_process_has_all_answers_in_order(tmp_path, problems):
    parrots = [Parrot() for _ in range(3)]
    shared = [Shared(parrot, Part(index, 3), tmp_path, seed=1) for index, parrot in enumerate(parrots)]
    with ThreadPoolExecutor(3) as pool:
        all_of_them, *rest = pool.map(lambda one: list(one.answer(prompts(problems), HOW)), shared)
    assert [[one.text for one in group] for group in all_of_them] == [[f"{n}/0", f"{n}/1"] for n in range(problems)]
    assert [parrot.asked for parrot in parrots] == [[str(n) for n in range(i, problems, 3)] for i in range(3)]
    assert [len(one) for one in rest] == [len(parrot.asked) for parrot in parrots[1:]]


def test_a_part_that_is_done_is_not_done_again(tmp_path):
    for _ in range(2):
        last = Parrot()
        list(Shared(last, Part(1, 2), tmp_path, seed=1).answer(prompts(4), HOW))
    assert last.asked == []


@pytest.mark.parametrize(
    ("name", "how", "seed", "count"),
    [
        ("trained model", HOW, 1, 4),
        ("base model", Sampling(2, 32, temperature=1.0), 1, 4),
        ("base model", HOW, 2, 4),
        ("base model", HOW, 1, 6),
    ],
)
def test_answers_to_something_else_are_not_taken(tmp_path, name, how, seed, count):
    list(Shared(Parrot(), Part(1, 2), tmp_path, seed=1).answer(prompts(4), HOW))
    other = Parrot(name)
    list(Shared(other, Part(1, 2), tmp_path, seed=seed).answer(prompts(count), how))
    assert other.asked


def launched(monkeypatch, rank: int, local: int, processes: int, **topology) -> Part | None:
    for key, value in {"RANK": rank, "LOCAL_RANK": local, "WORLD_SIZE": processes, "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    plain = Topology(1, 8, "cuda", "transformers", processes, 1, tuple(range(8)), (), 1, 0, "")
    where = replace(plain, **topology)
    return take_part(SimpleNamespace(topology=where))


def test_each_process_sees_its_own_gpu_and_no_other_process(monkeypatch):
    assert launched(monkeypatch, 6, 2, 8) == Part(6, 8)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "6"
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"} & os.environ.keys()


def test_an_engine_over_two_gpus_is_one_process_with_both(monkeypatch):
    engines = {"tensor_parallel_size": 2, "mode": "colocate"}
    assert launched(monkeypatch, 6, 2, 8, **engines) == Part(3, 4)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "6,7"
    assert launched(monkeypatch, 7, 3, 8, **engines) is None
