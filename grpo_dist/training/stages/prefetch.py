"""The stages of `grpo-dist prefetch`: fetch everything a run loads, then load it with the network off.

`python -m grpo_dist.training.stages.prefetch fetch|check CONFIG FINDINGS` writes its findings to a file.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from grpo_dist.config import RunConfig, load_config
from grpo_dist.config.base import EMBEDDED
from grpo_dist.config.generators import is_generated
from grpo_dist.config.sections import ModelSection, SourceSection
from grpo_dist.data.readers import is_local
from grpo_dist.data.sources import load_rows
from grpo_dist.data.text import place
from grpo_dist.errors import GrpoDistError
from grpo_dist.findings import Finding
from grpo_dist.procs.tree import die_with_parent
from grpo_dist.progress import say_passing
from grpo_dist.run.directory import write_json

PROGRESS_SECONDS = 1.0
CONFIGURATION = (".json", ".txt", ".model", ".jinja")
AGAIN = "the same command continues where this one stopped"
MEGABYTE = 10**6

Step = tuple[str, Callable[[], str]]
"""(name of the finding, function that returns its text or raises an error)."""


def main() -> None:
    die_with_parent()
    mode, config, findings = sys.argv[1:]
    stated = load_config(config)
    steps = fetching(stated) if mode == "fetch" else checking(stated)
    write_json(Path(findings), [_finding(name, step).to_dict() for name, step in steps])


def fetching(config: RunConfig) -> Iterator[Step]:
    """Into the caches of `huggingface_hub` and `datasets`."""
    if _model_on_hub(config.model):
        yield "model", lambda: _fetch_model(config.model)
    for source, splits in _sources(config):
        yield _name(source), lambda source=source, splits=splits: _fetch_data(source, splits)


def checking(config: RunConfig) -> Iterator[Step]:
    """With HF_HUB_OFFLINE set: load everything as a run will."""
    if config.model.name_or_path != EMBEDDED:
        yield "model-offline", lambda: _load_model(config.model)
    for source, splits in _sources(config):
        yield f"{_name(source)}-offline", lambda source=source, splits=splits: _load_data(source, splits)


def _finding(name: str, step: Callable[[], str]) -> Finding:
    try:
        return Finding(name, "ok", step())
    except GrpoDistError as error:
        return Finding(name, "error", error.message, error.hint)
    except Exception as error:  # httpx's, huggingface_hub's, transformers' own
        reason = (str(error).strip().splitlines() or [""])[0]
        return Finding(name, "error", f"{type(error).__name__}: {reason}", _hint(error))


def _hint(error: Exception) -> str:
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    refused = isinstance(
        error, RepositoryNotFoundError | RevisionNotFoundError
    )  # the first is also the base class of the gated error
    return "check the spelling; for what is private or gated: export HF_TOKEN=<your token>" if refused else AGAIN


def _model_on_hub(section: ModelSection) -> bool:
    name = section.name_or_path
    return name != EMBEDDED and not name.startswith(("/", "./", "../", "~")) and not Path(name).exists()


def _sources(config: RunConfig) -> Iterator[tuple[SourceSection, tuple[str, ...]]]:
    """Data sets on the Hub, and the splits of them that a run loads."""
    held = config.data.eval_split if config.evaluation.enabled else None
    all_sources = [(config.data, (config.data.split, *((held,) if held else ())))]
    if config.warm_start:
        all_sources.append((config.warm_start.data, (config.warm_start.data.split,)))
    yield from (
        (source, splits)
        for source, splits in all_sources
        if source.name_or_path != EMBEDDED
        and not is_generated(source.name_or_path)
        and not is_local(source.name_or_path)
    )


def _name(source: SourceSection) -> str:
    return place(source).replace(".", "-").replace("_", "-")


def _fetch_model(section: ModelSection) -> str:
    from huggingface_hub import HfApi

    name, revision = section.name_or_path, section.revision or "main"
    info = HfApi().model_info(name, revision=revision, files_metadata=True)
    sizes = {one.rfilename: one.size or 0 for one in info.siblings or ()}
    return _fetch("model", name, revision, {path: sizes[path] for path in wanted(list(sizes), section)})


def wanted(paths: Sequence[str], section: ModelSection) -> list[str]:
    """The files of a model that Transformers loads: configuration, tokenizer, and weights of one format."""
    top = [path for path in paths if "/" not in path]
    weights = [path for path in top if path.endswith(".safetensors") and not path.startswith("consolidated")]
    weights = weights or [path for path in top if path.startswith("pytorch_model") and path.endswith(".bin")]
    suffixes = (*CONFIGURATION, ".py") if section.trust_remote_code else CONFIGURATION
    return [*(path for path in top if path.endswith(suffixes)), *weights]


def _fetch_data(source: SourceSection, splits: Sequence[str]) -> str:
    """First download the files of the configuration with our resumable downloader; then `datasets` builds its own
    cache."""
    from datasets import load_dataset_builder

    name = source.name_or_path
    told = ""
    try:
        builder = load_dataset_builder(name, source.config, revision=source.revision)
    except Exception:
        builder = None  # load_rows reports what is wrong in our own message
    for revision, sizes in _data_files(builder, name).items():
        told = _fetch("dataset", name, revision, sizes)
    rows = [len(load_rows(source, split)) for split in splits]
    counts = ", ".join(f"{count:,} rows in {split}" for count, split in zip(rows, splits, strict=True))
    return f"{told or name}; {counts}"


def _data_files(builder: object, name: str) -> dict[str, dict[str, int]]:
    """Commit → path → bytes, for the files a builder lists as `hf://datasets/NAME@COMMIT/PATH`."""
    from huggingface_hub import HfApi

    listed = getattr(getattr(builder, "config", None), "data_files", None) or {}
    prefix = f"hf://datasets/{name}@"
    found: dict[str, list[str]] = {}
    for url in sorted({str(url) for urls in listed.values() for url in urls if str(url).startswith(prefix)}):
        commit, _, path = url.removeprefix(prefix).partition("/")
        found.setdefault(commit, []).append(path)
    api = HfApi()
    infos = {
        commit: api.get_paths_info(name, paths, repo_type="dataset", revision=commit) for commit, paths in found.items()
    }
    return {commit: {one.path: one.size for one in files} for commit, files in infos.items()}


def _fetch(kind: str, repo: str, revision: str, sizes: dict[str, int]) -> str:
    from grpo_dist.training.common.hub_download import HubFile, download

    progress = Progress(repo, sum(sizes.values()))
    for path, size in sizes.items():
        download(HubFile(kind, repo, revision, path, size), progress.arrived)
        progress.next(size)
    return f"{repo}: {len(sizes)} files, {_megabytes(progress.total)}"


class Progress:
    """Reports about once a second how much of a repository is downloaded."""

    def __init__(self, repo: str, total: int) -> None:
        self.repo, self.total, self.before = repo, total, 0
        self.told = time.monotonic()

    def arrived(self, of_this_file: int) -> None:
        if time.monotonic() - self.told > PROGRESS_SECONDS:
            self.told = time.monotonic()
            say_passing(f"{self.repo}: {_megabytes(self.before + of_this_file)} of {_megabytes(self.total)}")

    def next(self, size: int) -> None:
        self.before += size


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:,.1f} MB"


def _load_data(source: SourceSection, splits: Sequence[str]) -> str:
    for split in splits:
        load_rows(source, split)
    return f"{source.name_or_path} loads without a network"


def _load_model(section: ModelSection) -> str:
    """Configuration, tokenizer, the model without its weights, and the head of each file of weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    origin = {"revision": section.revision or "main", "trust_remote_code": section.trust_remote_code}
    say_passing(f"{section.name_or_path}: loading without a network")
    config = AutoConfig.from_pretrained(section.name_or_path, **origin)
    AutoTokenizer.from_pretrained(section.name_or_path, **origin)
    with torch.device("meta"):
        AutoModelForCausalLM.from_config(config, trust_remote_code=section.trust_remote_code)
    tensors = _tensors(section)
    return f"{section.name_or_path} loads without a network ({tensors:,} tensors)"


def _tensors(section: ModelSection) -> int:
    """Number of parameters in the weight files; opening a file checks its length against its header."""
    from safetensors import safe_open
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_NAME, cached_file

    def file(name: str) -> str | None:
        return cached_file(
            section.name_or_path,
            name,
            revision=section.revision or "main",
            _raise_exceptions_for_missing_entries=False,
        )

    index = file(SAFE_WEIGHTS_INDEX_NAME)
    if index is not None:
        names = sorted(set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = [SAFE_WEIGHTS_NAME]
    paths = {name: file(name) for name in names}
    if index is None and paths[SAFE_WEIGHTS_NAME] is None and file(WEIGHTS_NAME):
        return 0  # an older format, whose files have no header
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        raise FileNotFoundError(f"{section.name_or_path}: not in the cache: {', '.join(missing)}")
    count = 0
    for path in paths.values():
        with safe_open(path, framework="np") as weights:
            count += len(weights.keys())
    return count


if __name__ == "__main__":
    main()
