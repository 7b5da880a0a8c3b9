"""Real runs through the real program, as small as they can be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from grpo_dist.config import load_config
from grpo_dist.plan import plan_run
from grpo_dist.render import render_files
from grpo_dist.run.directory import RunDirectory

SETTINGS = {
    "data": {"name_or_path": "embedded", "system_prompt": "none", "chat_template": "tokenizer"},
    "grpo": {
        "prompts_per_step": 4,
        "num_generations": 4,
        "max_completion_length": 32,
        "max_steps": 6,
        "save_steps": 2,
        "learning_rate": 1e-3,
        "gradient_checkpointing": False,
    },
    "cluster": {"gpus_per_node": 0},
    "evaluation": {"num_problems": 24, "num_samples": 2},
}

TRACKED = ("--set", "tracking=[trackio, tensorboard, wandb]")
PREPARED = ("data", "tokenizer", "environment.json", "rewards_preflight.json", "prepared.json")
"""What the prepare stage leaves of a run whose model stands elsewhere."""


def make_prepared(run: Path, stated: Path, *overrides: str, by: Path) -> None:
    """A run directory up to the training stage, as the run `by` of the same model and data has it."""
    config = load_config(stated, overrides)
    RunDirectory(run).create(render_files(config, plan_run(config)))
    for name in PREPARED:
        (shutil.copytree if (by / name).is_dir() else shutil.copy)(by / name, run / name)


@dataclass(frozen=True)
class Program:
    """`grpo-dist` in a directory of its own, with a configuration of six steps."""

    cwd: Path
    config: Path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "grpo_dist", *arguments]

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(self.command(*arguments), cwd=self.cwd, capture_output=True, text=True, timeout=500)
        assert result.returncode == code, f"{result.stdout}\n{result.stderr}"
        return result

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments), cwd=self.cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
        )

    def report(self, run: str) -> dict[str, Any]:
        return json.loads(self("report", run, "--json").stdout)

    def metrics(self, run: str) -> list[dict[str, Any]]:
        path = self.cwd / run / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def six_steps(directory: Path, model: Path) -> Program:
    config = directory / "six steps.yaml"
    config.write_text(yaml.safe_dump({"model": {"name_or_path": str(model), "dtype": "float32"}, **SETTINGS}))
    return Program(directory, config)


def processes_in(directory: Path) -> list[int]:
    """Processes whose command line names the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if str(directory).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
