"""`grpo-dist export`: a trained model as files, optionally on the Hub."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grpo_dist.cli.options import Directory

if TYPE_CHECKING:
    from grpo_dist.config import RunConfig
    from grpo_dist.export.push import ExportRequest
    from grpo_dist.run.checkpoints import ModelSource

FORMS = ("adapter", "merged", "vllm")
DTYPES = ("float32", "bfloat16", "float16")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(FORMS), required=True, help="What to make; see above.")
@click.option("--dtype", type=click.Choice(DTYPES), help="Of the merged weights.  [default: that of the training]")
@click.option("--output", type=Directory(), metavar="DIR", help="Where.  [default: RUN/exports/FORM]")
@click.option("--push", "repository", metavar="OWNER/NAME", help="Upload it; a repository made for it is private.")
def export(run: Path, to: str, dtype: str | None, output: Path | None, repository: str | None) -> None:
    """Export a trained model as self-contained files.

    RUN is a run directory, or a checkpoint in one (RUN/checkpoints/…).

    \b
    --to adapter   the LoRA adapter, for the base it was trained on
    --to merged    whole weights, merged in float32, then cast
    --to vllm      the same in 16 bits, read by vLLM too where it is installed

    All come with tokenizer, chat template and a model card. Before the files get
    their name, they are loaded again and their logprobs are compared with the trained model's. The numbers are in
    export.json and on the card.

    --push takes the token from HF_TOKEN or from `hf auth login`.
    """
    from grpo_dist.run.checkpoints import find_model

    source = find_model(run)
    request = _request(source, to, dtype, output)
    if repository is not None:
        _check_push(request)
    made = Path(request.output)
    if _exists(request):
        click.echo(f"{made}: as exported before", err=True)
    else:
        _make(request)
    click.echo(str(output or made))
    if repository is not None:
        from grpo_dist.export.push import push

        click.echo(push(made, repository))


def _request(source: ModelSource, to: str, dtype: str | None, output: Path | None) -> ExportRequest:
    """What to export, and where to.

    Raises:
        ModelError: the source is neither a run nor a checkpoint.
        UsageError: --dtype does not fit --to.
    """
    from grpo_dist.errors import ModelError
    from grpo_dist.export.push import ExportRequest, export_dtype

    if source.kind not in ("run", "checkpoint"):
        raise ModelError(f"{source.path}: no run and no checkpoint of one", hint="give RUN or RUN/checkpoints/…")
    if to == "adapter" and dtype is not None:
        raise click.UsageError("--dtype is for merged weights; an adapter keeps its own")
    if to == "vllm" and dtype == "float32":
        raise click.UsageError("vLLM would cast float32 by itself; --dtype bfloat16 or float16, or --to merged")
    name = to if source.kind == "run" else f"{to}-{Path(source.path).name}"
    place = (output or Path(source.run) / "exports" / name).absolute()
    draft = place.with_name(f".{place.name}.draft-{uuid.uuid4().hex[:8]}")
    return ExportRequest(source, to, export_dtype(to, dtype, _config(source).model.dtype), str(place), str(draft))


def _config(source: ModelSource) -> RunConfig:
    from grpo_dist.config import load_config
    from grpo_dist.run.directory import RunDirectory

    return load_config(RunDirectory(Path(source.run)).config)


def _check_push(request: ExportRequest) -> None:
    """Check what can be checked before anything is exported."""
    from grpo_dist.errors import PushError
    from grpo_dist.export.card import on_the_hub
    from grpo_dist.export.push import check_token
    from grpo_dist.launch.checks import check_packages

    check_packages(())  # huggingface_hub comes with them
    base = _config(request.source).model.name_or_path
    if request.to == "adapter" and not on_the_hub(base):
        raise PushError(
            f"--push: the adapter belongs on {base}, which nobody else has", hint="push whole weights: --to merged"
        )
    check_token()


def _exists(request: ExportRequest) -> bool:
    """Whether exactly this export exists already.

    Raises:
        RunDirectoryError: the directory holds something else.
    """
    from grpo_dist.errors import RunDirectoryError
    from grpo_dist.export.push import made_from
    from grpo_dist.run.checkpoints import EXPORT_RECORD
    from grpo_dist.run.directory import read_json

    place = Path(request.output)
    if not place.exists():
        return False
    try:
        record = read_json(place / EXPORT_RECORD)
        if record.items() >= made_from(Path(request.source.path), request.to, request.dtype).items():
            return True
    except (OSError, RunDirectoryError):
        pass  # not an export
    raise RunDirectoryError(f"{place}: something else is there already", hint="choose another place with --output DIR")


def _make(request: ExportRequest) -> None:
    from grpo_dist.cli.options import until_stopped
    from grpo_dist.launch.local import run_alongside
    from grpo_dist.progress import Terminal

    output, draft = Path(request.output), Path(request.draft)
    for left in output.parent.glob(f".{output.name}.draft-*"):  # of an attempt that was killed
        shutil.rmtree(left)
    try:
        with until_stopped():
            run_alongside(
                "grpo_dist.training.stages.export",
                request.to_json(),
                run=Path(request.source.run),
                result=output,
                terminal=Terminal(),
            )
    finally:
        shutil.rmtree(draft, ignore_errors=True)
