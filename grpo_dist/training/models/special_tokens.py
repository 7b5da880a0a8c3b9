"""The tokens with a meaning of their own: which begins a text, which end a completion, which one fills up rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from transformers import GenerationConfig, PreTrainedTokenizerBase

USUAL_PADS = (
    "<pad>",
    "<|pad|>",
    "[PAD]",
    "<|finetune_right_pad_id|>",  # Llama 3
    "<|vision_pad|>",  # Qwen
    "<|fim_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
SPARE = ("pad", "reserved", "unused", "extra_id")
"""Parts of the names of tokens that models keep free."""


def begins_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the model's texts begin with a BOS token: its tokenizer adds one, or its own template writes one."""
    bos = tokenizer.bos_token_id
    if bos is None:
        return False
    if tokenizer("a")["input_ids"][:1] == [bos]:
        return True
    if not tokenizer.chat_template:
        return False
    try:
        turn = [{"role": "user", "content": "a"}]
        own = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    except Exception:  # A template may raise anything; whether it can be used is another's question.
        return False
    return own.lstrip().startswith(tokenizer.bos_token)


def end_tokens(declared: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every end token the model declares ends a completion, not only the tokenizer's (as in `GRPOTrainer`)."""
    ids = declared.eos_token_id
    ends = ids if isinstance(ids, list) else [] if ids is None else [ids]
    return sorted({*ends, tokenizer.eos_token_id})


def settle_pad(tokenizer: PreTrainedTokenizerBase, ends: Collection[int], vocabulary: int) -> None:
    """Give the tokenizer a pad token that no text holds, where its own ends texts or is missing.

    Unsloth tells padding by its id: an end token that pads is taken out of prompts and out of the loss. A token with
    an embedding that nobody uses is taken; where there is none, the end token stays (TRL counts by masks).

    Args:
        ends: ids that end a completion.
        vocabulary: rows of the embedding; ids beyond have none.
    """
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id not in ends:
        return
    used = {*ends, tokenizer.bos_token_id}
    for token in _spare(tokenizer):
        number = tokenizer.convert_tokens_to_ids(token)
        if number is not None and number not in used and number < vocabulary and token not in _template(tokenizer):
            tokenizer.pad_token = token
            return
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def _spare(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    special = [str(one) for one in tokenizer.added_tokens_decoder.values() if one.special]
    yield from (token for token in USUAL_PADS if token in special)
    yield from (token for token in special if any(part in token.lower() for part in SPARE))
    if tokenizer.unk_token is not None:
        yield tokenizer.unk_token


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    return tokenizer.chat_template or ""
