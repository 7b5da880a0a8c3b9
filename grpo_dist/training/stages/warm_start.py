"""Supervised fine-tuning of the adapter on well-formed answers, so that GRPO starts with completions to compare."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from grpo_dist.errors import DataError
from grpo_dist.progress import say, say_passing
from grpo_dist.run.directory import give_access
from grpo_dist.training.common.process import Run
from grpo_dist.training.common.unsloth_arguments import build
from grpo_dist.training.models.prompts import PromptRenderer
from grpo_dist.training.models.trainable import trainable
from grpo_dist.training.trainer.arguments import precision


def warm_start(
    run: Run, renderer: PromptRenderer, examples: Sequence[dict[str, Any]], given: Path | None = None
) -> None:
    """Train a new adapter, or the given one, on `examples` (prompt: messages, completion: text), and save it.

    Raises:
        DataError: no example is short enough.
    """
    section = run.config.warm_start
    tokenized = [{**example, **_tokenize(example, renderer)} for example in examples]
    kept = [example for example in tokenized if len(example["input_ids"]) <= section.max_length]
    if not kept:
        shortest = min(len(example["input_ids"]) for example in tokenized)
        raise DataError(
            f"warm_start.max_length: none of {len(tokenized)} examples fits {section.max_length} tokens",
            hint=f"the shortest has {shortest}: --set warm_start.max_length={shortest}",
        )
    say(f"warm start: {len(kept)} of {len(tokenized)} examples (at most {section.max_length} tokens)")
    rows = Dataset.from_list(kept)
    run.directory.warm_start_data.parent.mkdir(exist_ok=True)
    rows.to_parquet(run.directory.warm_start_data)
    work = run.directory.path / ".warm_start"
    shutil.rmtree(work, ignore_errors=True)  # left by an attempt that was interrupted
    trainer = SFTTrainer(
        **trainable(run, given),
        args=_arguments(run, str(work)),
        train_dataset=rows.select_columns(["input_ids", "completion_mask"]),
        processing_class=renderer.tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_ReportLoss())
    trainer.train()
    trainer.save_model(str(work))
    give_access(work)
    work.rename(run.directory.warm_start)


def _arguments(run: Run, output_dir: str) -> SFTConfig:
    section, grpo = run.config.warm_start, run.config.grpo
    return build(
        SFTConfig,
        **section.model_dump(exclude={"data", "numeric_answers"}),
        **precision(run.config.model.dtype),
        output_dir=output_dir,
        completion_only_loss=True,
        gradient_checkpointing=grpo.gradient_checkpointing,
        use_cpu=run.plan.topology.on_cpu,
        seed=grpo.seed,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        disable_tqdm=True,
    )


def _tokenize(example: dict[str, Any], renderer: PromptRenderer) -> dict[str, list[int]]:
    """Prompt as in GRPO, completion, end token; the loss covers only what follows the prompt."""
    prompt, tokenizer = renderer.ids(example["prompt"]), renderer.tokenizer
    completion = tokenizer(example["completion"] + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    return {"input_ids": prompt + completion, "completion_mask": [0] * len(prompt) + [1] * len(completion)}


class _ReportLoss(TrainerCallback):
    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" in logs:
            say_passing(f"warm start: step {state.global_step}/{state.max_steps} · loss {logs['loss']:.3f}")
