"""The literal tables of TRL's fields against the TRL that is installed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import trl_introspection as installed

from grpo_dist.config.generation_fields import OWN_IN_BOTH
from grpo_dist.config.grpo import SCHEDULER_ARGUMENTS, GrpoSection
from grpo_dist.config.sections import ATTENTION
from grpo_dist.config.trl_fields import (
    OWNED,
    PASSED_ON,
    CacheName,
    CorrectionMode,
    LogLevel,
    LossType,
    OptimizerName,
    SchedulerName,
)

NOT_TRL = {"prompts_per_step", "max_num_gen_batches", "max_time"}
EXPLICIT = set(GrpoSection.model_fields) - NOT_TRL


@pytest.fixture(autouse=True)
def trl(missing):
    if find_spec("trl") is None:
        missing("trl is not installed")
    import light_trl  # noqa: F401


@pytest.fixture
def fields(trl):
    return installed.fields()


def test_every_field_has_one_place(fields):
    assert set(fields) == EXPLICIT | set(PASSED_ON) | set(OWNED)
    assert len(fields) == len(EXPLICIT) + len(PASSED_ON) + len(OWNED), "a field stands in two tables"


def test_passed_on_fields_take_what_trl_takes(fields):
    assert {name: installed.kinds(kind) for name, kind in PASSED_ON.items()} == {n: fields[n] for n in PASSED_ON}


def test_our_fields_take_what_trl_takes(fields):
    ours = {name: installed.kinds(GrpoSection.model_fields[name].annotation) for name in EXPLICIT}
    # null is no value for a field with a default of ours
    assert {name: kinds - {"null"} for name, kinds in ours.items()} == {n: fields[n] - {"null"} for n in EXPLICIT}


def test_reasons_say_what_to_do():
    vague = {
        name for name, reason in OWNED.items() if not any(w in reason for w in ("set ", "give ", "remove ", "see "))
    }
    assert vague == set()


def test_schedulers():
    from transformers.trainer_utils import SchedulerType

    needs_evaluation = {"reduce_lr_on_plateau", "greedy"}
    assert installed.words(SchedulerName) == {one.value for one in SchedulerType} - needs_evaluation
    assert set(SCHEDULER_ARGUMENTS) < installed.words(SchedulerName)


def test_optimizers():
    from transformers.training_args import OptimizerNames

    assert installed.words(OptimizerName) == {one.value for one in OptimizerNames}


def test_log_levels():
    from transformers.training_args import trainer_log_levels

    assert installed.words(LogLevel) == set(trainer_log_levels)


def test_debug_options():
    from transformers.debug_utils import DebugOption

    assert installed.words(PASSED_ON["debug"]) == {one.value for one in DebugOption}


def test_caches():
    from transformers.generation.configuration_utils import ALL_CACHE_IMPLEMENTATIONS

    assert installed.words(CacheName) == {*ALL_CACHE_IMPLEMENTATIONS, "paged"}


def test_attention():
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    known = {name.removeprefix("paged|") for name in ALL_ATTENTION_FUNCTIONS.valid_keys()}
    assert known | {"eager"} == set(ATTENTION)


@pytest.mark.parametrize(
    ("field", "ours"),
    [
        ("loss_type", LossType),
        ("importance_sampling_level", PASSED_ON["importance_sampling_level"]),
        ("multi_objective_aggregation", PASSED_ON["multi_objective_aggregation"]),
        ("vllm_importance_sampling_mode", CorrectionMode),
        ("scale_rewards", GrpoSection.model_fields["scale_rewards"].annotation),
    ],
)
def test_words_trl_checks_only_while_it_trains(field, ours):
    from trl.trainer import grpo_trainer

    assert installed.words(ours) == installed.words_in_source(grpo_trainer, field)


def test_generation_arguments_trl_fills_in_are_ours():
    import re
    from inspect import getsource

    from trl.trainer import grpo_trainer

    source = getsource(grpo_trainer.GRPOTrainer.__init__)
    filled_in = source[source.index("generation_kwargs = {") :].partition("}")[0]
    assert {"temperature", "max_new_tokens"} <= set(re.findall(r'"(\w+)": ', filled_in)) <= OWN_IN_BOTH.keys()


def test_conflicts_are_those_of_trl():
    """The combinations refused here are refused by TRL too, or it would not be our business."""
    from trl import GRPOConfig

    refused = [
        {"vllm_importance_sampling_clip_min": 4.0},
        {"vllm_importance_sampling_mode": "token_truncate", "vllm_importance_sampling_clip_max": None},
        {"dataloader_prefetch_factor": 2},
    ]
    for extras in refused:
        with pytest.raises(ValueError, match=r"\w"):
            GRPOConfig(output_dir="unused", use_cpu=True, bf16=False, **extras)
        with pytest.raises(ValueError, match="type=conflict"):
            GrpoSection(**extras)


def test_a_section_with_everything_reaches_trl():
    """Defaults and an extra of each kind are accepted by GRPOConfig as they are."""
    from trl import GRPOConfig

    section = GrpoSection(adam_beta1="0.8", delta=2, disable_dropout="no", liger_kernel_config={"rope": True})
    stated = section.model_dump(exclude=NOT_TRL)
    config = GRPOConfig(output_dir="unused", use_cpu=True, bf16=False, **stated)
    assert (config.adam_beta1, config.delta, config.disable_dropout) == (0.8, 2.0, False)
    assert config.liger_kernel_config == {"rope": True}
    assert config.vllm_importance_sampling_mode == "token_truncate"
