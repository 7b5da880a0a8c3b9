"""Sends the adapter from the training processes to the rollout servers."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch
from accelerate import Accelerator
from peft import PeftModel
from safetensors.torch import save
from torch.distributed.tensor import DTensor

from grpo_dist.errors import RolloutError
from grpo_dist.inference.client import Policy

WEIGHTS = "adapter_model.safetensors"
DIGITS = 12
"""Hex digits of the content digest in a policy's name."""


def gather_adapter(model: PeftModel, accelerator: Accelerator, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """LoRA tensors under PEFT's names, on the CPU of the main process; None in the other processes.

    Every process must call it. Under ZeRO-3 and FSDP2 the adapter is gathered, the base model is not.

    Args:
        dtype: the tensors are cast to it; vLLM computes an adapter in the dtype of its model.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}
    with _whole(list(parameters.values()), accelerator):
        tensors = {}
        for name, parameter in parameters.items():
            whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter.data
            if accelerator.is_main_process:
                tensors[_peft_name(name)] = whole.to("cpu", dtype, copy=True).contiguous()
    return tensors


def write_policy(model: PeftModel, tensors: dict[str, torch.Tensor], step: int, policies: Path) -> Policy:
    """Write the adapter, complete and synced to disk, as a new directory named after step and content.

    Raises:
        RolloutError: it cannot be written; nothing partial remains.
    """
    data = save(tensors)
    target = policies / f"policy-{step}-{sha256(data).hexdigest()[:DIGITS]}"
    draft = policies / _draft_name()
    try:
        if not target.exists():
            draft.mkdir(parents=True)
            model.peft_config["default"].save_pretrained(str(draft))
            (draft / WEIGHTS).write_bytes(data)
            for file in (*draft.iterdir(), draft):
                _to_disk(file)
            draft.rename(target)
            _to_disk(policies)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise RolloutError(
            f"{policies}: the adapter of step {step} ({len(data):,} bytes) cannot be written: {error.strerror}",
            hint="make room there, then continue with --resume",
        ) from error
    return Policy(target.name, step, target, _size(target))


def copy_policies(policies: Iterable[Policy], to: Path) -> list[Policy]:
    """Copy adapters to another directory, unless it has them; return them as they are there.

    Raises:
        RolloutError: they cannot be written; nothing partial has a policy's name.
    """
    copies = []
    draft = to / _draft_name()
    try:
        to.mkdir(exist_ok=True)
        for policy in policies:
            target = to / policy.name
            if not target.exists():
                shutil.copytree(policy.directory, draft)
                for path in (*draft.iterdir(), draft):
                    _to_disk(path)
                draft.rename(target)
                _to_disk(to)
            copies.append(replace(policy, directory=target))
    except (OSError, shutil.Error) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise RolloutError(
            f"{to}: the adapter {policy.name} cannot be copied: {error}",
            hint="make room there, then continue with --resume",
        ) from error
    return copies


def policies_in(directory: Path) -> list[Policy]:
    """The adapters in a directory of a finished checkpoint, by their names; none if it is missing."""
    found = sorted(directory.glob("policy-*"))
    return [Policy(path.name, int(path.name.split("-")[1]), path, _size(path)) for path in found]


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())


def discard_others(policies: Path, kept: Iterable[Policy]) -> None:
    """Remove every adapter but these, including partially written ones.

    The name is removed first: a resumed run takes any directory that has the expected name for complete.
    """
    names = {policy.name for policy in kept}
    for path in list(policies.iterdir()):
        if path.name not in names:
            with suppress(OSError):  # it will be removed next time
                shutil.rmtree(path.rename(policies / _draft_name()))


def _draft_name() -> str:
    return f".{uuid.uuid4().hex[:8]}"


def _whole(parameters: list[torch.nn.Parameter], accelerator: Accelerator) -> AbstractContextManager[None]:
    plugin = accelerator.state.deepspeed_plugin
    if plugin is None or plugin.zero_stage != 3:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(parameters)


def _peft_name(name: str) -> str:
    """As PEFT saves it: without the adapter's name, and without what wrappers put in between.

    PyTorch 2.13 puts `_checkpoint_wrapped_module` there, under FSDP with activation checkpointing. Under another name,
    vLLM finds no layers for those tensors and refuses the adapter.
    """
    return name.replace("._checkpoint_wrapped_module", "").replace(".default.", ".")


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
