"""A stage of debug runs: a small model of the same family with random weights, and the real tokenizer."""

from __future__ import annotations

from dataclasses import asdict

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from grpo_dist.embedded.model import save_whole
from grpo_dist.errors import ModelError
from grpo_dist.plan.debug import small
from grpo_dist.plan.specs import architecture_of
from grpo_dist.progress import say
from grpo_dist.run.directory import read_json
from grpo_dist.text import first_line
from grpo_dist.training.common.process import Run

NOT_OF_TRANSFORMERS = ("model_type", "qk_norm", "output_bias", "fused_projections", "norms_per_layer", "float32_norms")
"""Fields of an `Architecture` that the model class determines by itself."""


def make(run: Run) -> None:
    """Save it where the run's configuration expects the model."""
    stated = read_json(run.directory.debug)["model"]
    name, revision = stated["name_or_path"], stated["revision"]
    tokenizer = _tokenizer(name, revision)
    shape = asdict(small(architecture_of(name, revision)))
    sizes = {field: value for field, value in shape.items() if field not in NOT_OF_TRANSFORMERS}
    ids = {field: getattr(tokenizer, field) for field in ("eos_token_id", "pad_token_id", "bos_token_id")}
    config = AutoConfig.for_model(shape["model_type"], **sizes, **ids)
    torch.manual_seed(run.config.grpo.seed)
    model = AutoModelForCausalLM.from_config(config)
    save_whole(run.directory.model, model, tokenizer)
    count = sum(parameter.numel() for parameter in model.parameters())
    say(f"model: {type(model).__name__} of {count:,} random weights, with the tokenizer of {name}")


def _tokenizer(name: str, revision: str | None) -> PreTrainedTokenizerBase:
    """From the cache if it is there, else from the Hub."""
    try:
        return AutoTokenizer.from_pretrained(name, revision=revision or "main", local_files_only=True)
    except (OSError, ValueError):
        pass
    try:
        return AutoTokenizer.from_pretrained(name, revision=revision or "main")
    except (OSError, ValueError, ImportError) as error:
        reason = first_line(error)
        raise ModelError(
            f"model.name_or_path: the tokenizer of {name!r} cannot be loaded: {reason}",
            hint="grpo-dist prefetch CONFIG where there is a network, or --set model.name_or_path=PATH",
        ) from error
