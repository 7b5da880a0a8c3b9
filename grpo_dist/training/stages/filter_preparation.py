"""What the first stage of `grpo-dist filter` creates: tokenizer, rows, problems and warm start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from datasets import Dataset

from grpo_dist.config.base import EMBEDDED
from grpo_dist.data.filtered import ROW
from grpo_dist.data.identity import Problems
from grpo_dist.data.prepare import Prepared, held_out_by
from grpo_dist.data.prepare import prepare as prepare_data
from grpo_dist.data.readers import from_rows
from grpo_dist.data.sources import load_rows
from grpo_dist.embedded.base_cache import build
from grpo_dist.embedded.problems import HELDOUT_PROBLEMS, TRAIN_PROBLEMS, problems
from grpo_dist.errors import DataError
from grpo_dist.progress import say_passing
from grpo_dist.rewards.load import load_rewards
from grpo_dist.text import plural
from grpo_dist.training.common.backend import Backend
from grpo_dist.training.common.environment import note_environment
from grpo_dist.training.common.process import Run
from grpo_dist.training.common.world import check_device
from grpo_dist.training.stages.preparation import (
    check_columns,
    first_adapter,
    keep_tokenizer,
    looked_at,
    note_prepared,
    noted,
    planned_data,
    planned_model,
    reads,
)


def prepare(run: Run, backend: Backend | None) -> None:
    """Prepare model, tokenizer, rows and problems; nothing is held out. `prepared.json`, written last, marks
    completion.

    Args:
        backend: the backend of the warm start; None without one.
    """
    check_device(run.plan)
    config, directory = run.config, run.directory
    if backend is not None:
        note_environment(run, backend)
    if config.model.name_or_path == EMBEDDED and not directory.model.exists():
        build(directory.model, config.grpo.seed, say_passing)
    tokenizer = keep_tokenizer(run)
    snapshot = _snapshot(run)
    scorers = load_rewards((config.evaluation.scorer,))
    here = {"name_or_path": str(snapshot), "config": None, "revision": None, "split": "train", "eval_split": None}
    prepared = prepare_data(
        planned_data(run).model_copy(update=here),
        planned_model(run, tokenizer),
        seed=config.grpo.seed,
        need_answers="answer" in scorers[0].columns,
        hold_out=False,
        reads=reads(scorers),
    )
    check_columns(config, scorers, prepared.train)
    held = _held_out(run, prepared)
    prepared = looked_at(run, tokenizer, _without(prepared, held) if config.data.eval_split else prepared)
    prepared.train.to_parquet(directory.train_data)
    if not directory.warm_start.exists():
        prepared = noted(prepared, first_adapter(run, tokenizer, held))
    note_prepared(run, tokenizer, prepared)


def _held_out(run: Run, prepared: Prepared) -> Problems:
    """The problems a run of this configuration holds out: its warm start does not see them here either."""
    section = run.config.data
    needed = section.eval_split is not None or run.config.warm_start is not None
    if not (needed and run.config.evaluation.enabled) or section.name_or_path == EMBEDDED:
        return Problems()
    return held_out_by(section, prepared.keys, run.config.grpo.seed)


def _without(prepared: Prepared, held: Problems) -> Prepared:
    """Without the problems of `data.eval_split`: the filtered rows will be trained on."""
    leaked = set(held.rows_among(prepared.keys))
    if not leaked:
        return prepared
    kept = [row for row in range(len(prepared.train)) if row not in leaked]
    if not kept:
        raise DataError(
            f"data.eval_split: all {len(prepared.train):,} problems are held out",
            hint="name another split, or leave it out: --set data.eval_split=null",
        )
    note = f"left out {plural(len(leaked), 'problem')} of {len(prepared.train):,} that data.eval_split holds out"
    return replace(
        prepared,
        train=prepared.train.select(kept),
        keys=tuple(prepared.keys[row] for row in kept),
        notes=(*prepared.notes, note),
        counts={**prepared.counts, "leaked": len(leaked), "train": len(kept)},
    )


def _snapshot(run: Run) -> Path:
    """A numbered snapshot of the rows, so that a source that changes during filtering has no effect."""
    config, path = run.config, run.directory.source_rows
    path.parent.mkdir(exist_ok=True)
    rows = _rows(run) if config.data.name_or_path == EMBEDDED else load_rows(config.data, config.data.split)
    rows.add_column(ROW, list(range(len(rows)))).to_parquet(path)
    return path


def _rows(run: Run) -> Dataset:
    return from_rows(problems(run.config.grpo.seed, TRAIN_PROBLEMS, HELDOUT_PROBLEMS)[0])
