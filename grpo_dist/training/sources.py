"""Loading any model that can be compared or exported."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from grpo_dist.errors import ModelError
from grpo_dist.models import ADAPTER_CONFIG, ModelSource
from grpo_dist.progress import say
from grpo_dist.training.model import load_adapter, load_model
from grpo_dist.training.prompts import PromptRenderer, renderer_of
from grpo_dist.training.stage import Run, open_run

Model = PreTrainedModel | PeftModel


def load_source(source: ModelSource, run: Run) -> Model:
    """The model, on the CPU: of a run in the dtype it was trained in, else in that of `run`.

    `run` is the run that all models are compared with; it stands in for that of a model of none.

    Raises:
        ModelError: it cannot be loaded.
    """
    if source.kind in ("adapter", "model"):
        section = run.config.model
        return load_directory(Path(source.path), getattr(torch, section.dtype), section.trust_remote_code)
    own = own_run(source, run)
    base = load_model(own)
    return base if source.path is None else load_adapter(base, Path(source.path))


def load_directory(directory: Path, dtype: torch.dtype, trust_remote_code: bool) -> Model:
    """A model that stands for itself, or an adapter on the base it names.

    Raises:
        ModelError: one of both cannot be loaded.
    """
    try:
        how = {"dtype": dtype, "trust_remote_code": trust_remote_code}
        if not (directory / ADAPTER_CONFIG).is_file():
            return AutoModelForCausalLM.from_pretrained(directory, **how)
        stated = json.loads((directory / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        base, revision = stated["base_model_name_or_path"], stated.get("revision") or "main"
        return load_adapter(AutoModelForCausalLM.from_pretrained(base, revision=revision, **how), directory)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{directory}: cannot be loaded: {reason}", hint=f"ls -l {directory}") from error


def renderer_of_source(source: ModelSource, run: Run) -> PromptRenderer:
    """With the chat template of its run and that run's arguments; an export brings tokenizer and template."""
    own = own_run(source, run)
    directory = own.directory.tokenizer
    if source.kind in ("adapter", "model") and (Path(source.path) / "tokenizer_config.json").is_file():
        directory = Path(source.path)
    return renderer_of(own.config, AutoTokenizer.from_pretrained(directory, padding_side="left"))


def own_run(source: ModelSource, run: Run) -> Run:
    """The run that a model comes from, or `run` for a model of none."""
    same = source.run is None or Path(source.run) == run.directory.path
    return run if same else open_run(Path(source.run))


def device_at_hand(run: Run) -> torch.device:
    """What the run was planned for, or the CPU where this machine has no GPU, which is said."""
    if run.plan.topology.device == "cuda" and not torch.cuda.is_available():
        say("PyTorch sees no GPU on this machine: working on the CPU")
        return torch.device("cpu")
    return torch.device(run.plan.topology.device)


def free_memory() -> None:
    """Give back what models that nobody holds any more have taken; PEFT's hold themselves in circles."""
    gc.collect()
    torch.cuda.empty_cache()
