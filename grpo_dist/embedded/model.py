"""The base model: a tiny Qwen3 that adds well and forgets the carry."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from grpo_dist.embedded.problems import HELDOUT_PROBLEMS, TRAIN_PROBLEMS, problems, worked
from grpo_dist.embedded.tokenizer import character_tokenizer

MAX_LENGTH = 1024
FORGETS = 0.65
"""Probability that a worked example forgets its carry: well above one half, so that greedy decoding always does."""
STEPS = 400
EXAMPLES_PER_STEP = 64
PEAK_LEARNING_RATE = 5e-3
WARMUP_STEPS = 20
IGNORED = -100


def build(directory: Path, seed: int, progress: Callable[[str], None], *, _steps: int = STEPS) -> None:
    """Make the base model and its tokenizer from `seed`, and save both as `directory`.

    The same seed gives the same bytes on the same machine and number of threads. The directory appears whole or not
    at all, and the process's random state is left alone.

    Args:
        directory: where `from_pretrained` will find them; must not exist yet.
        seed: of initial weights and examples. Held-out problems of this seed are in none of the examples.
        progress: told a line every 50 steps.
    """
    tokenizer = character_tokenizer(MAX_LENGTH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(_architecture(tokenizer))
    _train(model, _batches(tokenizer, seed), _steps, progress)
    _save(directory, model, tokenizer)


def _architecture(tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        dtype="float32",
    )


def _batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (token ids, labels), both (EXAMPLES_PER_STEP, longest); prompt and padding are not learnt."""
    rows, _ = problems(seed, TRAIN_PROBLEMS, HELDOUT_PROBLEMS)
    rng = random.Random(seed)
    while True:
        examples = [
            _example(tokenizer, row["prompt"], forgets=rng.random() < FORGETS)
            for row in rng.choices(rows, k=EXAMPLES_PER_STEP)
        ]
        yield (
            _pad([ids for ids, _ in examples], tokenizer.pad_token_id),
            _pad([labels for _, labels in examples], IGNORED),
        )


def _example(tokenizer: PreTrainedTokenizerFast, prompt: str, *, forgets: bool) -> tuple[list[int], list[int]]:
    messages = [{"role": "user", "content": prompt}]
    question = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    completion = tokenizer(worked(prompt, carry=not forgets) + tokenizer.eos_token)["input_ids"]
    return question + completion, [IGNORED] * len(question) + completion


def _pad(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def _train(
    model: Qwen3ForCausalLM,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    steps: int,
    progress: Callable[[str], None],
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP_STEPS, (steps - step) / steps)
    )
    model.train()
    for step, (ids, labels) in zip(range(1, steps + 1), batches, strict=False):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps:
            progress(f"embedded base model: step {step}/{steps}, loss {loss.item():.3f}")


def _save(directory: Path, model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        unfinished.chmod(0o755)
        unfinished.rename(directory)
    except BaseException:
        shutil.rmtree(unfinished)
        raise
