"""`python -m grpo_dist.training.stages.export REQUEST`: a trained model as self-contained files, checked."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from grpo_dist import __version__
from grpo_dist.data.json_cells import read_problems
from grpo_dist.errors import ModelError
from grpo_dist.export.card import Export, model_card
from grpo_dist.export.push import ExportRequest, made_from
from grpo_dist.plan.checks import extra
from grpo_dist.progress import say
from grpo_dist.report.record import read_run
from grpo_dist.run.checkpoints import ADAPTER_CONFIG, ADAPTER_WEIGHTS, EXPORT_RECORD, step_of
from grpo_dist.run.directory import give_access, write_atomically, write_json
from grpo_dist.training.common.environment import packages
from grpo_dist.training.common.process import Run, as_process, open_run
from grpo_dist.training.models.generate import settings
from grpo_dist.training.models.load import (
    device_at_hand,
    free_memory,
    load_adapter,
    load_directory,
    load_model,
    model_path,
)
from grpo_dist.training.models.logprobs import Gap, Logprobs, Text, gap, logprobs, texts_of, vllm_is_here, vllm_logprobs
from grpo_dist.training.models.prompts import PromptRenderer, renderer_in

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")
PROMPTS, MOST_TOKENS = 8, 64
"""Number of texts on which trained and exported model are compared, and the length of their completions."""
SHARD = "4GB"
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Largest mean difference of logprobs, in nats per token, that rounding the weights to a dtype may cause."""


@dataclass(frozen=True)
class Reference:
    """Texts with their logprobs under the trained model and its base, computed in float32."""

    texts: list[Text]
    trained: Logprobs
    base_gap: Gap

    @property
    def tokens(self) -> int:
        return sum(len(text.completion) for text in self.texts)


def export(request: ExportRequest) -> None:
    """Write the draft, load it back, compare it with the trained model, and only then rename it to its final name.

    Raises:
        ModelError: the adapter is empty or damaged, or the written files do not give the trained model.
    """
    run, source, draft = open_run(Path(request.source.run)), Path(request.source.path), Path(request.draft)
    check_finite(source / ADAPTER_WEIGHTS)
    draft.mkdir()
    reference = _write(request, run, draft)
    free_memory()
    checks = _check(request, run, draft, reference)
    record = {
        "run": str(run.directory.path),
        "source": str(source),
        **made_from(source, request.to, request.dtype),
        "base_model": model_path(run),
        "checks": checks,
        "versions": _versions(),
    }
    write_json(draft / EXPORT_RECORD, record)
    write_atomically(draft / "README.md", _card(request, run, record))
    give_access(draft)
    draft.rename(request.output)


def check_finite(weights: Path) -> None:
    """Check that a file holds an adapter that has learnt something.

    A layer whose second matrix is all zero has never been updated. Experts are exempt: one to which no token was routed
    has legitimately not been updated.

    Raises:
        ModelError: it cannot be read, or a tensor is all zero or not finite.
    """
    try:
        tensors = load_file(weights)
    except Exception as error:  # safetensors raises its own error, which is no OSError
        raise ModelError(f"{weights}: not a readable adapter: {error}", hint="export a checkpoint instead") from error
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    empty = [name for name, tensor in tensors.items() if not tensor.any() and ".experts." not in name]
    if not tensors:
        raise ModelError(f"{weights}: it holds no tensor", hint="export a checkpoint instead")
    for names, what in ((broken, "holds values that are not finite"), (empty, "is all zero: it was never trained")):
        if names:
            more = f"; so it is with {len(names)} of {len(tensors)} tensors" if len(names) > 1 else ""
            raise ModelError(f"{weights}: {names[0]} {what}{more}", hint="export an earlier checkpoint of the run")


def _write(request: ExportRequest, run: Run, draft: Path) -> Reference:
    """Write the files, and compute the reference while the trained model is loaded. A separate function, to free it."""
    renderer = renderer_in(run)
    # As in training: the weights that training used, in its dtype. Only the sums are computed in float32.
    base = load_model(run)
    dtypes = {name: parameter.dtype for name, parameter in base.named_parameters()}
    trained = load_adapter(base.float(), Path(request.source.path)).to(device_at_hand(run)).eval()
    reference = _reference(run, trained, renderer)
    say(f"{request.to}: {len(reference.texts)} completions of the trained model to check with")
    if request.to == "adapter":
        _write_adapter(run, Path(request.source.path), draft)
    else:
        _write_merged(
            request, run, _merged(trained, dtypes, run.config.model.dtype, request.dtype), renderer.tokenizer, draft
        )
    for name in TOKENIZER_FILES:
        if (run.directory.tokenizer / name).is_file():
            shutil.copy2(run.directory.tokenizer / name, draft / name)
    return reference


def _reference(run: Run, trained: PeftModel, renderer: PromptRenderer) -> Reference:
    held, limit = run.directory.heldout_data, min(MOST_TOKENS, run.config.grpo.max_completion_length)
    rows = read_problems(held if held.is_file() else run.directory.train_data)
    texts = texts_of(trained, renderer, list(rows["prompt"][:PROMPTS]), max_new_tokens=limit)
    found = logprobs(trained, texts)
    with trained.disable_adapter():
        return Reference(texts, found, gap(found, logprobs(trained, texts)))


def _write_adapter(run: Run, source: Path, draft: Path) -> None:
    """Adapter and configuration; it names a base that others can find, not the local path PEFT may have recorded."""
    shutil.copy2(source / ADAPTER_WEIGHTS, draft / ADAPTER_WEIGHTS)
    stated = json.loads((source / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    revision = run.config.model.revision
    write_json(draft / ADAPTER_CONFIG, {**stated, "base_model_name_or_path": model_path(run), "revision": revision})


def _merged(trained: PeftModel, dtypes: dict[str, torch.dtype], was: str, becomes: str) -> PreTrainedModel:
    """Base plus adapter, added in float32, then cast; tensors that a model keeps in another dtype stay in it.

    In 16 bits the sum would lose most of what training added: the change is small compared with the weights.
    """
    model = trained.merge_and_unload(safe_merge=True)
    for name, parameter in model.named_parameters():
        own = dtypes[name]
        parameter.data = parameter.data.to(getattr(torch, becomes) if own == getattr(torch, was) else own)
    return model


def _write_merged(
    request: ExportRequest, run: Run, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, draft: Path
) -> None:
    """Weights in shards, and every end token used in training, so that completions end as they did there."""
    how = settings(model, tokenizer, max_new_tokens=1, per_prompt=1)
    model.generation_config.eos_token_id = how.eos_token_id
    model.generation_config.pad_token_id = how.pad_token_id
    model.save_pretrained(draft, max_shard_size=SHARD)


def _check(request: ExportRequest, run: Run, draft: Path, reference: Reference) -> list[dict[str, Any]]:
    """One entry for each program that has read the files."""
    checks = [_held("transformers", _reloaded(request, run, draft, reference.texts), request, reference)]
    if request.to == "vllm":
        if vllm_is_here():
            free_memory()
            checks.append(_held("vllm", vllm_logprobs(draft, reference.texts), request, reference))
        else:
            say("vLLM is not installed here: checked with Transformers alone")
    return checks


def _reloaded(request: ExportRequest, run: Run, draft: Path, texts: list[Text]) -> Logprobs:
    """Computed in float32 like the reference, so that the weights alone can differ."""
    stored = run.config.model.dtype if request.to == "adapter" else request.dtype
    model = (
        load_directory(draft, getattr(torch, stored), run.config.model.trust_remote_code)
        .float()
        .to(device_at_hand(run))
        .eval()
    )
    return logprobs(model, texts)


def _held(reader: str, found: Logprobs, request: ExportRequest, reference: Reference) -> dict[str, Any]:
    """Report the numbers and return them.

    Raises:
        ModelError: the exported model differs from the trained one by more than rounding explains.
    """
    between = gap(reference.trained, found)
    dtype = "float32" if request.to == "adapter" else request.dtype
    allowed, base = TOLERANCE[dtype], reference.base_gap.mean
    numbers = (
        f"{reference.tokens} tokens, logprobs {between.mean:.1e} from the trained model's on average, "
        f"{between.largest:.1e} at most; allowed {allowed:.0e}; the base's are {base:.1e} off"
    )
    if not between.mean <= allowed:
        raise ModelError(
            f"the exported model, read by {reader}, is not the trained one: {numbers}",
            hint="nothing was kept; try --dtype float32, or --to adapter, which changes no weight",
        )
    say(f"read by {reader}: {numbers}")
    if between.mean > base / 2:
        say(
            f"warning: in {request.dtype} rounding is {between.mean / base:.0%} of what training changed; "
            "--dtype float32 or --to adapter keeps all of it"
        )
    return {
        "reader": reader,
        "texts": len(reference.texts),
        "tokens": reference.tokens,
        "mean_gap": between.mean,
        "max_gap": between.largest,
        "tolerance": allowed,
        "base_gap": base,
    }


def _card(request: ExportRequest, run: Run, record: dict[str, Any]) -> str:
    checkpoint = request.source.kind == "checkpoint"
    return model_card(
        read_run(run.directory.path),
        Export(
            name=run.directory.path.name,
            form=request.to,
            dtype=request.dtype,
            step=step_of(Path(request.source.path)) if checkpoint else None,
            base_model=run.config.model.name_or_path,
            checks=tuple(record["checks"]),
            template_arguments=extra(run.config, "chat_template_kwargs") or {},
            versions=record["versions"],
        ),
    )


def _versions() -> dict[str, str]:
    return {"grpo-dist": __version__, **packages()}


def _main() -> None:
    request = ExportRequest.from_json(json.loads(sys.argv[1]))
    try:
        export(request)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            "float32 weights do not fit into this GPU", hint="on the CPU: CUDA_VISIBLE_DEVICES= grpo-dist export …"
        ) from error


if __name__ == "__main__":
    as_process(_main)
