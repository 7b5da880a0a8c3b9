"""`python -m grpo_dist.training.stages.compare_any REQUEST`: any models on the same problems."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from datasets import Dataset

from grpo_dist.data.identity import Problems, problem_key
from grpo_dist.data.json_cells import read_problems
from grpo_dist.data.prepare import limit, prepare
from grpo_dist.errors import DataError
from grpo_dist.evaluation.comparison import Answered, CompareRequest, compare_all
from grpo_dist.progress import say
from grpo_dist.rewards.load import load_rewards
from grpo_dist.run.checkpoints import ModelSource
from grpo_dist.run.directory import RunDirectory, write_json
from grpo_dist.training.common.process import Run, as_process, open_run
from grpo_dist.training.models.generate import LocalModel
from grpo_dist.training.models.load import device_at_hand, free_memory, load_source, own_run, renderer_of_source
from grpo_dist.training.models.prompts import renderer_in
from grpo_dist.training.stages.compare import ModelComparison
from grpo_dist.training.stages.preparation import data_model, looked_at, reads


def compare_any(request: CompareRequest) -> None:
    """Have each model in turn answer the problems, and write the result."""
    run = open_run(Path(request.run), request.overrides)
    rows = _other_problems(run) if request.other_data else _heldout(run)
    contest = ModelComparison(run.config, rows)
    answers, seconds = {}, {}
    for source in request.models:
        _tell_other_prompts(source, run)
        answers[source.name], seconds[source.name] = _answers(source, run, contest)
        free_memory()
    known = {source.name: _trained_on(source, rows) for source in request.models}
    result = compare_all(contest.problems, answers, contest.paired)
    for entry, source in zip(result["models"], request.models, strict=True):
        entry |= {
            "kind": source.kind,
            "run": source.run,
            "path": source.path,
            "trained_on": known[source.name],
            "seconds": seconds[source.name],
        }
    data = run.config.data.name_or_path if request.other_data else f"held out by {run.directory.path}"
    write_json(Path(request.result), {"data": data, "scorer": run.config.evaluation.scorer.name, **result})


def _tell_other_prompts(source: ModelSource, run: Run) -> None:
    """All models read the same prompts, those of `run`; a model trained with other prompts is at a disadvantage."""
    own, ours = own_run(source, run).config.data.system_prompt, run.config.data.system_prompt
    if own != ours:
        say(f"warning: {source.name} was trained with data.system_prompt {own!r}, and is asked with {ours!r}")


def _answers(source: ModelSource, run: Run, contest: ModelComparison) -> tuple[list[Answered], float]:
    """A separate function, so that one model is freed before the next is loaded."""
    model = load_source(source, run).to(device_at_hand(run)).eval()
    renderer = renderer_of_source(source, run)
    return contest.answers(LocalModel(source.name, model, renderer, run.config.evaluation.batch_size))


def _heldout(run: Run) -> Dataset:
    """The problems that the run held out, at most as many as requested."""
    path = run.directory.heldout_data
    if not path.is_file():
        raise DataError(f"{run.directory.path}: the run held no problems out", hint="name some: --data FILE")
    rows = read_problems(path)
    return limit(rows, run.config.evaluation.num_problems, run.config.grpo.seed)


def _other_problems(run: Run) -> Dataset:
    """Other data, read as the run reads its own; only prompts that do not fit the context are dropped."""
    config = run.config
    everything = {
        "eval_split": None,
        "eval_fraction": None,
        "max_prompt_length": None,
        "max_prompt_length_quantile": None,
        "max_samples": config.evaluation.num_problems,
    }
    tokenizer = renderer_in(run).tokenizer
    [scorer] = load_rewards((config.evaluation.scorer,))
    prepared = prepare(
        config.data.model_copy(update=everything),
        data_model(run, tokenizer),
        seed=config.grpo.seed,
        need_answers="answer" in scorer.columns,
        hold_out=False,
        reads=reads([scorer]),
    )
    return looked_at(run, tokenizer, prepared).train


def _trained_on(source: ModelSource, rows: Dataset) -> int | None:
    """How many of the problems the model was trained on; None if its run is not known."""
    if source.kind == "base" or source.run is None:
        return 0 if source.kind == "base" else None
    directory = RunDirectory(Path(source.run))
    seen = [path for path in (directory.train_data, directory.warm_start_data) if path.is_file()]
    prompts = [prompt for path in seen for prompt in read_problems(path)["prompt"][:]]
    trained = Problems(map(problem_key, prompts))
    known = sum(problem_key(prompt) in trained for prompt in rows["prompt"][:])
    if known:
        say(f"warning: {source.name} was trained on {known:,} of these {len(rows):,} problems")
    return known


if __name__ == "__main__":
    as_process(lambda: compare_any(CompareRequest.from_json(json.loads(sys.argv[1]))))
