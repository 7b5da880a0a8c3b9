"""What may stand under `grpo.generation_kwargs`."""

from __future__ import annotations

import pytest

from grpo_dist.config import load_config
from grpo_dist.config.generation_fields import OWN_IN_BOTH, TAKEN
from grpo_dist.errors import ConfigError

BACKENDS = ("transformers", "vllm")


@pytest.fixture
def stated(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("model: {name_or_path: m}\ndata: {name_or_path: d}\n")
    return lambda name, value, backend: load_config(
        path, [f"grpo.generation_kwargs={{{name}: {value}}}", f"rollout.backend={backend}"]
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("temperature", 0.1, "set grpo.temperature instead"),
        ("max_tokens", 9, "set grpo.max_completion_length instead"),
        ("max_length", 9, "set grpo.max_completion_length instead"),
        ("n", 2, "set grpo.num_generations instead"),
        ("num_return_sequences", 2, "set grpo.num_generations instead"),
        ("seed", 1, "set grpo.seed instead"),
        ("logprobs", 5, "training reads"),
        ("stop", "[x]", "completions end where"),
        ("stop_strings", "x", "completions end where"),
        ("eos_token_id", 3, "the tokenizer states it"),
        ("do_sample", "false", "set grpo.temperature instead"),
        ("num_beams", 4, "sampled from the model itself"),
        ("return_dict_in_generate", "true", "training reads"),
        ("disable_compile", "true", "remove it"),
        ("min_tokns", 3, "did you mean min_"),
        ("temprature", 3, "if temperature is meant: set grpo.temperature instead"),
    ],
)
def test_a_setting_of_ours_is_refused_whoever_generates(stated, name, value, says, backend):
    with pytest.raises(ConfigError, match=f"grpo.generation_kwargs.{name}: ") as raised:
        stated(name, value, backend)
    assert says.replace("min_", {"vllm": "min_tokens", "transformers": "min_"}[backend]) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "backend", "says"),
    [
        ("min_tokens", "transformers", "calls it min_new_tokens"),
        ("min_new_tokens", "vllm", "calls it min_tokens"),
        ("presence_penalty", "transformers", "set rollout.backend: vllm"),
        ("typical_p", "vllm", "set rollout.backend: transformers"),
        ("zzz", "vllm", "it has allowed_token_ids"),
    ],
)
def test_what_only_the_other_back_end_knows_is_refused(stated, name, backend, says):
    with pytest.raises(ConfigError) as raised:
        stated(name, 1, backend)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("name", "backend"), [(name, backend) for backend in BACKENDS for name in sorted(TAKEN[backend])]
)
def test_what_overrides_nothing_passes(stated, name, backend):
    assert stated(name, 1, backend).generation_kwargs == {name: 1}


def test_a_shortest_completion_is_no_longer_than_the_longest(stated):
    with pytest.raises(ConfigError, match=r"600 is more than grpo\.max_completion_length, 512"):
        stated("min_tokens", 600, "vllm")


def test_the_tables_hold_what_transformers_has():
    from transformers import GenerationConfig

    there = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    assert there <= {*OWN_IN_BOTH, *TAKEN["transformers"]}
    assert not TAKEN["transformers"] - there


def test_the_tables_hold_what_vllm_has():
    sampling_params = pytest.importorskip("vllm.sampling_params")
    there = {name for name in sampling_params.SamplingParams.__struct_fields__ if not name.startswith("_")}
    assert there <= {*OWN_IN_BOTH, *TAKEN["vllm"]}
