"""Prompts as the model reads them: one renderer, BOS and pad tokens, and what is found wrong with them."""

from __future__ import annotations

import pytest

from grpo_dist.config.sections import DataSection
from grpo_dist.data.messages import chat_template
from grpo_dist.errors import DataError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
BARE = "{{ messages[-1]['content'] }}"
SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|vision_pad|>", "<|reserved_7|>")


def tokenizer(*, bos=None, adds_bos=False, eos="</s>", pad=None, template=CHATML, special=SPECIAL):
    """One token a byte, and the special ones."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocab=letters, merges=[]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in special])
    if adds_bos:
        number = inner.token_to_id(bos)
        inner.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, number)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=bos, eos_token=eos, pad_token=pad, chat_template=template, padding_side="left"
    )


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def rendered(one, **arguments):
    from grpo_dist.training.models.prompts import PromptRenderer

    return PromptRenderer(one, arguments)


def found(prompts, one, *, own=None, stated=None, by_id=False, ends=None, **arguments) -> dict[str, str]:
    """Name of each finding → its status."""
    from grpo_dist.training.models.prompt_check import Looked, findings

    one.pad_token = one.pad_token or one.eos_token
    own, ends = own or one, [one.eos_token_id] if ends is None else ends
    return {f.name: f.status for f in findings(Looked(prompts, rendered(one, **arguments), own, stated, ends, by_id))}


def test_arguments_reach_text_ids_lengths_and_padded_batches():
    quiet, loud = rendered(tokenizer(), enable_thinking=False), rendered(tokenizer())
    assert quiet.text(user("1+1?")) == loud.text(user("1+1?")) + "<think>\n\n</think>\n\n"
    prompts = [user("1+1?"), user("12+34?")]
    for one in (quiet, loud):
        ids = [one.ids(prompt) for prompt in prompts]
        assert [one.tokenizer.decode(row) for row in ids] == [one.text(prompt) for prompt in prompts]
        assert one.lengths(prompts) == [len(row) for row in ids]
        one.tokenizer.pad_token = "<|vision_pad|>"
        batch = one.padded(prompts)
        mask = batch["attention_mask"].bool()
        assert [row[kept].tolist() for row, kept in zip(batch["input_ids"], mask, strict=True)] == ids
    assert quiet.lengths(prompts) > loud.lengths(prompts)


@pytest.mark.parametrize("name", ["add_generation_prompt", "tokenize", "chat_template", "truncation", "tools"])
def test_arguments_of_the_tokenizer_are_refused(name):
    from grpo_dist.config import RunConfig
    from grpo_dist.training.models.prompts import renderer_of

    stated = {
        "model": {"name_or_path": "embedded"},
        "data": {"name_or_path": "embedded", "chat_template": "tokenizer"},
        "rewards": {"functions": ["strict"]},
        "grpo": {"chat_template_kwargs": {name: True}},
    }
    with pytest.raises(DataError, match=f"grpo.chat_template_kwargs: '{name}' is an argument of the tokenizer"):
        renderer_of(RunConfig.model_validate(stated), tokenizer())


@pytest.mark.parametrize(
    ("traits", "begins"),
    [
        ({"bos": "<s>", "adds_bos": True}, True),
        ({"bos": "<s>", "adds_bos": True, "template": None}, True),
        ({"bos": "<s>", "template": "{{ bos_token }}" + CHATML}, True),
        ({"bos": "<s>"}, False),  # has one, and neither adds nor writes it
        ({}, False),
    ],
)
def test_recipe_prompts_begin_with_bos_once_where_the_models_texts_do(traits, begins, tmp_path):
    from transformers import AutoTokenizer

    from grpo_dist.training.models.prompts import begins_with_bos

    own = tokenizer(**traits)
    assert begins_with_bos(own) is begins
    own.chat_template = chat_template(DataSection(name_or_path="x"), own.chat_template, bos=begins)
    own.save_pretrained(tmp_path)
    one = AutoTokenizer.from_pretrained(tmp_path)
    ids = rendered(one).ids(user("1+1?"))
    assert (ids[0] == one.bos_token_id, ids.count(one.bos_token_id)) == (begins, begins)
    assert "bos-missing" not in found([user("1+1?")], one, own=tokenizer(**traits))


def test_bos_that_a_template_forgets_or_doubles_is_found():
    one = tokenizer(bos="<s>", adds_bos=True)
    assert found([user("1+1?")], one)["bos-missing"] == "warning"
    one.chat_template = "{{ bos_token }}" + CHATML
    assert "bos-missing" not in found([user("1+1?")], one)
    one.chat_template = "{{ bos_token }}{{ bos_token }}" + CHATML
    assert found([user("1+1?")], one)["bos-twice"] == "warning"


@pytest.mark.parametrize(
    ("traits", "ends", "pad"),
    [
        ({"pad": "</s>"}, ["</s>"], "<|vision_pad|>"),
        ({}, ["</s>"], "<|vision_pad|>"),
        ({"pad": "<|im_end|>"}, ["</s>", "<|im_end|>"], "<|vision_pad|>"),
        ({"pad": "<|reserved_7|>"}, ["</s>"], "<|reserved_7|>"),  # the model's own is kept
        ({"special": ("</s>", "<|reserved_7|>")}, ["</s>"], "<|reserved_7|>"),
        ({"special": ("</s>", "<|vision_pad|>"), "template": "<|vision_pad|>{{ messages }}"}, ["</s>"], "</s>"),
        ({"special": ("</s>",)}, ["</s>"], "</s>"),
    ],
)
def test_the_pad_token_is_one_that_no_text_holds(traits, ends, pad):
    from grpo_dist.training.models.prompts import settle_pad

    one = tokenizer(**traits)
    settle_pad(one, one.convert_tokens_to_ids(ends), len(one))
    assert one.pad_token == pad
    assert len(one) == len(tokenizer(**traits))  # none is added


def test_a_pad_token_without_an_embedding_is_not_taken():
    from grpo_dist.training.models.prompts import settle_pad

    one = tokenizer()
    settle_pad(one, [one.eos_token_id], one.convert_tokens_to_ids("<|vision_pad|>"))
    assert one.pad_token == "</s>"


def test_unsloth_refuses_a_pad_token_that_is_part_of_texts():
    asked = [user("1+1?")]
    assert found(asked, tokenizer(pad="</s>"), by_id=True)["pad-token"] == "error"
    assert (
        found([user("a <|vision_pad|> b"), *asked * 3], tokenizer(pad="<|vision_pad|>"), by_id=True)["pad-token"]
        == "error"
    )
    assert "pad-token" not in found(asked, tokenizer(pad="</s>"))
    assert found(asked, tokenizer(pad="<|vision_pad|>"), own=tokenizer(), by_id=True) == {
        "turn-end": "warning",
        "pad-token": "ok",
    }


TEMPLATED = "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    "text",
    [
        TEMPLATED,
        "[INST] 1+1? [/INST]",
        "<|start_header_id|>user<|end_header_id|>\n\n1+1?<|eot_id|>",
        "<start_of_turn>user\n1+1?<end_of_turn>\n",
        "1+1?</s>",
        "1+1?\n<|im_start|>assistant",
        "<\uff5cUser\uff5c>1+1?<\uff5cAssistant\uff5c>",
    ],
)
def test_prompts_that_are_templated_already_are_found_in_any_row(text):
    plain = [user(f"{n}+1?") for n in range(9)]
    assert found([user(text)], tokenizer())["templated-already"] == "error"
    assert found([*plain, user(text)], tokenizer())["templated-already"] == "warning"
    assert "templated-already" not in found([user(text)], tokenizer(template=BARE))
    recipe = tokenizer(template=chat_template(DataSection(name_or_path="x"), None))
    assert found([user(text)], recipe)["templated-already"] == "error"


@pytest.mark.parametrize(
    "text", ["Is a < b > c?", "a <b>bold</b> [1, 2]", "f[x] <x> |a| <|> $\\langle x|y\\rangle$", "<think>"]
)
def test_other_brackets_are_no_marks(text):
    assert "templated-already" not in found([user(text)], tokenizer())


def test_a_template_of_words_is_known_by_its_generation_prompt():
    words = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    words += "{% if add_generation_prompt %}assistant: {% endif %}"
    assert found([user("user: 1+1?\nassistant: ")], tokenizer(template=words))["templated-already"] == "error"
    assert "templated-already" not in found([user("1+1?")], tokenizer(template=words))


def test_rows_that_keep_their_own_system_prompt_are_counted():
    from grpo_dist.training.models.prompt_check import Looked, findings

    own, told = ([{"role": "system", "content": text}, *user("1+1?")] for text in ("Be kind.", "Put  it in\ntags."))
    one, stated = tokenizer(pad="</s>"), "Put it in tags."
    looked = Looked([told, own, told, own], rendered(one), one, stated, [one.eos_token_id], by_id=False)
    (finding,) = [f for f in findings(looked) if f.name == "own-system-prompt"]
    assert finding.what.startswith("2 prompts of 4 bring a system message of their own, 'Be kind.'")
    assert "own-system-prompt" not in found([told, told], one, stated=stated)
    assert "own-system-prompt" not in found([own], one)
    without = tokenizer(template=CHATML.replace("{% for m in messages %}", "{% for m in messages[-1:] %}"))
    assert found([told], without, stated=stated)["system-prompt-missing"] == "error"


def test_a_turn_that_ends_with_no_end_token_is_found():
    one = tokenizer()
    assert found([user("1+1?")], one)["turn-end"] == "warning"
    ends = [one.eos_token_id, one.convert_tokens_to_ids("<|im_end|>")]
    assert "turn-end" not in found([user("1+1?")], one, ends=ends)
    assert "turn-end" not in found([user("1+1?")], tokenizer(eos="<|im_end|>"))
    assert "turn-end" not in found(
        [user("1+1?")], tokenizer(template=chat_template(DataSection(name_or_path="x"), None))
    )


def test_places_for_pictures_are_found():
    one = tokenizer()
    assert found([user("<image> How long?")], one)["pictures"] == "error"
    assert (
        found([user("<|vision_start|><|image_pad|><|vision_end|>?"), *[user("1+1?")] * 3], one)["pictures"] == "warning"
    )
