"""What someone who typed an unknown setting probably meant."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from grpo_dist.config.grpo import GrpoSection
from grpo_dist.config.kinds import is_section, members
from grpo_dist.config.problems import Path, dotted
from grpo_dist.config.schema import all_settings, keys, lookup, section_at
from grpo_dist.config.trl_fields import OWNED

ELSEWHERE = {
    # TRL's ScriptArguments and ModelConfig, PEFT, Unsloth, other trainers
    "model_name_or_path": "model.name_or_path",
    "model_name": "model.name_or_path",
    "model_id": "model.name_or_path",
    "model_revision": "model.revision",
    "torch_dtype": "model.dtype",
    "max_seq_length": "model.max_length",
    "load_in_16bit": "model.dtype",
    "lora_r": "lora.r",
    "lora_rank": "lora.r",
    "rank": "lora.r",
    "lora_target_modules": "lora.target_modules",
    "dataset": "data.name_or_path",
    "dataset_name": "data.name_or_path",
    "dataset_path": "data.name_or_path",
    "dataset_config": "data.config",
    "dataset_config_name": "data.config",
    "dataset_train_split": "data.split",
    "dataset_test_split": "data.eval_split",
    "test_split": "data.eval_split",
    "reward_funcs": "rewards.functions",
    "reward_functions": "rewards.functions",
    "lr": "grpo.learning_rate",
    "batch_size": "grpo.prompts_per_step",
    "train_batch_size": "grpo.prompts_per_step",
    "group_size": "grpo.num_generations",
    "epochs": "grpo.num_train_epochs",
    "num_epochs": "grpo.num_train_epochs",
    "warmup_ratio": "grpo.warmup_steps",
    "max_new_tokens": "grpo.max_completion_length",
    "max_tokens": "grpo.max_completion_length",
    "random_state": "grpo.seed",
    "scheduler": "grpo.lr_scheduler_type",
    "optimizer": "grpo.optim",
    "kl_coef": "grpo.beta",
    "clip_range": "grpo.epsilon",
    "num_nodes": "cluster.nodes",
    "num_gpus": "cluster.gpus_per_node",
    "gpus": "cluster.gpus_per_node",
    "n_gpus": "cluster.gpus_per_node",
    "world_size": "distributed.num_processes",
    "wandb": "tracking",
    "loggers": "tracking",
}
"""Names from elsewhere → the setting of ours that says the same."""

ONLY_ADAPTERS = "only adapters (LoRA) are trained, never all weights"
WITHOUT = {
    **dict.fromkeys(
        (
            "use_peft",
            "use_lora",
            "full_finetuning",
            "full_finetune",
            "full_fine_tuning",
            "full_fine_tune",
            "finetuning_type",
            "fine_tuning_type",
            "finetune_mode",
            "train_type",
            "training_type",
            "tuner_type",
            "adapter",
        ),
        f"{ONLY_ADAPTERS}; remove it (for an adapter that learns more set lora.r)",
    ),
    "use_dora": "vLLM serves no DoRA adapters; remove it",
    "lora_bias": "vLLM serves adapters without biases; remove it",
    "bias": "vLLM serves adapters without biases; remove it",
    "modules_to_save": "vLLM serves adapters, not whole modules beside them; remove it",
    "trainable_token_indices": "vLLM serves adapters, not changed embeddings beside them; remove it",
    "rank_pattern": "vLLM serves adapters of one rank; set lora.r",
    "alpha_pattern": "vLLM serves adapters of one scale; set lora.lora_alpha",
    "logging_dir": OWNED["output_dir"],
    "overwrite_output_dir": OWNED["output_dir"],
    "load_in_4bit": "the recipe trains in 16 bit; set model.dtype",
    "load_in_8bit": "the recipe trains in 16 bit; set model.dtype",
    "no_cuda": OWNED["use_cpu"],
    "evaluation_strategy": OWNED["eval_strategy"],
}
"""Names from elsewhere for what no setting here says → why, and what to do."""


def unknown_setting(path: Path) -> str:
    """`what is wrong; what to type` about a setting the schema does not know."""
    name = str(path[-1])
    if path[:-1] == ("lora",) and name in ("enabled", "enable", "use", "type"):
        name = "use_lora"
    reason = OWNED["run_name"] if path == ("name",) else OWNED.get(name) or WITHOUT.get(name)
    if reason:
        return f"not a setting here: {reason}"
    if as_dots := _written_with_dots(path):
        return f"a dot in a name; write {as_dots}"
    meant = _meant(path[:-1], name)
    if meant:
        return f"unknown setting; did you mean {' or '.join(map(dotted, meant))}?"
    if section_at(path[:-1]) is GrpoSection:
        return "neither a setting of ours nor a field of TRL's GRPOConfig; check its spelling, or remove it"
    return f"unknown setting; {_listing(path[:-1])}"


def unknown_in(root: Any, path: Path) -> str:
    """The same for a file that states another section than a whole configuration."""
    known, (annotation, _) = lookup(path[:-1], root)
    section = next(kind for kind, _ in members(annotation) if is_section(kind))
    if near := closest(str(path[-1]), keys(section)):
        return f"unknown setting; did you mean {dotted((*known, near))}?"
    return f"unknown setting; {dotted(known) or 'this file'} has {', '.join(keys(section))}"


def closest(word: str, words: list[str], cutoff: float = 0.6) -> str | None:
    """The most similar of some words, case and hyphens aside; one that goes on where the word ends comes first."""
    wanted, plain = _plain(word), {_plain(one): one for one in words}
    longer = [one for one in plain if len(wanted) > 2 and one.startswith(wanted)]
    match = longer or get_close_matches(wanted, plain, n=1, cutoff=cutoff)
    return plain[match[0]] if match else None


def _plain(word: str) -> str:
    return word.lower().replace("-", "_")


def _written_with_dots(path: Path) -> str | None:
    """`grpo.seed: 1` in a file, as it has to be written there."""
    parts = str(path[-1]).split(".")
    full = (*path[:-1], *parts)
    if len(parts) < 2 or lookup(full)[0] != full:
        return None
    return " and indented under it ".join(f"`{part}:`" for part in parts)


def _meant(parent: Path, name: str) -> list[Path]:
    """Settings that may have been meant, best first."""
    if name in ELSEWHERE:
        return [tuple(ELSEWHERE[name].split("."))]
    if same := _same_name(name):
        return same
    section = section_at(parent)
    if section and (near := closest(name, keys(section))):
        return [(*parent, near)]
    anywhere = closest(name, [str(path[-1]) for path in all_settings()], cutoff=0.8)
    return _same_name(anywhere) if anywhere else []


def _same_name(name: str) -> list[Path]:
    """Settings of that very name; those of the warm start only when there are no others."""
    same = [path for path in all_settings() if path[-1] == name]
    return [path for path in same if path[0] != "warm_start"] or same


def _listing(parent: Path) -> str:
    section = section_at(parent)
    names = keys(section) if section else []
    where = dotted(parent) or "a configuration"
    return f"{where} has {', '.join(names)}" if names else "check its spelling, or remove it"
