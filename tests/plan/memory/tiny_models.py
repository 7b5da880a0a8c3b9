"""Tiny real models with LoRA, and the planner's view of the same batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from grpo_dist.plan.memory import Lora
from grpo_dist.plan.memory.activations import Pass
from grpo_dist.plan.specs import Architecture
from grpo_dist.plan.specs.architecture import from_config

VOCABULARY = 64
RANK = 8


@dataclass(frozen=True)
class Case:
    """One combination of what decides activations."""

    family: str = "qwen3"
    dtype: str = "bfloat16"
    lora: str | tuple[str, ...] | None = "all-linear"
    checkpointing: bool = False
    padded: bool = True
    attention: str = "sdpa"
    hidden_size: int = 64
    intermediate_size: int = 192
    num_hidden_layers: int = 4
    length: int = 80
    sequences: int = 3


def build(case: Case) -> tuple[torch.nn.Module, Architecture]:
    """The model in train mode, with its adapter, and its architecture."""
    config = AutoConfig.for_model(
        case.family,
        vocab_size=VOCABULARY,
        hidden_size=case.hidden_size,
        intermediate_size=case.intermediate_size,
        num_hidden_layers=case.num_hidden_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        attn_implementation=case.attention,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **({} if case.family == "phi3" else {"head_dim": 32}),
    )
    model = AutoModelForCausalLM.from_config(config).to(getattr(torch, case.dtype))
    if case.lora is not None:
        targets = case.lora if isinstance(case.lora, str) else list(case.lora)
        model = get_peft_model(model, LoraConfig(r=RANK, target_modules=targets, task_type="CAUSAL_LM"))
    if case.checkpointing:
        base_of(model).gradient_checkpointing_enable()
        if case.lora is not None:
            model.enable_input_require_grads()
    return model.train(), from_config(config.to_dict(), case.family)


def base_of(model: torch.nn.Module) -> torch.nn.Module:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder(model: torch.nn.Module, case: Case) -> Callable[[], torch.Tensor]:
    """A forward pass of everything below the output head, under autocast as the trainer runs it."""
    ids = torch.randint(3, VOCABULARY, (case.sequences, case.length))
    mask = torch.ones_like(ids)
    if case.padded:
        mask[0, :5] = 0

    def forward() -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=case.dtype == "bfloat16"):
            return base_of(model).model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state

    return forward


def planned(case: Case, architecture: Architecture) -> Pass:
    """Without padding Transformers drops the mask, as flash attention does."""
    unmasked = case.attention == "sdpa" and not case.padded
    return Pass(
        architecture=architecture,
        sequences=case.sequences,
        length=case.length,
        activation_bytes=getattr(torch, case.dtype).itemsize,
        lora=None if case.lora is None else Lora(RANK, case.lora),
        casts_inputs=case.lora is not None and case.dtype == "bfloat16",
        attention="flash_attention_2" if unmasked else case.attention,
    )
