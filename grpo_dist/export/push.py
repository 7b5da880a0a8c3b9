"""An export to the Hugging Face Hub, in one commit."""

from __future__ import annotations

from pathlib import Path

from grpo_dist.errors import PushError
from grpo_dist.models import EXPORT_RECORD

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
    """Upload the files of an export; returns the address of the commit. A repository that is made here is private.

    The record of the export stays: it names places of this machine. The Hub takes all files or none.

    Raises:
        PushError: the Hub refuses or cannot be reached; the token is in no message.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    hub = HfApi()
    again = "the export stands; the same command pushes it again without making it anew"
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
        reason = _first_line(error)
        raise PushError(
            f"--push {repository}: the Hub refuses: {reason}", hint=TOKEN_HINT if refused else again
        ) from error
    except (httpx.HTTPError, OSError) as error:
        raise PushError(f"--push {repository}: the Hub cannot be reached: {_first_line(error)}", hint=again) from error
    return commit.commit_url


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
