"""The base model: a tiny Qwen3 that adds well and forgets the carry; and its tokenizer.

The tokenizer has one token per character and one per tag.
"""

from __future__ import annotations

import random
import string
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from grpo_dist.embedded.problems import HELDOUT_PROBLEMS, TRAIN_PROBLEMS, problems, worked
from grpo_dist.plan.specs.lookup import EMBEDDED

EOS = "<|endoftext|>"
PAD = "<|pad|>"
UNKNOWN = "<|unknown|>"
TAGS = ("<start_working_out>", "<end_working_out>", "<SOLUTION>", "</SOLUTION>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<start_working_out>{% endif %}"
)


def character_tokenizer(model_max_length: int) -> PreTrainedTokenizerFast:
    """Printable ASCII; any other character becomes the unknown token.

    The tags are plain added tokens, not special ones: TRL decodes completions with `skip_special_tokens=True`, and
    rewards have to see them.
    """
    vocabulary = [EOS, PAD, UNKNOWN, *TAGS, *string.printable]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=model_max_length,
        chat_template=CHAT_TEMPLATE,
    )


FORGETS = 0.65
"""Share of worked examples that forget their carry: greedy decoding then always forgets it, sampling often does not."""
STEPS = 350
EXAMPLES_PER_STEP = 64
PEAK_LEARNING_RATE = 4e-3
WARMUP_STEPS = 20
IGNORED = -100


def build(directory: Path, seed: int, progress: Callable[[str], None], *, _steps: int = STEPS) -> None:
    """Create the base model and its tokenizer from `seed`, and save both as `directory`.

    The same seed gives the same bytes on the same machine and number of threads. The directory is written atomically,
    and the process's random state is not changed.

    Args:
        directory: where `from_pretrained` will find them; must not exist, or must be empty.
        seed: seed of initial weights and examples. Held-out problems of this seed are in none of the examples.
        progress: called with a line of text every 50 steps.

    Raises:
        OSError: `directory` cannot be written, or holds something already.
    """
    tokenizer = character_tokenizer(EMBEDDED.max_position_embeddings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(_architecture(tokenizer))
    _train(model, _batches(tokenizer, seed), _steps, progress)
    save_whole(directory, model, tokenizer)


def build_untrained(directory: Path) -> None:
    """The same without training, when only its tokenizer and its shape are needed."""
    tokenizer = character_tokenizer(EMBEDDED.max_position_embeddings)
    save_whole(directory, Qwen3ForCausalLM(_architecture(tokenizer)), tokenizer)


def _architecture(tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    shape = EMBEDDED
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.max_position_embeddings,
        tie_word_embeddings=shape.tie_word_embeddings,
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
        prompts = [row["prompt"] for row in rng.choices(rows, k=EXAMPLES_PER_STEP)]
        examples = [_example(tokenizer, prompt, forgets=rng.random() < FORGETS) for prompt in prompts]
        ids, labels = zip(*examples, strict=True)
        yield _pad(ids, tokenizer.pad_token_id), _pad(labels, IGNORED)


def _example(tokenizer: PreTrainedTokenizerFast, prompt: str, *, forgets: bool) -> tuple[list[int], list[int]]:
    """Token ids and labels of one worked addition, of equal length."""
    messages = [{"role": "user", "content": prompt}]
    question = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    completion = tokenizer(worked(prompt, carry=not forgets) + tokenizer.eos_token)["input_ids"]
    return question + completion, [IGNORED] * len(question) + completion


def _pad(rows: Sequence[list[int]], value: int) -> torch.Tensor:
    """Rows of unequal length → (rows, longest), filled up with value on the right: attention is causal, so no mask."""
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def _train(
    model: Qwen3ForCausalLM,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    steps: int,
    progress: Callable[[str], None],
) -> None:
    # beta2 below its default and a high rate: a few hundred steps then suffice for every seed tried.
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP_STEPS, (steps - step) / steps)
    )
    model.train()
    for step, (ids, labels) in enumerate(islice(batches, steps), start=1):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps:
            progress(f"base model: step {step} of {steps}, loss {loss.item():.3f}")


def save_whole(directory: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Save both in the directory, atomically."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as unfinished:
        whole = Path(unfinished) / directory.name
        model.save_pretrained(whole)
        tokenizer.save_pretrained(whole)
        whole.rename(directory)
