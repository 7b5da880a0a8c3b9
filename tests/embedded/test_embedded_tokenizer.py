"""Characters and tags, there and back."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, Qwen3Config

from grpo_dist.embedded.model import EOS, TAGS, character_tokenizer
from grpo_dist.embedded.problems import worked

ANSWER = worked("47+38=", carry=True)


@pytest.fixture(scope="module", params=["fresh", "loaded"])
def tokenizer(request, tmp_path_factory):
    """As it is made, and as `AutoTokenizer` finds it beside the model's configuration."""
    made = character_tokenizer(128)
    if request.param == "fresh":
        return made
    directory = tmp_path_factory.mktemp("tokenizer")
    made.save_pretrained(directory)
    Qwen3Config().save_pretrained(directory)
    return AutoTokenizer.from_pretrained(directory)


def test_every_printable_character_survives(tokenizer):
    assert tokenizer.decode(tokenizer(string.printable)["input_ids"]) == string.printable


def test_a_tag_is_one_token(tokenizer):
    for tag in TAGS:
        assert tokenizer.tokenize(f"1{tag}2") == ["1", tag, "2"]


def test_trl_decoding_keeps_tags_and_drops_ends_and_padding(tokenizer):
    ids = tokenizer(ANSWER + EOS + tokenizer.pad_token)["input_ids"]
    assert tokenizer.batch_decode([ids], skip_special_tokens=True) == [ANSWER]


@given(st.text(max_size=40))
def test_any_text_is_tokenized(text):
    tokenizer = character_tokenizer(128)
    known = "".join(c if c in string.printable else tokenizer.unk_token for c in text)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == known


def test_the_generation_prompt_opens_the_working_out(tokenizer):
    messages = [{"role": "user", "content": "47+38="}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "47+38=<start_working_out>"


def test_an_assistant_message_ends_its_turn(tokenizer):
    messages = [{"role": "user", "content": "47+38="}, {"role": "assistant", "content": ANSWER}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == f"47+38={ANSWER}{EOS}"


def test_prompts_are_padded_on_the_left(tokenizer):
    rows = tokenizer(["1+1=", "11+11="], padding=True)
    assert rows["attention_mask"] == [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]
