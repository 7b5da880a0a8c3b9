"""What the first stage behind `grpo-dist filter` makes: tokenizer, rows, problems and warm start."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset

from grpo_dist.config.section import EMBEDDED
from grpo_dist.data.filtered import ROW
from grpo_dist.data.prepare import prepare as prepare_data
from grpo_dist.data.readers import from_rows
from grpo_dist.data.sources import load_rows
from grpo_dist.embedded.model import build
from grpo_dist.embedded.problems import HELDOUT_PROBLEMS, TRAIN_PROBLEMS, problems
from grpo_dist.progress import say, say_passing
from grpo_dist.rewards.load import load_rewards
from grpo_dist.run_directory import write_json
from grpo_dist.training.backend import Backend
from grpo_dist.training.environment import note_environment
from grpo_dist.training.preparation import (
    check_columns,
    dressed_tokenizer,
    planned_data,
    planned_model,
    start_warm,
)
from grpo_dist.training.stage import Run
from grpo_dist.training.world import check_device


def prepare(run: Run, backend: Backend | None) -> None:
    """Model, tokenizer, rows and problems; nothing is held out. `prepared.json`, written last, stands for all.

    Args:
        backend: what trains the warm start; None without one.
    """
    check_device(run.plan)
    config, directory = run.config, run.directory
    if backend is not None:
        note_environment(run, backend)
    if config.model.name_or_path == EMBEDDED and not directory.model.exists():
        build(directory.model, config.grpo.seed, say_passing)
    tokenizer = dressed_tokenizer(run)
    tokenizer.save_pretrained(directory.tokenizer)
    snapshot = _snapshot(run)
    scorers = load_rewards((config.evaluation.scorer,))
    here = {"name_or_path": str(snapshot), "config": None, "revision": None, "split": "train", "eval_split": None}
    prepared = prepare_data(
        planned_data(run).model_copy(update=here),
        planned_model(run, tokenizer),
        seed=config.grpo.seed,
        need_answers="answer" in scorers[0].columns,
        hold_out=False,
    )
    for note in prepared.notes:
        say(note)
    check_columns(scorers, prepared.train)
    prepared.train.to_parquet(directory.train_data)
    if config.warm_start and not directory.warm_start.exists():
        start_warm(run, tokenizer)
    write_json(directory.prepared, {**prepared.counts, "notes": list(prepared.notes)})


def _snapshot(run: Run) -> Path:
    """The rows as they are now, numbered: a source that changes while it is filtered changes nothing."""
    config, path = run.config, run.directory.source_rows
    path.parent.mkdir(exist_ok=True)
    rows = _rows(run) if config.data.name_or_path == EMBEDDED else load_rows(config.data, config.data.split)
    rows.add_column(ROW, list(range(len(rows)))).to_parquet(path)
    return path


def _rows(run: Run) -> Dataset:
    return from_rows(problems(run.config.grpo.seed, TRAIN_PROBLEMS, HELDOUT_PROBLEMS)[0])
