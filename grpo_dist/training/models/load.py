"""Loading a model, its tokenizer and its adapter, for training and for any model to compare or export."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from grpo_dist.config.base import EMBEDDED
from grpo_dist.config.sections import LoraSection, ModelSection
from grpo_dist.errors import ModelError
from grpo_dist.masking import from_environment
from grpo_dist.progress import say
from grpo_dist.run.checkpoints import ADAPTER_CONFIG, ModelSource
from grpo_dist.text import first_line
from grpo_dist.training.common.process import Run, open_run
from grpo_dist.training.models.prompts import PromptRenderer, renderer_of


def model_path(run: Run) -> str:
    """Name or directory that Transformers loads: the user's, or the embedded model of this run."""
    stated = run.config.model.name_or_path
    return str(run.directory.model) if stated == EMBEDDED else stated


def load_model(run: Run) -> PreTrainedModel:
    """The base model in the configured dtype, with weights as Transformers returns them: nothing is frozen here.

    Raises:
        ModelError: it cannot be found, reached or read, or is not a causal language model.
    """
    section = run.config.model
    with explained(section):
        return AutoModelForCausalLM.from_pretrained(
            model_path(run),
            dtype=getattr(torch, section.dtype),
            attn_implementation=section.attn_implementation,
            **origin(section),
            **from_environment(section.model_init_kwargs, "model.model_init_kwargs"),
        )


def load_tokenizer(run: Run) -> PreTrainedTokenizerBase:
    """The model's tokenizer, padding left, unmodified: the prepare stage sets the chat template and the pad token."""
    section = run.config.model
    with explained(section):
        tokenizer = AutoTokenizer.from_pretrained(model_path(run), padding_side="left", **origin(section))
    if tokenizer.eos_token is None:
        raise ModelError(
            f"model.name_or_path: the tokenizer of {section.name_or_path!r} has no end-of-sequence token",
            hint="set eos_token in its tokenizer_config.json: without it no completion ever ends",
        )
    return tokenizer


def declared_generation(run: Run) -> GenerationConfig:
    """The model's generation_config.json, or what its config.json says if there is none (as `from_pretrained`)."""
    section = run.config.model
    try:
        return GenerationConfig.from_pretrained(model_path(run), revision=section.revision or "main")
    except OSError:
        with explained(section):
            return GenerationConfig.from_model_config(AutoConfig.from_pretrained(model_path(run), **origin(section)))


def vocabulary(run: Run) -> int:
    """Number of rows of the model's embedding."""
    section = run.config.model
    with explained(section):
        return AutoConfig.from_pretrained(model_path(run), **origin(section)).get_text_config().vocab_size


def context_length(run: Run) -> int:
    """Context length of the model: tokens of prompt plus completion.

    Raises:
        ModelError: neither the model's configuration nor the user's gives it.
    """
    section = run.config.model
    with explained(section):
        architecture = AutoConfig.from_pretrained(model_path(run), **origin(section)).get_text_config()
    positions = getattr(architecture, "max_position_embeddings", None)
    if section.max_length is None and positions is None:
        raise ModelError(
            f"model.name_or_path: the configuration of {section.name_or_path!r} does not say how long a text may be",
            hint="state it: --set model.max_length=4096",
        )
    return min(n for n in (section.max_length, positions) if n is not None)


def lora_config(section: LoraSection) -> LoraConfig:
    """PEFT's configuration of a new adapter."""
    target = section.target_modules
    return LoraConfig(
        **section.model_dump(exclude={"target_modules"}),
        target_modules=target if isinstance(target, str) else list(target),
        task_type="CAUSAL_LM",
    )


def check_target_modules(model: PreTrainedModel, section: LoraSection) -> None:
    """Check the adapter's target modules against the model before anything is trained.

    Raises:
        ModelError: a named layer is not in the model.
    """
    if section.target_modules == "all-linear":
        return
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    missing = [name for name in section.target_modules if name.rpartition(".")[2] not in linear]
    if missing:
        raise ModelError(
            f"lora.target_modules: {type(model).__name__} has no linear layer named {', '.join(missing)}; "
            f"it has {', '.join(sorted(linear))}",
            hint="--set lora.target_modules=all-linear adapts every linear layer but the output head",
        )


def load_adapter(model: PreTrainedModel, adapter: Path, *, trainable: bool = False, float32: bool = True) -> PeftModel:
    """The model with a saved adapter, whose weights are float32 or in the model's dtype."""
    return PeftModel.from_pretrained(model, str(adapter), is_trainable=trainable, autocast_adapter_dtype=float32)


def origin(section: ModelSection) -> dict[str, object]:
    """Arguments of every `from_pretrained`."""
    return {"revision": section.revision or "main", "trust_remote_code": section.trust_remote_code}


class explained:
    """Context manager that turns the loaders' errors into a `ModelError`."""

    def __init__(self, section: ModelSection) -> None:
        self.section = section

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if not isinstance(error, OSError | ValueError | ImportError | TypeError | KeyError):
            return
        name = self.section.name_or_path
        reason = first_line(error)
        raise ModelError(
            f"model.name_or_path: {name!r} cannot be loaded: {reason}", hint=_hint(name, reason)
        ) from error


def _hint(name: str, reason: str) -> str:
    if "trust_remote_code" in reason:
        return "the model brings its own Python code; read it, then --set model.trust_remote_code=true"
    if name.startswith((".", "/", "~")) or Path(name).exists():
        return "give the directory that holds config.json, the weights and the tokenizer"
    return (
        "check the spelling and your network; on a machine without one set HF_HUB_OFFLINE=1 and fill the cache "
        f"beforehand (hf download {name}), or give a local directory"
    )


Model = PreTrainedModel | PeftModel


def load_source(source: ModelSource, run: Run) -> Model:
    """The model, on the CPU: in the dtype of the run it comes from, else in that of `run`.

    `run` is the run whose problems all models are compared on; its settings are used for a model that comes from no
    run.

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
    """A complete model, or an adapter on the base model it names.

    Raises:
        ModelError: one of the two cannot be loaded.
    """
    try:
        how = {"dtype": dtype, "trust_remote_code": trust_remote_code}
        if not (directory / ADAPTER_CONFIG).is_file():
            return AutoModelForCausalLM.from_pretrained(directory, **how)
        stated = json.loads((directory / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        base, revision = stated["base_model_name_or_path"], stated.get("revision") or "main"
        return load_adapter(AutoModelForCausalLM.from_pretrained(base, revision=revision, **how), directory)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        reason = first_line(error)
        raise ModelError(f"{directory}: cannot be loaded: {reason}", hint=f"ls -l {directory}") from error


def renderer_of_source(source: ModelSource, run: Run) -> PromptRenderer:
    """With the chat template and template arguments of its run; an export has its own tokenizer and template."""
    own = own_run(source, run)
    directory = own.directory.tokenizer
    if source.kind in ("adapter", "model") and (Path(source.path) / "tokenizer_config.json").is_file():
        directory = Path(source.path)
    return renderer_of(own.config, AutoTokenizer.from_pretrained(directory, padding_side="left"))


def own_run(source: ModelSource, run: Run) -> Run:
    """The run that a model comes from, or `run` if it comes from none."""
    same = source.run is None or Path(source.run) == run.directory.path
    return run if same else open_run(Path(source.run))


def device_at_hand(run: Run) -> torch.device:
    """The device the run was planned for, or the CPU if this machine has no GPU, which is reported."""
    if not run.plan.topology.on_cpu and not torch.cuda.is_available():
        say("PyTorch sees no GPU on this machine: working on the CPU")
        return torch.device("cpu")
    return torch.device(run.plan.topology.device)


def free_memory() -> None:
    """Free the memory of models that are no longer referenced; PEFT models contain reference cycles."""
    gc.collect()
    torch.cuda.empty_cache()
