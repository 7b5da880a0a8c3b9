"""What the prepare stage creates: model, tokenizer, data and warm start of a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from grpo_dist.config import RunConfig
from grpo_dist.config.base import EMBEDDED
from grpo_dist.config.sections import DataSection
from grpo_dist.data.columns import Tally, guess_column, paths_in
from grpo_dist.data.identity import Problems
from grpo_dist.data.messages import chat_template, system_adder, system_prompt, template_accepts_system
from grpo_dist.data.prepare import Model, Prepared
from grpo_dist.data.prepare import prepare as prepare_data
from grpo_dist.data.text import set_option
from grpo_dist.data.warm_start import START, warm_start_examples
from grpo_dist.embedded.base_cache import build
from grpo_dist.embedded.problems import HELDOUT_PROBLEMS, TRAIN_PROBLEMS, problems
from grpo_dist.errors import DataError, RewardError
from grpo_dist.plan.inputs import longest_completion
from grpo_dist.progress import say, say_passing
from grpo_dist.rewards.load import LoadedReward, load_rewards, parameters_of
from grpo_dist.rewards.names import is_users
from grpo_dist.run.checkpoints import ADAPTER_CONFIG, ADAPTER_WEIGHTS, find_adapter
from grpo_dist.run.directory import read_json, write_json
from grpo_dist.training.common.backend import Backend
from grpo_dist.training.common.environment import note_environment
from grpo_dist.training.common.process import Run
from grpo_dist.training.models.load import (
    context_length,
    declared_generation,
    load_tokenizer,
    model_path,
    vocabulary,
)
from grpo_dist.training.models.prompt_check import as_note, check_prompts
from grpo_dist.training.models.prompts import begins_with_bos, end_tokens, renderer_in, renderer_of, settle_pad
from grpo_dist.training.rewards.preflight import try_rewards


def prepare(run: Run, backend: Backend) -> None:
    """Create whatever is missing of model, tokenizer, data and warm start; `prepared.json`, written last, marks
    completion."""
    config, directory = run.config, run.directory
    note_environment(run, backend)
    if config.model.name_or_path == EMBEDDED and not directory.model.exists():
        build(directory.model, config.grpo.seed, say_passing)
    tokenizer = keep_tokenizer(run)
    prepared = data(run, tokenizer)
    _try_rewards(run, tokenizer, prepared)
    if not directory.warm_start.exists():
        prepared = noted(prepared, first_adapter(run, tokenizer, prepared.held))
    note_prepared(run, tokenizer, prepared)


def dressed_tokenizer(run: Run) -> PreTrainedTokenizerBase:
    """The model's tokenizer with the chat template of the run, and a pad token that occurs in no text."""
    tokenizer = load_tokenizer(run)
    tokenizer.chat_template = chat_template(run.config.data, tokenizer.chat_template, bos=begins_with_bos(tokenizer))
    settle_pad(tokenizer, end_tokens(declared_generation(run), tokenizer), vocabulary(run))
    return tokenizer


def keep_tokenizer(run: Run) -> PreTrainedTokenizerBase:
    """The tokenizer with its template, saved in the run directory and loaded from there, as every later stage does.

    A saved tokenizer may split texts differently when it is loaded again (Llama 2's, transformers 5).
    """
    dressed_tokenizer(run).save_pretrained(run.directory.tokenizer)
    return renderer_in(run).tokenizer


def data(run: Run, tokenizer: PreTrainedTokenizerBase) -> Prepared:
    """The problems of the run, saved in the run directory.

    Raises:
        DataError: they cannot be loaded or used, are too few, or lack a column that a reward reads.
    """
    config, directory = run.config, run.directory
    embedded = config.data.name_or_path == EMBEDDED
    scorers = _scorers(config)
    prepared = prepare_data(
        planned_data(run),
        planned_model(run, tokenizer),
        seed=config.grpo.seed,
        need_answers=any("answer" in reward.columns for reward in scorers),
        hold_out=config.evaluation.enabled,
        num_problems=config.evaluation.num_problems,
        rows=problems(config.grpo.seed, TRAIN_PROBLEMS, HELDOUT_PROBLEMS) if embedded else None,
        reads=reads(scorers),
    )
    _check_enough(run, prepared.train)
    check_columns(config, scorers, prepared.train)
    prepared = looked_at(run, tokenizer, prepared)
    directory.train_data.parent.mkdir(exist_ok=True)
    prepared.train.to_parquet(directory.train_data)
    if prepared.heldout is not None:
        prepared.heldout.to_parquet(directory.heldout_data)
    held = f", {len(prepared.heldout):,} held out" if prepared.heldout is not None else ""
    say(f"data: {len(prepared.train):,} problems to train on{held}")
    return prepared


def data_model(run: Run, tokenizer: PreTrainedTokenizerBase) -> Model:
    """What `grpo_dist.data` needs to know about the run's model."""
    renderer = renderer_of(run.config, tokenizer)
    return Model(
        render=renderer.text,
        count_tokens=renderer.lengths,
        context_length=context_length(run),
        max_completion_length=longest_completion(run.config),
    )


def looked_at(run: Run, tokenizer: PreTrainedTokenizerBase, prepared: Prepared) -> Prepared:
    """The prepared data with the findings about its prompts added to the notes; all notes are reported.

    Raises:
        DataError: training on these prompts would be useless.
    """
    found = check_prompts(run, renderer_of(run.config, tokenizer), (prepared.train, prepared.heldout))
    prepared = replace(prepared, notes=(*prepared.notes, *map(as_note, found)))
    for note in prepared.notes:
        say(note)
    return prepared


def note_prepared(run: Run, tokenizer: PreTrainedTokenizerBase, prepared: Prepared) -> None:
    """`prepared.json`: counts, notes, and the first prompt as the model reads it."""
    first = renderer_of(run.config, tokenizer).text(prepared.train[0]["prompt"])
    write_json(run.directory.prepared, {**prepared.counts, "notes": list(prepared.notes), "first_prompt": first})


def planned_data(run: Run) -> DataSection:
    """With the limit that engines were planned with, if no setting bounds a prompt."""
    section, limit = run.config.data, run.plan.max_prompt_length
    if run.plan.max_model_len is None or section.max_prompt_length or section.max_prompt_length_quantile:
        return section
    return section.model_copy(update={"max_prompt_length": limit})


def planned_model(run: Run, tokenizer: PreTrainedTokenizerBase) -> Model:
    """Limited to the context length of the run's engines: one longer prompt would fail a step."""
    model = data_model(run, tokenizer)
    return (
        model
        if run.plan.max_model_len is None
        else replace(model, context_length=min(model.context_length, run.plan.max_model_len))
    )


def _try_rewards(run: Run, tokenizer: PreTrainedTokenizerBase, prepared: Prepared) -> None:
    """The reward preflight: its findings are reported, and its errors stop the run here.

    Raises:
        RewardError: an error that `rewards.allow` does not name.
    """
    found = try_rewards(run, tokenizer, prepared.train)
    for finding in found:
        if finding.status == "warning":
            say(f"rewards: {finding.name}: {finding.what}" + (f"\n  → {finding.hint}" if finding.hint else ""))
    errors = [finding for finding in found if finding.status == "error"]
    if errors:
        listed = "\n".join(f"{one.name}: {one.what}" + (f"\n  → {one.hint}" if one.hint else "") for one in errors)
        names = ", ".join(dict.fromkeys(one.name for one in errors))
        raise RewardError(
            f"the rewards fail their preflight:\n{listed}",
            hint="grpo-dist rewards CONFIG shows what each function pays; to run all the same, start another run with "
            f"--set 'rewards.allow=[{names}]'",
        )


def _check_enough(run: Run, train: Dataset) -> None:
    """TRL's sampler drops a last incomplete step: with fewer problems than one step needs, there would be no step."""
    needed = run.plan.batch.prompts_per_step
    if len(train) < needed:
        raise DataError(
            f"data: {len(train)} problems to train on, one step needs {needed} different ones",
            hint=f"give more, or --set grpo.prompts_per_step={len(train)}",
        )


def _scorers(config: RunConfig) -> list[LoadedReward]:
    """Every function that will read the problems: the rewards, and the judge of the comparison."""
    judge = (config.evaluation.scorer,) if config.evaluation.enabled else ()
    return [*load_rewards(config.rewards.functions), *load_rewards(judge)]


def reads(scorers: Sequence[LoadedReward]) -> Callable[[str], bool]:
    """Whether one of the functions may read a column under its original name: it names it, or accepts any."""
    parameters = [one for reward in scorers for one in parameters_of(reward.function)]
    if any(
        one.kind is one.VAR_KEYWORD
        for reward in scorers
        if is_users(reward.name)
        for one in parameters_of(reward.function)
    ):
        return lambda name: True
    named = {one.name for one in parameters}
    return lambda name: name in named


def check_columns(config: RunConfig, scorers: Sequence[LoadedReward], train: Dataset) -> None:
    """Raises DataError when the data lacks a column that one of the functions reads."""
    there = paths_in(train)
    for reward in scorers:
        for column in reward.columns:
            if column not in train.column_names:
                guess = guess_column(column, column, there) or "NAME-IN-YOUR-DATA"
                raise DataError(
                    f"rewards: {reward.name} needs a column {column!r}; the data has {', '.join(train.column_names)}",
                    hint=set_option("data.columns", dict(config.data.columns) | {column: guess}),
                )


def noted(prepared: Prepared, tally: Tally) -> Prepared:
    """The result with the notes and counts of a later step added."""
    return replace(prepared, notes=(*prepared.notes, *tally.notes), counts={**prepared.counts, **tally.counts})


def first_adapter(run: Run, tokenizer: PreTrainedTokenizerBase, held: Problems) -> Tally:
    """The adapter GRPO starts with, saved in the run directory, and what there is to report.

    Without `model.adapter` and `warm_start` there is none.

    Args:
        held: problems that must not be trained on.
    """
    config = run.config
    given = copy_adapter(run) if config.model.adapter else None
    if config.warm_start:
        tally = _start_warm(run, tokenizer, held, given)
    else:
        tally = Tally()
        if given is not None:
            given.rename(run.directory.warm_start)
    if given is not None:
        tally.notes.insert(0, f"training continues the adapter of {config.model.adapter}")
        say(tally.notes[0])
        shutil.rmtree(given, ignore_errors=True)
    return tally


def copy_adapter(run: Run) -> Path:
    """A copy of `model.adapter` in the run directory, which states the model and the dropout of this run.

    Raises:
        ModelError: there is none.
    """
    source, copy = Path(find_adapter(Path(run.config.model.adapter)).path), run.directory.path / ".given_adapter"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    shutil.copy2(source / ADAPTER_WEIGHTS, copy / ADAPTER_WEIGHTS)
    stated = read_json(source / ADAPTER_CONFIG)
    ours = {"base_model_name_or_path": model_path(run), "lora_dropout": run.config.lora.lora_dropout}
    write_json(copy / ADAPTER_CONFIG, {**stated, **ours, "revision": run.config.model.revision})
    return copy


def _start_warm(run: Run, tokenizer: PreTrainedTokenizerBase, held: Problems, given: Path | None) -> Tally:
    """The supervised warm start, of a given adapter or a new one."""
    from grpo_dist.training.stages.warm_start import warm_start  # imports TRL, which takes seconds

    config, renderer = run.config, renderer_of(run.config, tokenizer)
    add_system = system_adder(system_prompt(config.data), template_accepts_system(renderer.text))
    question = add_system([{"role": "user", "content": "?"}])
    prefilled = renderer.text(question).rstrip().endswith(START)
    tally = Tally("warm start")
    examples = warm_start_examples(config.warm_start, add_system, tally, prefilled=prefilled, held=held)
    for note in tally.notes:
        say(note)
    warm_start(run, renderer, examples, given)
    return tally
