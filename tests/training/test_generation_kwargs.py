"""What `grpo.generation_kwargs` sets reaches the comparison and the filter, whoever generates there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import GenerationConfig

from grpo_dist.config import load_config
from grpo_dist.training.models.generate import for_transformers, greedy, sampled
from grpo_dist.training.models.served import ServedModel


class Spelling:
    """A tokenizer of letters."""

    pad_token_id, bos_token_id, eos_token_id = 0, None, 1

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": list(map(ord, text))}


def stated(tmp_path, kwargs: str, backend: str):
    path = tmp_path / "x.yaml"
    path.write_text("model: {name_or_path: m}\ndata: {name_or_path: d}\n")
    return load_config(path, [f"grpo.generation_kwargs={kwargs}", f"rollout.backend={backend}"])


def test_the_servers_get_it_for_greedy_and_sampled_answers(tmp_path):
    config = stated(tmp_path, "{presence_penalty: 0.5, min_tokens: 3}", "vllm")
    served = ServedModel("base", None, None, None, [1], 0, 8)
    for how in (greedy(config), sampled(config)):
        asked = served._sampling(how)
        assert (asked["presence_penalty"], asked["min_tokens"], asked["max_tokens"]) == (0.5, 3, 512)


def test_a_model_in_this_process_gets_it(tmp_path):
    config = stated(tmp_path, "{no_repeat_ngram_size: 3, typical_p: 0.9}", "transformers")
    assert for_transformers(sampled(config).further, Spelling(), sampled=True) == {
        "no_repeat_ngram_size": 3,
        "typical_p": 0.9,
    }
    assert for_transformers(greedy(config).further, Spelling(), sampled=False) == {"no_repeat_ngram_size": 3}


def test_words_of_vllm_are_translated_for_transformers(capsys):
    further = {"min_tokens": 2, "logit_bias": {"7": -1}, "bad_words": ["no"], "presence_penalty": 1.0}
    taken = for_transformers(further, Spelling(), sampled=True)
    assert taken == {
        "min_new_tokens": 2,
        "sequence_bias": [[[7], -1.0]],
        "bad_words_ids": [[110, 111], [32, 110, 111]],
    }
    GenerationConfig(**taken).validate(strict=True)
    assert "presence_penalty: only vLLM has it" in capsys.readouterr().out


@pytest.mark.parametrize("further", [{}, {"extra_args": {"a": 1}}])
def test_what_nobody_has_is_left_out(further):
    assert for_transformers(further, SimpleNamespace(), sampled=True) == {}
