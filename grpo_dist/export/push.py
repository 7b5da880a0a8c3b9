"""The request of `grpo-dist export` to the process that makes the export, and the upload to the Hugging Face Hub.

An upload is one commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from grpo_dist.errors import PushError
from grpo_dist.run.checkpoints import ADAPTER_WEIGHTS, EXPORT_RECORD, ModelSource
from grpo_dist.text import first_line

TOKEN_HINT = "export HF_TOKEN=<a token that may write; https://huggingface.co/settings/tokens>, or: hf auth login"


def check_token() -> None:
    """Whether there is a token at all, before hours are spent.

    Raises:
        PushError: neither the environment nor a login has one.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise PushError("--push: no Hugging Face token in the environment", hint=TOKEN_HINT)


def push(folder: Path, repository: str) -> str:
    """Upload the files of an export; returns the address of the commit. A repository created here is private.

    The record of the export is not uploaded: it contains paths of this machine. The Hub accepts all files or none.

    Raises:
        PushError: the Hub refuses or cannot be reached; no message contains the token.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    hub = HfApi()
    again = "the export is complete; the same command pushes it again"
    try:
        hub.create_repo(repository, private=True, exist_ok=True)
        commit = hub.upload_folder(
            folder_path=folder,
            repo_id=repository,
            commit_message=f"{folder.name}, by grpo-dist",
            ignore_patterns=[EXPORT_RECORD],
        )
    except HFValidationError as error:
        raise PushError(f"--push {repository}: {error}", hint="a repository reads owner/name") from error
    except HfHubHTTPError as error:
        refused = error.response is not None and error.response.status_code in (401, 403)
        reason = first_line(error)
        raise PushError(
            f"--push {repository}: the Hub refuses: {reason}", hint=TOKEN_HINT if refused else again
        ) from error
    except (httpx.HTTPError, OSError) as error:
        raise PushError(f"--push {repository}: the Hub cannot be reached: {first_line(error)}", hint=again) from error
    return commit.commit_url


Form = Literal["adapter", "merged", "vllm"]
HALF = ("bfloat16", "float16")
"""Dtypes in which vLLM serves a model; it would cast float32 by itself, unchecked."""


@dataclass(frozen=True)
class ExportRequest:
    """One export. `draft` becomes `output` when everything in it has been checked."""

    source: ModelSource
    """A run or one of its checkpoints."""
    to: Form
    dtype: str
    """Dtype of the merged weights; an adapter keeps its own."""
    output: str
    draft: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> ExportRequest:
        return cls(**{**fields, "source": ModelSource(**fields["source"])})


def export_dtype(to: Form, stated: str | None, trained: str) -> str:
    """The dtype of the merged weights: the configured one, else that of training; for vLLM a 16-bit one."""
    if stated is not None:
        return stated
    return "bfloat16" if to == "vllm" and trained not in HALF else trained


def made_from(adapter: Path, to: Form, dtype: str) -> dict[str, str]:
    """The identity of an export, independent of the run's location; part of `export.json`."""
    digest = hashlib.sha256((adapter / ADAPTER_WEIGHTS).read_bytes()).hexdigest()
    return {"adapter_sha256": digest, "to": to, "dtype": dtype}
