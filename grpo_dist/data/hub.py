"""Data sets on the Hugging Face Hub, and what to do when it cannot be reached."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_dist.config.known_data import KNOWN_DATA
from grpo_dist.config.sections import SourceSection
from grpo_dist.data.readers import similar_path
from grpo_dist.data.text import place, set_option
from grpo_dist.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

PROBE_SECONDS = 10.0
HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)

CHOICES = {
    "config": ("Config name is missing", "BuilderConfig", "Couldn't find cache for", "configurations in the cache"),
    "split": ("Unknown split",),
}
"""Field → how `datasets` words an error about it, which lists the available names."""


def load_from_hub(source: SourceSection, split: str) -> Dataset:
    """Rows of a data set on the Hub; from the local cache when the Hub cannot be reached.

    Raises:
        DataError: no such data set, configuration, revision or split; gated; or not reachable and not in the cache.
    """
    check_id(source)
    import datasets

    obstacle = _obstacle(source)
    if obstacle and source.revision is not None:
        # The cache silently falls back to whatever revision it holds.
        raise _unreachable(source, obstacle)
    with _offline() if obstacle else nullcontext():
        try:
            return datasets.load_dataset(
                source.name_or_path, source.config, revision=source.revision, split=split, keep_in_memory=True
            )
        except Exception as error:
            raise _explain(source, error, obstacle) from error


def check_id(source: SourceSection) -> None:
    """Raise DataError when the name can be no id of a data set."""
    if not HUB_ID.fullmatch(source.name_or_path):
        raise DataError(
            f"{place(source)}.name_or_path: {source.name_or_path!r} is neither a path that exists nor a data set id",
            hint=_did_you_mean(source)
            or "an id reads owner/name; a local file ends in .jsonl, .json, .csv or .parquet",
        )


def _obstacle(source: SourceSection) -> str | None:
    """Why the Hub cannot be used, from one request without the library's minute of retries; None when it answers.

    Raises:
        DataError: the Hub has no such data set or revision.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        HfApi().dataset_info(source.name_or_path, revision=source.revision, timeout=PROBE_SECONDS)
    except RevisionNotFoundError as error:
        message = f"{place(source)}.revision: {source.name_or_path} has no revision {source.revision!r} on the Hub"
        raise DataError(message, hint=set_option(f"{place(source)}.revision", "main")) from error
    except RepositoryNotFoundError as error:
        raise _not_found(source) from error
    except (httpx.HTTPError, OSError) as error:
        return str(error).split("\n")[0] or type(error).__name__
    return None


@contextmanager
def _offline() -> Iterator[None]:
    """Make `datasets` use only its cache."""
    from datasets import config

    before, config.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _explain(source: SourceSection, error: Exception, obstacle: str | None) -> DataError:
    """A message for the user about what `load_dataset` raised."""
    field, text = place(source), " ".join(str(error).split())
    if isinstance(error, ConnectionError) or "LocalEntryNotFoundError" in text:
        return _unreachable(source, obstacle or "the connection broke")
    for part, markers in CHOICES.items():
        if any(marker in text for marker in markers):
            return DataError(f"{field}.{part}: {source.name_or_path}: {text}", hint=f"--set {field}.{part}=NAME")
    if "gated" in text:
        page = f"https://huggingface.co/datasets/{source.name_or_path}"
        hint = f"accept its conditions on {page}, then: export HF_TOKEN=<your token>"
        return DataError(f"{field}.name_or_path: {text}", hint=hint)
    where = " from the local cache" if obstacle else ""
    return DataError(
        f"{field}.name_or_path: {source.name_or_path} cannot be loaded{where}: {type(error).__name__}: {text}",
        hint=f"try: python -c \"import datasets; datasets.load_dataset('{source.name_or_path}')\"",
    )


def _unreachable(source: SourceSection, obstacle: str) -> DataError:
    name, field = source.name_or_path, place(source)
    folder = name.split("/")[-1]
    steps = f"on a machine with network: hf download --repo-type dataset {name} --local-dir {folder}"
    then = f"then: {' '.join(set_option(f'{field}.{key}', value) for key, value in _of_a_copy(source, folder).items())}"
    if source.revision is None:
        hint = f"{steps}; {then}. Or load it there once with the same HF_HOME and set HF_HUB_OFFLINE=1"
        cached = "it is not in the local cache"
    else:
        hint = f"{steps} --revision {source.revision}; {then} --set {field}.revision=null"
        cached = f"the local cache cannot tell revision {source.revision!r} from others"
    return DataError(
        f"{field}.name_or_path: the Hub cannot be reached for {name!r} ({obstacle}), and {cached}",
        hint=". ".join(filter(None, (hint, _did_you_mean(source)))),
    )


def _of_a_copy(source: SourceSection, folder: str) -> dict[str, str]:
    """Settings for a local copy, including those that were filled in because the Hub name is known."""
    settings = {"name_or_path": f"./{folder}"}
    if source.name_or_path in KNOWN_DATA:
        settings["like"] = source.name_or_path
        chosen = {name: getattr(source, name, None) for name in ("config", "split", "eval_split")}
        settings |= {name: value for name, value in chosen.items() if value not in (None, "train")}
    return settings


def _not_found(source: SourceSection) -> DataError:
    return DataError(
        f"{place(source)}.name_or_path: no data set {source.name_or_path!r} on the Hub, and no such local path",
        hint=_did_you_mean(source) or "check the id; if the data set is private: export HF_TOKEN=<your token>",
    )


def _did_you_mean(source: SourceSection) -> str | None:
    similar = similar_path(Path(source.name_or_path).expanduser())
    return f"did you mean the local {similar}?" if similar else None
